// The page: what is asked of the service, when, and where the answers go.

import { arrange, byId, count, el } from "./dom.js";
import { card, facts, pictureOf, restOfText, scoreBox, shown, titleOnly } from "./cards.js";
import { change } from "./change.js";
import { dashboard } from "./dashboard.js";
import { ask, picture } from "./service.js";
import * as session from "./session.js";
import { stars } from "./stars.js";

const REACH = 100; // places for anybody that are looked at
const AT_ONCE = 16; // items of a request to explain

let about;
let list = null; // the last answer to /recommend
let anybody = { key: "", items: [] };
let beforeScores = new Map();
let view = "cards";
let ticket = 0; // of the last list: what comes for an earlier one is too late
const wanted = new Set(); // chosen words, as "detail\0word"
const cards = new Map();
const reasons = new Map();

// Telling the person

function problem(error) {
  const place = byId("problem");
  place.hidden = !error;
  place.textContent = error ? error.message : "";
  if (error && !("status" in error)) throw error;
}

const say = (text) => {
  byId("said").textContent = text;
};

// Rating

function rate(item, rating, from = null) {
  const before = session.ratingOf(item.id);
  if (before === rating) return;
  session.rate(item, rating, from);
  showRated();
  showFound();
  update(rating === null ? `${item.title}: rating removed.` : `${item.title}: rated ${rating}.`);
}

function row(item, ...more) {
  const rating = stars(about.scale, item.title, session.ratingOf(item.id), (value) => rate(item, value));
  return el("li", { "data-id": item.id }, el("div", {}, el("span", { class: "name" }, item.title), rating.root), more);
}

let found = [];

function showFound() {
  byId("found").replaceChildren(...found.filter((item) => session.ratingOf(item.id) === null).map((item) => row(item)));
}

let typed = 0;

async function search() {
  const mine = ++typed;
  const text = byId("search").value.trim();
  try {
    const { items } = await ask(`./items?limit=${text ? 8 : 30}&search=${encodeURIComponent(text)}`);
    if (mine !== typed) return;
    const left = items.filter((item) => text || session.ratingOf(item.id) === null);
    found = text ? left : left.slice(0, 5);
    const rated = found.filter((item) => session.ratingOf(item.id) !== null).length;
    byId("found-note").textContent = text
      ? `${count(found.length, "item")} found${rated ? `, ${rated} of them rated already` : ""}`
      : "Rated most often. Do you know any?";
    showFound();
  } catch (error) {
    problem(error);
  }
}

