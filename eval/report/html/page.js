"use strict";
// Whatever a model wrote enters the page as text nodes, or as MathML elements that
// eval/report/html/maths.py let pass.

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
const several = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
const data = JSON.parse(byId("data").textContent);
let chosen = data.evaluations.length - 1;
let opened = null;
// Problems in a row of the grid, where each has one rollout only.
const WIDTH = 16;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function mathml([name, ...rest]) {
  const node = document.createElementNS(MATHML, name);
  if (rest.length && !Array.isArray(rest[0]) && typeof rest[0] === "object") {
    const { style, ...attributes } = rest.shift();
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (style) node.style.cssText = style;
  }
  node.append(...rest.map((child) => (typeof child === "string" ? child : mathml(child))));
  return node;
}

// Asterisks next to a number, a word or a bracket are powers.
const BOLD = /((?<![\w*)\]}])\*\*(?=\S)[^*\n]+(?<=\S)\*\*(?![\w*([{])|^#{1,6} .+$)/m;

// Bold text and headings, which nearly every answer has; the rest of Markdown stays as it was
// written.
function emphasised(text) {
  return text.split(BOLD).map((piece, i) => {
    return i % 2
      ? make("strong", {}, piece.replace(/^#+ /, "").replace(/^\*\*(.+)\*\*$/, "$1"))
      : piece;
  });
}

function written(pieces, formulas, tag = "div") {
  const node = make(tag, { class: "text", dir: "ltr" });
  for (const piece of pieces) {
    if (typeof piece === "string") node.append(...(tag === "div" ? emphasised(piece) : [piece]));
    else if (typeof piece === "number") node.append(mathml(formulas[piece]));
    else node.append(make("span", { class: "cut" }, `✂ ${several(piece.cut, "character")} cut`));
  }
  return node;
}

async function sheet(evaluation, problem) {
  const text = byId(`sheet-${evaluation}-${problem}`).textContent;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(
    new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")),
  ).json();
}

function cell(evaluation, p, k) {
  const { id, states, tokens } = evaluation.problems[p];
  const [name, sign] = STATES[states[k]];
  const length = tokens[k] === null ? "" : `, ${count(tokens[k])} tokens`;
  const label = `${id}, rollout ${k}: ${name}${length}`;
  const button = make(
    "button",
    { type: "button", class: states[k], tabindex: -1, "aria-label": label, title: label },
    sign,
  );
  Object.assign(button.dataset, { p, k });
  if (states[k] === "m") button.setAttribute("aria-disabled", "true");
  return make("td", { role: "gridcell" }, button);
}

function rowsOf({ n, problems }, members) {
  if (n > 1)
    return members.map((p) => ({
      head: problems[p].id,
      cells: [...problems[p].states].map((_, k) => [p, k]),
    }));
  const rows = [];
  for (let i = 0; i < members.length; i += WIDTH) {
    const some = members.slice(i, i + WIDTH);
    rows.push({ head: `${i + 1} to ${i + some.length}`, cells: some.map((p) => [p, 0]) });
  }
  return rows;
}

const occurs = (states, state) => [...states].filter((s) => s === state).length;

function table(evaluation, set, members) {
  const all = members.map((p) => evaluation.problems[p].states).join("");
  const missing = occurs(all, "m");
  const share = ((100 * occurs(all, "r")) / (all.length - missing || 1)).toFixed(1);
  const gap = missing ? `, ${count(missing)} missing` : "";
  const note = ` ${several(members.length, "problem")}, ${share} % right${gap}`;
  const grid = make("table", {
    role: "grid",
    class: "cells",
    "aria-label": `${set}: ${evaluation.label}`,
  });
  grid.append(make("caption", {}, set, make("span", {}, note)));
  const body = make("tbody");
  const rows = rowsOf(evaluation, members);
  for (const { head, cells } of rows) {
    const states = cells.map(([p, k]) => evaluation.problems[p].states[k]);
    const row = make("tr", {}, make("th", { scope: "row", title: head }, head));
    row.append(...cells.map(([p, k]) => cell(evaluation, p, k)));
    const rest = rows[0].cells.length - cells.length;
    if (rest) row.append(make("td", { colspan: rest }));
    row.append(
      make(
        "td",
        { class: "share" },
        `${occurs(states, "r")}/${states.length - occurs(states, "m")}`,
      ),
    );
    body.append(row);
  }
  grid.append(body);
  grid.querySelector("button").tabIndex = 0;
  return grid;
}

function showGrid() {
  const evaluation = data.evaluations[chosen];
  const sets = new Map(evaluation.problems.map(({ set }) => [set, []]));
  evaluation.problems.forEach(({ set }, p) => sets.get(set).push(p));
  byId("grid").replaceChildren(
    ...[...sets].map(([set, members]) => table(evaluation, set, members)),
  );
  const all = evaluation.problems.map(({ states }) => states).join("");
  byId("legend").replaceChildren(
    ...Object.entries(STATES).map(([state, [name, sign]]) => {
      const n = occurs(all, state);
      const sample = make("span", { class: `sample ${state}`, "aria-hidden": "true" }, sign);
      return n || state !== "m" ? make("li", {}, sample, `${name} ${count(n)}`) : "";
    }),
  );
  showDisagreements(evaluation);
}

function showDisagreements({ label, disagreements, disagreeing, unjudged }) {
  const place = byId("disagreements");
  const rest = unjudged ? ` math-verify gave no verdict on ${several(unjudged, "rollout")}.` : "";
  if (!disagreements.length) {
    place.replaceChildren(
      make("p", {}, `${label}: the two graders agree on every rollout.${rest}`),
    );
    return;
  }
  const titles = ["rollout", "gold", "extracted", "exact match", "math-verify"];
  const head = make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)));
  const rows = disagreements.map(([p, k, gold, extracted, exact, verified]) => {
    const name = `${data.evaluations[chosen].problems[p].id}, rollout ${k}`;
    const button = make("button", { type: "button", class: "link" }, name);
    button.addEventListener("click", () => open(p, k, button));
    const found = extracted === null ? make("em", {}, "none") : make("code", {}, extracted);
    const cells = [make("code", {}, gold), found, opinion(exact), opinion(verified)];
    return make(
      "tr",
      {},
      make("td", {}, button),
      ...cells.map((content) => make("td", {}, content)),
    );
  });
  const listed = rows.length < disagreeing ? `; the first ${count(rows.length)}` : "";
  place.replaceChildren(
    make("p", {}, `${label}: ${several(disagreeing, "rollout")}${listed}.${rest}`),
    make(
      "div",
      { class: "scroll list", tabindex: 0 },
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)),
    ),
  );
}

