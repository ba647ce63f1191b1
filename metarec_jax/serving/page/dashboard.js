// What was shown, and what came of it: figures of the service with their intervals, for each model ("arm").

import { el, svg } from "./dom.js";
import { ask } from "./service.js";

const EVERY = 10_000; // ms
const WIDTH = 520;
const HEIGHT = 190;
const LEFT = 46;
const BOTTOM = 26;
const TOP = 12;

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const plain = (value) => value.toFixed(2);
const whole = (value) => Math.round(value).toLocaleString("en");

const withInterval = (figure, write) => {
  if (figure.value === null) return "–";
  if (figure.low === null) return write(figure.value);
  return `${write(figure.value)} (${write(figure.low)} to ${write(figure.high)})`;
};

const NAMES = { a: "Model a", b: "Model b", none: "No list" };
const armName = (arm) => NAMES[arm] ?? arm;

function when(seconds, span) {
  const options = span < 86_400 ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric" };
  if (span < 600) options.second = "2-digit";
  return new Date(1000 * seconds).toLocaleString("en-GB", options);
}

// A round number that is at least `value`.
function roundUp(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 8, 10].map((n) => n * unit).find((n) => n >= value - 1e-12);
}

function mark(arm, x, y) {
  const shape =
    arm === "b"
      ? svg("rect", { x: x - 3.5, y: y - 3.5, width: 7, height: 7 })
      : svg("circle", { cx: x, cy: y, r: 4 });
  shape.setAttribute("class", `mark arm-${arm}`);
  return shape;
}

// A chart of `read(row)` -> {value, low, high} over time, one series an arm; `bars` draws it from 0 as columns.
function chart(title, rows, arms, read, write, { bars = false, zero = true } = {}) {
  const points = rows.map((row) => ({ row, ...read(row) })).filter((point) => point.value !== null);
  const start = Math.min(...rows.map((row) => row.start));
  const end = Math.max(...rows.map((row) => row.end));
  const span = Math.max(end - start, 1e-6);
  const low = zero || !points.length ? 0 : Math.floor(Math.min(...points.map((point) => point.low ?? point.value)));
  const most = Math.max(...points.map((point) => point.high ?? point.value), 0);
  const top = zero ? roundUp(most) : Math.max(Math.ceil(most), low + 1);
  const x = (time) => LEFT + ((time - start) / span) * (WIDTH - LEFT - 10);
  const y = (value) => HEIGHT - BOTTOM - ((Math.min(Math.max(value, low), top) - low) / (top - low)) * (HEIGHT - BOTTOM - TOP);
  const ticks = [0, 0.5, 1].map((share) => low + share * (top - low));
  const width = (x(rows[0].end) - x(rows[0].start)) * 0.8;
  const drawn = arms.flatMap((arm, which) => {
    const mine = points.filter((point) => point.row.arm === arm).sort((a, b) => a.row.start - b.row.start);
    const middle = (point) => x((point.row.start + point.row.end) / 2);
    if (bars) {
      const each = width / arms.length;
      return mine.map((point) =>
        svg(
          "rect",
          {
            x: middle(point) - width / 2 + which * each,
            y: y(point.value),
            width: Math.max(each - 1, 1),
            height: Math.max(y(low) - y(point.value), 0),
            rx: 1.5,
            class: `column arm-${arm}`,
          },
          svg("title", {}, `${armName(arm)}, ${when(point.row.start, span)}: ${write(point.value)}`),
        ),
      );
    }
    const shift = (which - (arms.length - 1) / 2) * 5;
    return [
      svg("polyline", { points: mine.map((p) => `${middle(p) + shift},${y(p.value)}`).join(" "), class: `line arm-${arm}` }),
      ...mine.map((point) =>
        svg(
          "g",
          {},
          svg("title", {}, `${armName(arm)}, ${when(point.row.start, span)}: ${withInterval(point, write)}`),
          point.low !== null &&
            svg("line", {
              x1: middle(point) + shift,
              x2: middle(point) + shift,
              y1: y(point.low),
              y2: y(point.high),
              class: `whisker arm-${arm}`,
            }),
          mark(arm, middle(point) + shift, y(point.value)),
        ),
      ),
    ];
  });
  return el(
    "figure",
    { class: "panel" },
    el("figcaption", {}, title),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": `${title}, over time; the table below has the figures` },
      ticks.map((value) => [
        svg("line", { x1: LEFT, x2: WIDTH - 10, y1: y(value), y2: y(value), class: "grid" }),
        svg("text", { x: LEFT - 8, y: y(value) + 4, class: "axis end" }, write(value)),
      ]),
      svg("text", { x: LEFT, y: HEIGHT - 6, class: "axis" }, when(start, span)),
      svg("text", { x: WIDTH - 10, y: HEIGHT - 6, class: "axis end" }, when(end, span)),
      drawn,
    ),
  );
}

