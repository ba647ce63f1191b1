// Elements from values. Text is only ever text here: nothing in this page makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export const el = (name, attributes = {}, ...children) => made(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) => made(document.createElementNS(SVG, name), attributes, children);
export const byId = (id) => document.getElementById(id);

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// Puts `nodes` into `parent` in this order. What stays keeps its focus, and moves from where it was.
export function arrange(parent, nodes) {
  const before = new Map([...parent.children].map((node) => [node, node.getBoundingClientRect()]));
  const active = document.activeElement;
  for (const node of before.keys()) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, place) => {
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
  });
  if (active && active !== document.activeElement && parent.contains(active)) active.focus({ preventScroll: true });
  if (still()) return;
  for (const node of nodes) {
    const old = before.get(node);
    const now = node.getBoundingClientRect();
    if (!old) {
      node.animate([{ opacity: 0, transform: "translateY(10px)" }, { opacity: 1, transform: "none" }], {
        duration: 260,
        easing: "ease-out",
      });
    } else if (Math.abs(old.top - now.top) > 1) {
      node.animate([{ transform: `translateY(${old.top - now.top}px)` }, { transform: "none" }], {
        duration: 380,
        easing: "cubic-bezier(.2,.8,.2,1)",
      });
    }
  }
}

export const oneDecimal = (value) => value.toFixed(1);
export const count = (value, one, many = `${one}s`) => `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
