"use strict";
// What a model wrote enters the page as text nodes only, or as MathML elements that
// eval/report/html/maths.py let pass. These files are joined into one script, in the order of
// write.py's SCRIPTS.

const MATHML = "http://www.w3.org/1998/Math/MathML";
const STATES = {
  r: ["right", "✓"],
  w: ["wrong", "✗"],
  t: ["truncated", "T"],
  n: ["no box", "–"],
  m: ["missing", "?"],
};
const byId = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const several = (n, what, plural = `${what}s`) => `${count(n)} ${n === 1 ? what : plural}`;
const occurs = (states, state) => states.split(state).length - 1;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(attributes, ...children) {
  return make("button", { type: "button", ...attributes }, ...children);
}

function mathml([name, ...rest]) {
  const node = document.createElementNS(MATHML, name);
  if (rest.length && !Array.isArray(rest[0]) && typeof rest[0] === "object") {
    const [{ style, ...attributes }] = rest.splice(0, 1);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (style) node.style.cssText = style;
  }
  node.append(...rest.map((child) => (typeof child === "string" ? child : mathml(child))));
  return node;
}

// A choice that outlives the page, where the browser lets a file store one.
function recall(name) {
  try {
    return localStorage.getItem(`warmstart.${name}`);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`warmstart.${name}`, value);
  } catch {
    // Private windows and sandboxed frames refuse; the choice then lasts as long as the page.
  }
}