// A figure of each arm as a point with its interval, on one axis.
function compared(name, arms, read, write, meaning) {
  const figures = Object.entries(arms).map(([arm, row]) => [arm, read(row)]);
  const top = roundUp(Math.max(...figures.map(([, figure]) => figure.high ?? figure.value ?? 0)));
  const x = (value) => 4 + (Math.min(Math.max(value, 0), top) / top) * 192;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, name, el("span", { class: "muted small" }, meaning)),
    el(
      "td",
      { class: "picture" },
      svg(
        "svg",
        { viewBox: `0 0 200 ${figures.length * 16 + 4}`, "aria-hidden": "true", class: "forest" },
        svg("line", { x1: 4, x2: 196, y1: figures.length * 16 + 2, y2: figures.length * 16 + 2, class: "grid" }),
        figures.map(([arm, figure], n) => {
          const at = 10 + n * 16;
          if (figure.value === null) return null;
          return [
            figure.low !== null &&
              svg("line", { x1: x(figure.low), x2: x(figure.high), y1: at, y2: at, class: `whisker arm-${arm}` }),
            mark(arm, x(figure.value), at),
          ];
        }),
      ),
    ),
    figures.map(([, figure]) => el("td", {}, withInterval(figure, write))),
  );
}

const counted = (name, arms, read) =>
  el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el("td", { class: "picture" }),
    Object.values(arms).map((row) => el("td", {}, whole(read(row)))),
  );

function arms(figures) {
  const { arms, liked } = figures;
  return el(
    "section",
    { class: "panel wide" },
    el("h2", {}, "Each model"),
    el(
      "div",
      { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Figures of each model" },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("td", {}),
            el("td", { class: "picture" }),
            Object.keys(arms).map((arm) =>
              el("th", { scope: "col" }, svg("svg", { viewBox: "0 0 10 10", class: "key", "aria-hidden": "true" }, mark(arm, 5, 5)), ` ${armName(arm)}`),
            ),
          ),
        ),
        el(
          "tbody",
          {},
          counted("Users", arms, (row) => row.users),
          counted("Impressions", arms, (row) => row.impressions),
          counted("Clicks", arms, (row) => row.clicks),
          counted("Ratings", arms, (row) => row.ratings),
          compared("CTR", arms, (row) => row.ctr, percent, "clicks per impression"),
          compared("Precision", arms, (row) => row.precision, percent, `clicked, bought, or rated ${liked} or more`),
          compared("nDCG", arms, (row) => row.ndcg, plain, "of clicks, in lists with at least one"),
          compared("Mean rating", arms, (row) => row.rating, plain, "of what was rated in a list"),
        ),
      ),
    ),
  );
}

function differences(figures) {
  const rows = [];
  const line = (name, figure, write) => rows.push(el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, withInterval(figure, write))));
  const written = { ctr: "CTR", precision: "Precision", ndcg: "nDCG" };
  for (const [name, figure] of Object.entries(figures["b less a"] ?? {})) {
    line(`${written[name] ?? name} of b minus that of a`, figure, name === "ndcg" ? plain : percent);
  }
  for (const figure of Object.values(figures.interleaving ?? {})) line("Share of interleaved lists that b won, minus one half", figure, percent);
  for (const [policy, found] of Object.entries(figures["off-policy"] ?? {})) {
    for (const [name, figure] of Object.entries(found)) {
      line(`${policy[0].toUpperCase()}${policy.slice(1)}: ${name === "weight" ? "mean weight" : name.toUpperCase()}`, figure, name === "weight" ? plain : percent);
    }
  }
  if (!rows.length) return null;
  return el(
    "section",
    { class: "panel wide" },
    el("h2", {}, "Compared"),
    el("p", { class: "muted small" }, "95 % intervals over users. Rows with IPS are from randomised lists."),
    el("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Comparisons" }, el("table", {}, el("tbody", {}, rows))),
  );
}

