// Titles and texts as a person can read them, whatever is in the data.

const ESCAPES = /\u001b\[[0-?]*[ -/]*[@-~]/g; // of terminals
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g; // and of writing directions
const SEEN = /[^\s\p{C}\p{M}\u115f\u1160\u2800\u3164\uffa0]/u; // a character that leaves a mark
const TEXTS = new Set(["title", "text", "sentence", "profile", "msg"]);
const MOST = 300; // characters of a title

const plain = (text) => text.replace(ESCAPES, "").replace(CONTROLS, " ");
const short = (text) => (text.length > MOST ? `${text.slice(0, MOST - 1).trimEnd()}…` : text);

// Of a title in which nothing can be seen, the text or the id takes the place.
function titleOf({ title, text, id, item }) {
  const found = [title, text, id ?? item].find((one) => typeof one === "string" && SEEN.test(one));
  return short(found?.trim() ?? "(without a title)");
}

// The reviver of JSON.parse for all that the service answers.
export function readable(key, value) {
  if (typeof value === "string" && TEXTS.has(key)) return plain(value);
  if (value && typeof value === "object" && typeof value.title === "string") return { ...value, title: titleOf(value) };
  return value;
}
