// A rating as radio buttons that look like stars: arrows and Tab work as the browser has them.

import { el, svg } from "./dom.js";

const STAR = "M12 2.6l2.85 5.9 6.5.85-4.77 4.5 1.2 6.45L12 17.15 6.22 20.3l1.2-6.45-4.77-4.5 6.5-.85z";
const SETTLES = 300; // ms until what was chosen counts: arrows go through the stars one by one

let number = 0;

// The ratings that can be given: those of the scale, or five where it has too many to show.
function levelsOf(scale) {
  if (scale.levels.length && scale.levels.length <= 10) return scale.levels;
  return [0, 1, 2, 3, 4].map((n) => Number((scale.low + (n / 4) * (scale.high - scale.low)).toPrecision(7)));
}

function picture(scale, levels, n) {
  if (scale.kind === "click") return n ? "Yes" : "No";
  const halves = levels.length > 6; // two levels a star
  const box = halves ? (n % 2 ? "12 0 12 24" : "0 0 12 24") : "0 0 24 24";
  return svg("svg", { viewBox: box, class: halves ? "half" : "", "aria-hidden": "true" }, svg("path", { d: STAR }));
}

// `given` is called with the rating that was chosen.
export function stars(scale, title, value, given) {
  const name = `rating-${++number}`;
  const levels = levelsOf(scale);
  let timer = 0;
  const labels = levels.map((level, n) => {
    const word = scale.kind === "click" ? (n ? "yes" : "no") : `${level} of ${levels.at(-1)}`;
    const input = el("input", { type: "radio", name, value: level, "aria-label": word });
    input.addEventListener("change", () => {
      clearTimeout(timer);
      timer = setTimeout(() => given(level), SETTLES);
    });
    return el("label", { title: word }, input, picture(scale, levels, n));
  });
  const root = el("fieldset", { class: `stars ${scale.kind}` }, el("legend", { class: "hidden" }, `Rate ${title}`), labels);
  const show = (rating) => {
    for (const label of labels) {
      const input = label.querySelector("input");
      input.checked = rating !== null && Number(input.value) === rating;
    }
  };
  show(value);
  return { root, show };
}