function showRated() {
  const { ratings } = session.current();
  byId("rated-count").textContent = String(ratings.length);
  byId("rated-none").hidden = ratings.length > 0;
  byId("clear").hidden = ratings.length === 0;
  const old = new Map([...byId("rated").children].map((node) => [node.dataset.id, node]));
  const nodes = [...ratings].reverse().map((item) => {
    const same = old.get(item.id);
    const said = `${item.rating} ${item.unknown ?? false}`;
    if (same?.dataset.said === said) return same;
    const remove = el("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${item.title}` }, "×");
    remove.addEventListener("click", () => {
      const next = remove.closest("li").nextElementSibling ?? remove.closest("li").previousElementSibling;
      rate(item, null);
      (next?.querySelector(".remove") ?? byId("search")).focus();
    });
    const unknown = item.unknown && el("span", { class: "small muted" }, "not among the items of this service");
    const node = row(item, unknown, remove);
    node.dataset.said = said;
    if (same?.contains(document.activeElement)) queueMicrotask(() => node.querySelector("input:checked")?.focus());
    return node;
  });
  arrange(byId("rated"), nodes);
}

// The list

const filters = () => {
  const details = {};
  for (const key of wanted) {
    const [name, word] = key.split("\0");
    (details[name] ??= []).push(word);
  }
  return { details };
};

let running = null;
let again = false;
let told = "";

// Adapts and ranks anew. While that runs, whatever else changes waits for one more round, and not for one each.
function update(text = "") {
  told = text || told;
  again = true;
  running ??= (async () => {
    byId("list-view").setAttribute("aria-busy", "true");
    try {
      while (again) {
        again = false;
        await round();
      }
      problem(null);
    } catch (error) {
      problem(error);
    } finally {
      running = null;
      byId("list-view").removeAttribute("aria-busy");
    }
  })();
  return running;
}

async function round() {
  const mine = session.current();
  await session.sync(mine, about.reads_profiles);
  const k = Number(byId("length").value);
  const chosen = filters();
  const next = await ask("./recommend", { state: mine.state, k, filters: chosen });
  const key = JSON.stringify([mine.base, chosen]);
  if (anybody.key !== key) {
    const { items } = await ask("./recommend", { state: mine.base, k: REACH, filters: chosen, log: false });
    anybody = { key, items };
    beforeScores = new Map();
  }
  const unscored = next.items.map((item) => item.id).filter((id) => !beforeScores.has(id));
  if (unscored.length) {
    const { scores } = await ask("./score", { state: mine.base, items: unscored });
    for (const one of scores) beforeScores.set(one.item, one.score);
  }
  if (mine !== session.current() || again) return;
  showRated();
  list = { ...next, session: mine };
  show();
  session.send(mine);
  explain(mine, next.items);
}

function placesForAnybody() {
  const left = anybody.items.filter((item) => session.ratingOf(item.id) === null);
  return new Map(left.map((item, n) => [item.id, n + 1]));
}

// The score before adapting, where it is of the model that chose the item: those of two models cannot be compared.
function forAnybody({ id, arm }) {
  const sameModel = arm === Object.keys(about.models)[0] || list.arm !== "both";
  return sameModel ? (beforeScores.get(id) ?? null) : null;
}

function show() {
  const rated = session.current().ratings.filter((r) => !r.unknown).length;
  const { items } = list;
  const places = placesForAnybody();
  const compared = rated > 0;
  byId("adapted").textContent = rated
    ? `Adapted to ${count(rated, "rating")}, out of ${count(about.items, "item")}.`
    : "What anybody would get. Rate something, and the list adapts to you at once.";
  byId("notes").hidden = list.notes.length === 0;
  byId("notes").textContent = list.notes.join(" ");
  byId("empty").hidden = items.length > 0;
  const active = document.activeElement?.closest?.(".card");
  const place = active ? [...byId("cards").children].indexOf(active) : -1;
  let fresh = 0;
  const nodes = items.map((item) => {
    let one = cards.get(item.id);
    if (!one) {
      one = card(item, about, { rate: (what, value) => rate(what, value, list.list_id), open, picture });
      cards.set(item.id, one);
    }
    if (!one.root.isConnected) fresh++;
    const was = compared ? (places.get(item.id) ?? null) : undefined;
    one.update(item, { was, reach: REACH, before: compared ? forAnybody(item) : null });
    one.because(reasons.get(item.id) ?? "");
    return one.root;
  });
  arrange(byId("cards"), nodes);
  for (const [id, one] of cards) if (!one.root.isConnected) cards.delete(id);
  if (place >= 0 && !active.isConnected) {
    (nodes[Math.min(place, nodes.length - 1)]?.querySelector("input") ?? byId("for-you")).focus({ preventScroll: true });
  }
  byId("cards").hidden = view !== "cards";
  byId("change").hidden = view !== "change";
  if (view === "change") {
    byId("change").replaceChildren(
      ...change(about.scale, anybody.items.slice(0, items.length), items, { places, reach: REACH, rating: session.ratingOf }),
    );
  }
  const news = nodes.length && fresh ? ` ${count(fresh, "new item")} of ${nodes.length} in the list.` : "";
  if (told) say(`${told}${news}`);
  told = "";
}

// Each item by the model that chose it: the reasons of another one would be none for its being there.
async function explain(mine, items) {
  const me = ++ticket;
  const rated = mine.ratings.some((r) => !r.unknown);
  if (!rated) reasons.clear();
  const parts = [...new Set(items.map((item) => item.arm))].flatMap((arm) => {
    const ids = items.filter((item) => item.arm === arm).map((item) => item.id);
    return Array.from({ length: Math.ceil(ids.length / AT_ONCE) }, (_, n) => [arm, ids.slice(n * AT_ONCE, (n + 1) * AT_ONCE)]);
  });
  for (const [n, [arm, ids]] of (rated ? parts : []).entries()) {
    let answer;
    try {
      answer = await ask("./explain", { state: mine.state, items: ids, arm });
    } catch (error) {
      return problem(error);
    }
    if (me !== ticket) return;
    if (n === 0) reasons.clear();
    for (const one of answer.explanations) {
      reasons.set(one.item, one.sentence ? one.sentence[0].toUpperCase() + one.sentence.slice(1) : "");
    }
    for (const { id } of items) cards.get(id)?.because(reasons.get(id) ?? "");
  }
}

// One item, looked at

// What would not be printed as 0.00.
const felt = (one) => Math.abs(one.influence) >= 0.005;
const ratingNamed = (one) => [`${one.title} `, el("span", { class: "muted" }, `you: ${one.rating}`)];

// Rows of a name, a bar and a number, from what moves the prediction most.
function influences(all, name) {
  const most = Math.max(...all.map((one) => Math.abs(one.influence)), 1e-9);
  const strongest = all
    .filter(felt)
    .sort((a, b) => Math.abs(b.influence) - Math.abs(a.influence))
    .slice(0, 8);
  return el(
    "ul",
    { class: "influences" },
    strongest.map((one) => {
      const bar = el("span", { class: one.influence < 0 ? "amount less" : "amount" });
      bar.style.width = `${(100 * Math.abs(one.influence)) / most}%`;
      const sign = one.influence < 0 ? "−" : "+";
      return el(
        "li",
        {},
        el("span", { class: "name" }, name(one)),
        el("span", { class: "holds", "aria-hidden": "true" }, bar),
        el("span", { class: "value" }, `${sign}${Math.abs(one.influence).toFixed(2)}`),
      );
    }),
  );
}

// On request, for it has the encoder read the text: which of its words the score hangs on.
function wordsOf(question) {
  const root = el("div");
  const weigh = async () => {
    button.disabled = true;
    button.textContent = "Reading its text …";
    try {
      const [{ words }] = (await ask("./explain", { ...question, words: true })).explanations;
      root.replaceChildren(
        el("h3", { tabindex: -1 }, "What the words of its text add, approximately"),
        words.some(felt) ? influences(words, (one) => one.text) : el("p", { class: "muted" }, "No single word changes the prediction."),
      );
      root.firstChild.focus();
    } catch (error) {
      byId("details").close();
      problem(error);
    }
  };
  const button = el("button", { type: "button", class: "quiet", onclick: weigh }, "Which words of its text matter?");
  root.append(button);
  return root;
}

async function open(item) {
  const mine = session.current();
  const shownIn = list?.items.some((one) => one.id === item.id) ? list.list_id : null;
  if (shownIn) {
    session.note(item.id, { kind: "click" }, shownIn);
    session.send(mine);
  }
  const dialog = byId("details");
  const close = el("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => dialog.close() }, "×");
  const rating = stars(about.scale, item.title, session.ratingOf(item.id), (value) => rate(item, value, shownIn));
  const why = el("div");
  const similar = el("div");
  const now = list?.items.find((one) => one.id === item.id);
  const rest = restOfText(item);
  dialog.replaceChildren(
    close,
    pictureOf(item, picture),
    el("h2", { id: "details-title" }, titleOnly(item)),
    facts({ ...item, isNew: item.new }, about.details),
    rest && el("p", {}, rest),
    now && scoreBox(about.scale, now.score, now.deviation, forAnybody(now)),
    rating.root,
    why,
    similar,
  );
  if (!dialog.open) dialog.showModal();
  try {
    const question = { state: mine.state, items: [item.id], arm: now?.arm ?? null };
    const [explained, near] = await Promise.all([
      mine.ratings.length ? ask("./explain", question) : null,
      ask(`./similar?k=5&item=${encodeURIComponent(item.id)}`),
    ]);
    if (explained?.explanations[0].influences.some(felt)) {
      why.append(
        el("h3", {}, "What your ratings add to this prediction"),
        influences(explained.explanations[0].influences, ratingNamed),
      );
    }
    if (explained) why.append(wordsOf(question));
    if (near.similar.length) {
      similar.append(
        el("h3", {}, "Similar"),
        el(
          "ul",
          { class: "plain" },
          near.similar.map((one) =>
            el("li", {}, el("button", { type: "button", class: "link", onclick: () => open(one) }, one.title)),
          ),
        ),
      );
    }
  } catch (error) {
    dialog.close();
    problem(error);
  }
}

// The interview

let asked = 0;

async function askNext() {
  const panel = byId("asking");
  const mine = session.current();
  try {
    await update();
    const { questions } = await ask("./interview", { state: mine.state, k: 1, skip: mine.skipped.slice(-1000) });
    const [question] = questions;
    if (!question) return endAsking();
    asked++;
    const answer = stars(about.scale, question.title, null, (value) => {
      rate(question, value);
      askNext();
    });
    panel.replaceChildren(
      el(
        "div",
        {},
        el("p", { class: "small muted" }, `Question ${asked}: chosen because your answer tells most about the rest`),
        el("h2", { id: "asking-title", tabindex: "-1" }, titleOnly(question)),
        facts({ ...question, isNew: question.new }, about.details),
      ),
      answer.root,
      el(
        "div",
        { class: "buttons" },
        el(
          "button",
          {
            type: "button",
            onclick: () => {
              session.skip(question.id);
              askNext();
            },
          },
          "I do not know it",
        ),
        el("button", { type: "button", class: "quiet", onclick: endAsking }, "Enough"),
      ),
    );
    panel.hidden = false;
    byId("ask-me").hidden = true;
    byId("asking-title").focus();
  } catch (error) {
    problem(error);
  }
}

function endAsking() {
  byId("asking").hidden = true;
  byId("ask-me").hidden = !about.asks;
  byId("ask-me").focus();
}

// Adding an item

async function addItem() {
  const details = {};
  for (const box of byId("new-details").querySelectorAll("input:checked")) {
    details[box.name] = details[box.name] ? `${details[box.name]}, ${box.value}` : box.value;
  }
  const body = { title: byId("new-title").value.trim(), text: byId("new-text").value.trim(), details };
  const place = byId("added");
  try {
    const item = await ask("./items", body);
    about.items++;
    anybody.key = "";
    await update(`${item.title} was added.`);
    const mine = session.current();
    const [{ scores }, ranked] = await Promise.all([
      ask("./score", { state: mine.state, items: [item.id] }),
      ask("./recommend", { state: mine.state, k: REACH, log: false }),
    ]);
    const rank = ranked.items.findIndex((one) => one.id === item.id) + 1;
    const [one] = scores;
    place.replaceChildren(
      el("p", {}, el("strong", {}, item.title), " can be recommended now."),
      scoreBox(about.scale, one.score, one.deviation, null),
      el("p", { class: "small muted" }, rank ? `Place ${rank} of ${about.items} for you.` : `Not among your first ${REACH}.`),
      stars(about.scale, item.title, null, (value) => rate(item, value)).root,
    );
    byId("add-form").reset();
  } catch (error) {
    place.replaceChildren(el("p", { class: "bad" }, error.message));
  }
}

// Somebody else

async function offerPeople() {
  const { users } = await ask("./users");
  byId("people").hidden = users.length === 0;
  byId("person").replaceChildren(
    ...users.map((user) =>
      el("option", { value: user.id }, `${user.id}: ${user.profile || "no profile"} (${count(user.ratings, "rating")})`),
    ),
  );
}

function showWho() {
  const person = session.other();
  byId("acting").hidden = !person;
  if (person) byId("acting-as").textContent = `You are viewing as user ${person.id}. ${person.profile}`;
  byId("rated-title").firstChild.textContent = person ? `Ratings of user ${person.id} ` : "Your ratings ";
  byId("profile").value = session.current().profile;
}

function someoneElse(text) {
  byId("asking").hidden = true;
  byId("ask-me").hidden = !about.asks;
  reasons.clear();
  showWho();
  showRated();
  search();
  return update(text);
}

// Everything at once

function chips() {
  const all = Object.entries(about.details).flatMap(([name, words]) => words.map((word) => [name, word]));
  byId("words").replaceChildren(
    ...all.map(([name, word]) => {
      const chip = el("button", { type: "button", class: "chip", "aria-pressed": "false" }, word);
      chip.addEventListener("click", () => {
        const key = `${name}\0${word}`;
        if (!wanted.delete(key)) wanted.add(key);
        chip.setAttribute("aria-pressed", String(wanted.has(key)));
        update(wanted.size ? `Only ${[...wanted].map((one) => one.split("\0")[1]).join(", ")}.` : "All items.");
      });
      return chip;
    }),
  );
  byId("new-details").replaceChildren(
    ...Object.entries(about.details).map(([name, words]) =>
      el(
        "fieldset",
        { class: "checks" },
        el("legend", {}, name[0].toUpperCase() + name.slice(1)),
        words.map((word) => el("label", {}, el("input", { type: "checkbox", name, value: word }), ` ${word}`)),
      ),
    ),
  );
}

function choose(which) {
  view = which;
  byId("as-cards").setAttribute("aria-pressed", String(which === "cards"));
  byId("as-change").setAttribute("aria-pressed", String(which === "change"));
  if (list) show();
}

const board = dashboard(byId("dashboard-view"));

function route() {
  const there = location.hash === "#dashboard";
  const turned = byId("list-view").hidden !== there;
  byId("list-view").hidden = there;
  byId("dashboard-view").hidden = !there;
  byId(there ? "to-dashboard" : "to-list").setAttribute("aria-current", "page");
  byId(there ? "to-list" : "to-dashboard").removeAttribute("aria-current");
  document.title = there ? "Dashboard · metarec" : "metarec";
  board.active(there);
  if (!turned) return;
  // How far the other view was scrolled means nothing here, and the browser could not jump to what was hidden.
  if (there) scrollTo(0, 0);
  else byId("for-you").scrollIntoView();
}

async function start() {
  const known = ask("./about").then((found) => {
    about = found;
  });
  // What a visitor does before the answer is there waits for it.
  const on = (id, kind, handler) =>
    byId(id).addEventListener(kind, (event) => {
      if (kind === "submit") event.preventDefault();
      known.then(() => handler(event), () => {});
    });
  session.load();
  addEventListener("hashchange", route);
  route();
  let timer = 0;
  on("search", "input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, 150);
  });
  on("clear", "click", () => {
    session.forgetAll();
    someoneElse("All ratings were removed.");
    byId("search").focus();
  });
  on("as-cards", "click", () => choose("cards"));
  on("as-change", "click", () => choose("change"));
  on("length", "change", () => update());
  on("add-form", "submit", addItem);
  on("ask-me", "click", () => {
    asked = 0;
    askNext();
  });
  on("as-person", "click", async () => {
    try {
      const person = await ask(`./users/${encodeURIComponent(byId("person").value)}`);
      session.lookAs(person);
      await someoneElse(`You are viewing as user ${person.id}.`);
    } catch (error) {
      problem(error);
    }
  });
  on("as-me", "click", () => {
    session.lookAsMe();
    someoneElse("These are your own ratings.");
  });
  on("profile-form", "submit", () => {
    session.describe(byId("profile").value.trim());
    update("The list now uses your profile.");
  });
  byId("details").addEventListener("click", (event) => {
    if (event.target === byId("details")) byId("details").close(); // outside of what it shows
  });
  try {
    await known;
  } catch (error) {
    return problem(error);
  }
  byId("about-you").hidden = !about.reads_profiles;
  chips();
  offerPeople().catch(problem);
  await someoneElse("");
}

start();