const opinion = (verdict) =>
  verdict === true ? "✓ right" : verdict === false ? "✗ wrong" : String(verdict);
const fact = (name, ...value) => make("div", {}, make("dt", {}, name), make("dd", {}, ...value));

function folded(title, pieces, formulas) {
  const details = make("details", { class: "thinking" }, make("summary", {}, title));
  details.addEventListener("toggle", () => details.append(written(pieces, formulas)), {
    once: true,
  });
  return details;
}

function section(title, ...content) {
  return make("section", {}, make("h3", {}, title), ...content);
}

// An answer as maths, beside it as the characters that were compared.
function answered({ extracted, raw }, formulas) {
  if (!extracted) return [make("em", {}, "none")];
  const shown = written(extracted, formulas, "span");
  return extracted.some((piece) => typeof piece === "number")
    ? [shown, make("code", { class: "raw" }, raw)]
    : [shown];
}

async function open(p, k, opener) {
  const evaluation = data.evaluations[chosen];
  const { id, set, states } = evaluation.problems[p];
  if (states[k] === "m") return;
  const here = (opened = { p, k, opener });
  const { problem, gold, rollouts, formulas } = await sheet(chosen, p);
  if (here !== opened) return;
  const rollout = rollouts[k];
  const [name, sign] = STATES[states[k]];
  const key = `[${JSON.stringify(set)}, ${JSON.stringify(id)}, ${k}]`;
  byId("panel-title").replaceChildren(
    make("span", { class: `sample ${states[k]}` }, sign),
    `${id}, rollout ${k} `,
    make("span", { class: "aside" }, `${name}, ${evaluation.label}`),
  );
  const facts = make(
    "dl",
    {},
    fact("extracted", ...answered(rollout, formulas)),
    fact("gold", written(gold, formulas, "span")),
    fact("exact match", opinion(states[k] === "r")),
    fact("math-verify", opinion(rollout.verified)),
    fact("state", rollout.state.replaceAll("_", " ")),
    fact("tokens", count(rollout.tokens)),
    fact("finish reason", rollout.finish),
    fact("seed", String(rollout.seed)),
    fact("engine", `${rollout.engine}, ${count(rollout.seconds)} s`),
    fact("key", make("code", {}, key)),
  );
  const cut = [...(rollout.thinking ?? []), ...(rollout.answer ?? [])].some((piece) => piece.cut);
  const length = `${several(rollout.characters, "character")} in all${cut ? ", cut" : ""}`;
  byId("panel-body").replaceChildren(
    facts,
    section("Problem", written(problem, formulas)),
    ...(rollout.thinking ? [folded(`Thinking (${length})`, rollout.thinking, formulas)] : []),
    section(
      "Answer",
      rollout.answer === null
        ? make("p", {}, make("em", {}, "none: the think block is never closed"))
        : written(rollout.answer, formulas),
    ),
    ...(cut
      ? [
          make(
            "p",
            { class: "whole" },
            "The full text is in the line with this key in ",
            make("code", {}, `${evaluation.folder}/rollouts.jsonl`),
            ".",
          ),
        ]
      : []),
  );
  if (!byId("panel").open) byId("panel").showModal();
  byId("panel-body").scrollTop = 0;
  byId("panel-body").focus();
}

