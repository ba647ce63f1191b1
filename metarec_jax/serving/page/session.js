// Whose page it is: ratings, kept in this browser, and the state that the service made of them.
//
// The service keeps no session. A user token says who writes feedback; a state is what the models adapted to. Either can
// be refused (another run is served, or its store is new): then both are made anew from the ratings, which are here.

import { ask, Refused } from "./service.js";

const KEPT = "metarec ratings";

const fresh = (profile = "") => ({
  profile,
  ratings: [], // {id, title, rating, unknown?}, oldest first
  skipped: [], // ids that were not known when asked
  events: [], // feedback that is still to be sent
  user: null,
  base: null, // the state of somebody who has rated nothing,
  state: null, // and that of this user,
  told: {}, // with these ratings: id -> rating
});

let all = { me: fresh(), other: null };

export const current = () => all.other?.session ?? all.me;
export const other = () => all.other?.person ?? null;

function sound(session) {
  if (!session || typeof session !== "object") return fresh();
  const clean = { ...fresh(), ...session };
  const list = (value) => (Array.isArray(value) ? value : []);
  clean.ratings = list(clean.ratings).filter((r) => r && typeof r.id === "string" && Number.isFinite(r.rating));
  clean.skipped = list(clean.skipped).filter((id) => typeof id === "string");
  clean.events = list(clean.events);
  return clean;
}

export function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    all = { me: sound(found.me), other: null };
    if (found.other?.person) all.other = { person: found.other.person, session: sound(found.other.session) };
  } catch {
    all = { me: fresh(), other: null };
  }
}

export function save() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(all));
  } catch {
    // Without storage the page works until it is closed.
  }
}

export function lookAs(person) {
  const session = fresh(person.profile);
  session.ratings = person.history.map(({ id, title, rating }) => ({ id, title, rating }));
  all.other = { person: { id: person.id, profile: person.profile }, session };
  save();
}

export function lookAsMe() {
  all.other = null;
  save();
}

export const ratingOf = (id) => current().ratings.find((r) => r.id === id)?.rating ?? null;

// `rating` null takes it back. `list` is where the item was shown, if it was.
export function rate(item, rating, list = null) {
  const session = current();
  session.ratings = session.ratings.filter((r) => r.id !== item.id);
  if (rating !== null) session.ratings.push({ id: item.id, title: item.title, rating });
  note(item.id, rating === null ? { kind: "forget" } : { kind: "rating", rating }, list);
}

export function note(item, what, list = null) {
  current().events.push({ item, ...what, list });
  save();
}

export function forgetAll() {
  for (const { id, title } of [...current().ratings]) rate({ id, title }, null);
  current().skipped = [];
  save();
}

export function skip(id) {
  current().skipped.push(id);
  save();
}

export function describe(profile) {
  const session = current();
  session.profile = profile;
  session.user = null;
  save();
}

const known = (session) => session.ratings.filter((r) => !r.unknown);
const pairs = (ratings) => ratings.map(({ id, rating }) => ({ item: id, rating }));
const toldOf = (ratings) => Object.fromEntries(ratings.map(({ id, rating }) => [id, rating]));

async function begin(session, profiles) {
  const ratings = known(session);
  const profile = profiles ? session.profile : "";
  const { user } = await ask("./users", { profile, history: pairs(ratings) });
  const { state } = await ask("./adapt", { user });
  const base = ratings.length ? (await ask("./adapt", { user, forget: ratings.map((r) => r.id) })).state : state;
  Object.assign(session, { user, state, base, told: toldOf(ratings) });
}

async function follow(session) {
  const ratings = known(session);
  const now = toldOf(ratings);
  const changed = ratings.filter((r) => session.told[r.id] !== r.rating);
  const forget = Object.keys(session.told).filter((id) => !(id in now));
  if (changed.length || forget.length) {
    const { state } = await ask("./adapt", { state: session.state, history: pairs(changed), forget });
    Object.assign(session, { state, told: now });
  }
}

// Brings the state up to what is rated. Ratings of items that this service does not know are kept, and set aside.
export async function sync(session, profiles) {
  for (let tries = 0; ; tries++) {
    try {
      if (!session.user || !session.state || !session.base) await begin(session, profiles);
      await follow(session);
      return save();
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 422 || tries > session.ratings.length + 2) throw error;
      const one = error.detail.find((d) => d.loc[1] === "history" && Number.isInteger(d.loc[2]));
      if (one) {
        // What was sent is not always all ratings, so the item is looked for by asking anew with all of them.
        if (session.user && session.state) session.user = null;
        else known(session)[one.loc[2]].unknown = true;
      } else if (session.user) session.user = null;
      else throw error;
    }
  }
}

let sending = null;

// Feedback is sent in order, and an event leaves the browser's queue once the service says that it is on disk.
export function send(session) {
  sending = (sending ?? Promise.resolve()).then(async () => {
    while (session.user && session.events.length) {
      const { item, list, ...what } = session.events[0];
      const body = { user: session.user, item, ...what };
      try {
        await ask("./feedback", list ? { ...body, list_id: list } : body);
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 422) return; // it is tried again with the next
        if (list && what.kind !== "click") {
          session.events[0].list = null; // the list is gone, or was another user's; the rating still counts
          continue;
        }
      }
      session.events.shift();
      save();
    }
  });
  return sending;
}
