// Before and after: the list for anybody beside the list for this user, with a line from each item to where it went.

import { el, svg } from "./dom.js";
import { moved, shown, titleOnly } from "./cards.js";

const ROW = 52;

function row(scale, item, place, score, extra, quiet) {
  return el(
    "li",
    { class: quiet ? "quiet" : "", "data-id": item.id },
    el("span", { class: "number" }, String(place)),
    el("span", { class: "name" }, titleOnly(item)),
    extra,
    el("span", { class: "value" }, shown(scale, score)),
  );
}

// `before` and `after` are cards of the two lists, `places` the places for anybody of those not rated, by id.
export function change(scale, before, after, { places, reach, rating }) {
  const rows = Math.max(before.length, after.length);
  const height = rows * ROW;
  const lines = before.flatMap((item, n) => {
    const to = after.findIndex((other) => other.id === item.id);
    if (to < 0) return [];
    const [y1, y2] = [(n + 0.5) * ROW, (to + 0.5) * ROW];
    const how = to < n ? "up" : to > n ? "down" : "same";
    return [svg("path", { d: `M0 ${y1} C 50 ${y1} 50 ${y2} 100 ${y2}`, class: how })];
  });
  const stay = after.filter((item) => before.some((other) => other.id === item.id)).length;
  return [
    el("p", { class: "muted small" }, `${stay} of ${after.length} would be in the first ${before.length} for anybody.`),
    el(
      "div",
      { class: "both" },
      el(
        "section",
        {},
        el("h3", {}, "Before ", el("span", { class: "muted" }, "what anybody gets")),
        el(
          "ol",
          { class: "lines" },
          before.map((item, n) => {
            const rated = rating(item.id);
            const note = rated === null ? null : el("span", { class: "tag" }, `you: ${rated}`);
            return row(scale, item, n + 1, item.score, note, rated !== null);
          }),
        ),
      ),
      svg(
        "svg",
        { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", class: "links", height, "aria-hidden": "true" },
        lines,
      ),
      el(
        "section",
        {},
        el("h3", {}, "After ", el("span", { class: "muted" }, "adapted to your ratings")),
        el(
          "ol",
          { class: "lines" },
          after.map((item, n) => row(scale, item, n + 1, item.score, moved(places.get(item.id) ?? null, n + 1, reach))),
        ),
      ),
    ),
  ];
}