function neighbour(step) {
  const { n, problems } = data.evaluations[chosen];
  for (let i = opened.p * n + opened.k + step; i >= 0 && i < problems.length * n; i += step) {
    const [p, k] = [Math.floor(i / n), i % n];
    if (problems[p].states[k] !== "m") return open(p, k);
  }
}

function move(button, key) {
  const row = button.closest("tr");
  const cells = [...row.querySelectorAll("button")];
  const at = cells.indexOf(button);
  const beside = { ArrowUp: row.previousElementSibling, ArrowDown: row.nextElementSibling }[key];
  const within = {
    ArrowLeft: cells[at - 1],
    ArrowRight: cells[at + 1],
    Home: cells[0],
    End: cells.at(-1),
  }[key];
  return within ?? beside?.querySelectorAll("button")[at] ?? null;
}

byId("grid").addEventListener("click", ({ target }) => {
  if (target.matches("button")) open(Number(target.dataset.p), Number(target.dataset.k), target);
});
byId("grid").addEventListener("focusin", ({ target }) => {
  if (!target.matches("button")) return;
  for (const other of target.closest("table").querySelectorAll("button[tabindex='0']"))
    other.tabIndex = -1;
  target.tabIndex = 0;
});
byId("grid").addEventListener("keydown", (event) => {
  if (!/^(Arrow\w+|Home|End)$/.test(event.key) || event.ctrlKey || event.metaKey || event.altKey)
    return;
  event.preventDefault();
  move(event.target, event.key)?.focus();
});
byId("panel").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && !event.ctrlKey && !event.metaKey && !event.altKey) neighbour(step);
});
byId("panel").addEventListener("click", ({ target }) => {
  if (target === byId("panel")) byId("panel").close();
});
byId("panel").addEventListener("close", () => {
  const { p, k, opener } = opened;
  opened = null;
  (opener ?? byId("grid").querySelector(`button[data-p="${p}"][data-k="${k}"]`)).focus();
});
byId("previous").addEventListener("click", () => neighbour(-1));
byId("next").addEventListener("click", () => neighbour(1));
byId("close").addEventListener("click", () => byId("panel").close());
byId("choice").append(
  ...data.evaluations.map(({ label }, i) => {
    const radio = make("input", { type: "radio", name: "evaluation", value: i });
    radio.checked = i === chosen;
    radio.addEventListener("change", () => {
      chosen = i;
      showGrid();
    });
    return make("label", {}, radio, make("span", {}, label));
  }),
);
showGrid();
