// One recommended item: what it is, what is predicted and how surely, why, and how it moved.

import { count, el, oneDecimal, svg } from "./dom.js";
import { stars } from "./stars.js";

// What a text says beyond the title and the genres, which are shown by themselves.
export function restOfText({ title, text, details }) {
  const rest = text.startsWith(title) ? text.slice(title.length).replace(/^[\s.:]+/, "") : text;
  const plain = (words) => words.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
  return Object.values(details).some((value) => plain(value) === plain(rest)) ? "" : rest;
}

export const titleOnly = ({ title, details }) =>
  details.year ? title.replace(new RegExp(`\\s*\\(${details.year.replace(/\D/g, "")}\\)$`), "") : title;

export function facts({ details, isNew, ratings }, words) {
  const tags = Object.keys(words).flatMap((name) => (details[name] ?? "").split(/\s*[,|;]\s*/).filter(Boolean));
  const others = Object.entries(details).filter(([name, value]) => !(name in words) && value);
  return el(
    "p",
    { class: "facts" },
    others.map(([, value]) => el("span", {}, value)),
    tags.map((tag) => el("span", { class: "tag" }, tag)),
    el("span", { class: isNew ? "tag new" : "muted" }, isNew ? "new item" : count(ratings, "rating")),
  );
}

const WIDE = 132;

// The rating scale with the prediction, its standard deviation, and what is expected for anybody.
export function gauge(scale, score, deviation, before) {
  const x = (value) => 6 + ((Math.min(Math.max(value, scale.low), scale.high) - scale.low) / (scale.high - scale.low)) * (WIDE - 12);
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDE} 18`, class: "gauge", "aria-hidden": "true" },
    svg("line", { x1: 6, x2: WIDE - 6, y1: 9, y2: 9, class: "track" }),
    scale.levels.length <= 10 && scale.levels.map((level) => svg("circle", { cx: x(level), cy: 9, r: 1.4, class: "level" })),
    deviation !== null &&
      svg("line", { x1: x(score - deviation), x2: x(score + deviation), y1: 9, y2: 9, class: "spread" }),
    before !== null && svg("line", { x1: x(before), x2: x(before), y1: 3, y2: 15, class: "before" }),
    svg("circle", { cx: x(score), cy: 9, r: 5, class: "dot" }),
  );
}

export function shown(scale, value) {
  return scale.kind === "click" ? `${Math.round(100 * value)} %` : oneDecimal(value);
}

export function scoreBox(scale, score, deviation, before) {
  const sure = deviation === null ? "" : ` ± ${oneDecimal(deviation)}`;
  const what = scale.kind === "click" ? "Chance of a click" : "Predicted rating";
  const told = `${what} ${shown(scale, score)}${sure}${before === null ? "" : `; for anybody ${shown(scale, before)}`}`;
  return el(
    "div",
    { class: "score", role: "img", "aria-label": told, title: told },
    el("div", {}, el("strong", {}, shown(scale, score)), el("span", { class: "muted" }, sure)),
    gauge(scale, score, deviation, before),
    el("div", { class: "small muted" }, before === null ? " " : `anybody: ${shown(scale, before)}`),
  );
}

// `was` is the place in the list for anybody: undefined where there is nothing to compare, null where it is beyond it.
export function moved(was, now, reach) {
  if (was === undefined) return el("span", { class: "moved" });
  if (was === null) return el("span", { class: "moved up", title: `for anybody beyond place ${reach}` }, `▲ ${reach}+`);
  const by = was - now;
  const how = by > 0 ? "up" : by < 0 ? "down" : "same";
  const sign = { up: "▲", down: "▼", same: "=" }[how];
  return el("span", { class: `moved ${how}`, title: `for anybody place ${was}` }, by ? `${sign} ${Math.abs(by)}` : sign);
}

// An item's picture, which comes later than the rest. What it shows the title says.
export function pictureOf(item, picture) {
  if (!item.picture) return null;
  const image = el("img", { class: "picture", alt: "" });
  picture(item.id).then((source) => (source ? image.setAttribute("src", source) : image.remove()));
  return image;
}

// A card whose parts can change while it stays: `update` is called after every re-ranking.
export function card(item, about, on) {
  const scale = about.scale;
  const place = el("div", { class: "place" });
  const score = el("div");
  const reason = el("p", { class: "reason" });
  const rest = restOfText(item);
  const rating = stars(scale, item.title, null, (value) => on.rate(item, value));
  const open = el("button", { type: "button", class: "title", onclick: () => on.open(item) }, el("span", { class: "clamped" }, titleOnly(item)));
  const root = el(
    "li",
    { class: "card", "data-id": item.id },
    place,
    el(
      "div",
      { class: "what" },
      pictureOf(item, on.picture),
      el("h3", {}, open),
      facts({ ...item, isNew: item.new }, about.details),
      rest && el("p", { class: "text" }, rest),
      reason,
      rating.root,
    ),
    score,
  );
  const update = (now, { was, before, reach }) => {
    place.replaceChildren(el("span", { class: "number" }, String(now.place)), moved(was, now.place, reach));
    score.replaceChildren(scoreBox(scale, now.score, now.deviation, before));
  };
  const because = (sentence) => {
    reason.textContent = sentence;
  };
  return { root, update, because };
}
