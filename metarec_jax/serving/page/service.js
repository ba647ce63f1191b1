// Requests to the service that this page came from, and to no other.

import { byId } from "./dom.js";
import { readable } from "./titles.js";

const KEPT = "metarec token";

export class Refused extends Error {
  constructor(status, detail) {
    super(detail.map((one) => one.msg).join("; ") || `The service answered with status ${status}.`);
    this.status = status;
    this.detail = detail;
  }

  // Whether it is about this field of what was sent.
  about(...path) {
    return this.detail.some((one) => path.every((part, n) => one.loc[n + 1] === part));
  }
}

function kept() {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}

let token = kept();
let wanted = null;

// Several requests can be refused at the same time; the person is asked once.
function wantToken() {
  wanted ??= new Promise((resolve) => {
    const dialog = byId("token-dialog");
    byId("token").value = "";
    dialog.addEventListener(
      "close",
      () => {
        token = byId("token").value;
        try {
          sessionStorage.setItem(KEPT, token);
        } catch {
          // It is asked for again then.
        }
        wanted = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return wanted;
}

// A small copy of an item's picture as a data: address, since an image cannot send the token; null where there is none.
export async function picture(id) {
  const address = new URL(`./picture?item=${encodeURIComponent(id)}`, import.meta.url);
  const answer = await fetch(address, { headers: token ? { authorization: `Bearer ${token}` } : {} }).catch(() => null);
  if (!answer?.ok) return null;
  const reader = new FileReader();
  reader.readAsDataURL(await answer.blob());
  return new Promise((resolve) => reader.addEventListener("loadend", () => resolve(reader.result), { once: true }));
}

// `path` begins with "./": it is looked up beside this file, so that the service can be under a path of a proxy.
export async function ask(path, body) {
  const address = new URL(path, import.meta.url);
  for (let again = 0; ; again++) {
    const headers = { accept: "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer;
    try {
      answer = await fetch(address, {
        method: body === undefined ? "GET" : "POST",
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch {
      throw new Refused(0, [{ loc: [], msg: "The service does not answer. Your ratings are kept in this browser; reload the page to try again." }]);
    }
    if (answer.status === 401) {
      await wantToken();
      continue;
    }
    if (answer.status === 429 && again < 3) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * (again + 1)));
      continue;
    }
    const told = await answer.text().then((text) => JSON.parse(text, readable)).catch(() => ({}));
    if (!answer.ok) throw new Refused(answer.status, Array.isArray(told.detail) ? told.detail : []);
    return told;
  }
}