function table(rows) {
  const span = rows.at(-1).end - rows[0].start;
  return el(
    "details",
    { class: "panel wide" },
    el("summary", {}, "The figures over time as a table"),
    el(
      "div",
      { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Figures over time" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ["From", "Model", "Impressions", "Clicks", "CTR", "Ratings", "Mean rating"].map((name) => el("th", { scope: "col" }, name)))),
        el(
          "tbody",
          {},
          rows.map((row) =>
            el(
              "tr",
              {},
              [
                when(row.start, span),
                armName(row.arm),
                whole(row.impressions),
                whole(row.clicks),
                withInterval(row.ctr, percent),
                whole(row.ratings),
                withInterval(row.rating, plain),
              ].map((value) => el("td", {}, value)),
            ),
          ),
        ),
      ),
    ),
  );
}

function tile(name, value, more) {
  return el("div", { class: "panel tile" }, el("span", { class: "muted" }, name), el("strong", {}, value), el("span", { class: "muted small" }, more));
}

function drawn(figures) {
  const rows = figures["over time"] ?? [];
  const all = Object.values(figures.arms);
  if (!all.length) return [el("p", { class: "notice" }, "No list was shown yet.")];
  const names = Object.keys(figures.arms);
  const sum = (read) => all.reduce((total, row) => total + read(row), 0);
  const impressions = sum((row) => row.impressions);
  const clicks = sum((row) => row.clicks);
  const single = all.length === 1 ? all[0] : null;
  const interval = (figure, write) => (single && figure(single).low !== null ? `${write(figure(single).low)} to ${write(figure(single).high)}` : "of all models");
  const rated = sum((row) => row.ratings);
  const exact = (read) => (row) => ({ value: read(row), low: null, high: null });
  return [
    el(
      "div",
      { class: "tiles" },
      tile("Impressions", whole(impressions), `in ${whole(sum((row) => row.lists))} lists`),
      tile("Clicks", whole(clicks), `of ${whole(sum((row) => row.users))} users`),
      tile("CTR", percent(clicks / impressions), interval((row) => row.ctr, percent)),
      tile("Ratings in lists", whole(rated), rated ? `${plain(sum((row) => (row.rating.value ?? 0) * row.ratings) / rated)} on average` : "none yet"),
    ),
    arms(figures),
    differences(figures),
    el(
      "div",
      { class: "charts" },
      chart("Impressions", rows, names, exact((row) => row.impressions), whole, { bars: true }),
      chart("Clicks", rows, names, exact((row) => row.clicks), whole, { bars: true }),
      chart("CTR, with 95 % intervals over users", rows, names, (row) => row.ctr, percent),
      chart("Mean rating, with 95 % intervals over users", rows, names, (row) => row.rating, plain, { zero: false }),
    ),
    rows.length > 0 && table(rows),
  ];
}

// What was open stays open; what had the focus has it again, scrolled as it was: figures come anew while people read.
function replace(body, nodes) {
  const open = Boolean(body.querySelector("details[open]"));
  const name = (node) => node.getAttribute("aria-label") ?? node.localName;
  const stops = () => new Map([...body.querySelectorAll("summary, .scrolls")].map((node) => [name(node), node]));
  const before = stops();
  const places = new Map([...before].map(([key, node]) => [key, node.scrollLeft]));
  const focused = [...before].find(([, node]) => node === document.activeElement)?.[0];
  body.replaceChildren(...nodes);
  const details = body.querySelector("details");
  if (details) details.open = open;
  const after = stops();
  for (const [key, node] of after) node.scrollLeft = places.get(key) ?? 0;
  after.get(focused)?.focus({ preventScroll: true });
}

export function dashboard(root) {
  const body = el("div", { class: "board" });
  const state = el("p", { class: "muted small", role: "status" });
  const again = el("button", { type: "button", onclick: () => refresh() }, "Refresh");
  root.append(
    el("div", { class: "heading" }, el("div", {}, el("h1", {}, "Dashboard"), el("p", { class: "muted" }, "Items that users were shown, and what they did with them.")), again),
    state,
    body,
  );
  let timer = 0;
  async function refresh() {
    try {
      replace(body, drawn(await ask("./figures")).filter(Boolean));
      state.textContent = `As of ${new Date().toLocaleTimeString("en-GB")}. Intervals are of 95 %, over users.`;
    } catch (error) {
      state.textContent = error.message;
    }
  }
  return {
    active(there) {
      clearInterval(timer);
      if (!there) return;
      refresh();
      timer = setInterval(() => {
        // What somebody reads with the keyboard is not taken away.
        if (!document.hidden && !body.contains(document.activeElement)) refresh();
      }, EVERY);
    },
  };
}
