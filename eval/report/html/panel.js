// One rollout, or two rollouts of one problem side by side.

// What is open: {p, k, beside, opener}; ``beside`` is the rollout of the reference's evaluation in
// the other column, null where there is one column.
let opened = null;
let paired = false;
let thinks = recall("thinking") === "open";

const fact = (name, ...value) => make("div", {}, make("dt", {}, name), make("dd", {}, ...value));

function section(title, ...content) {
  return make("section", {}, make("h3", {}, title), ...content);
}

// An answer as maths, beside it as the characters that were compared.
function answered({ extracted, raw }, sheet) {
  if (!extracted) return [make("em", {}, "none")];
  const shown = written(extracted, sheet, view.query, "span");
  return extracted.some((piece) => typeof piece === "number")
    ? [shown, make("code", { class: "raw" }, raw)]
    : [shown];
}

function thinking(title, pieces, sheet, isOpen, isFound) {
  const details = make("details", { class: "thinking" }, make("summary", {}, title));
  const fill = () => {
    if (details.childElementCount === 1) details.append(written(pieces, sheet, view.query));
  };
  details.addEventListener("toggle", () => details.open && fill());
  details.querySelector("summary").addEventListener("click", () => {
    thinks = !details.open;
    remember("thinking", thinks ? "open" : "closed");
    for (const other of byId("panel-body").querySelectorAll("details"))
      if (other !== details) other.open = thinks;
  });
  if (isOpen || isFound) fill();
  details.open = Boolean(isOpen);
  return details;
}

// Which of the problem's rollouts a column shows.
function picks(e, states, k, pick) {
  const nodes = [...states].map((state, i) => {
    const [name, sign] = STATES[state];
    const label = `rollout ${i}: ${name}`;
    const node = button({ class: state, title: label, "aria-label": label, "data-column": e }, sign);
    if (i === k) node.setAttribute("aria-current", "true");
    if (state === "m") node.disabled = true;
    node.addEventListener("click", () => pick(i));
    return node;
  });
  return make("div", { class: "picks", role: "group", "aria-label": "Rollouts" }, ...nodes);
}

function column(e, p, k, sheet, pick) {
  const evaluation = data.evaluations[e];
  const { id, set, states } = evaluation.problems[p];
  const rollout = sheet.rollouts[k];
  const [name, sign] = STATES[states[k]];
  const key = `[${JSON.stringify(set)}, ${JSON.stringify(id)}, ${k}]`;
  const facts = make(
    "dl",
    {},
    fact("extracted", ...answered(rollout, sheet)),
    fact("gold", written(sheet.gold, sheet, view.query, "span")),
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
  const hits = (pieces) => hitsIn(source(pieces ?? [], sheet.sources), view.query).length;
  const [thought, said] = [hits(rollout.thinking), hits(rollout.answer)];
  const length = `${several(rollout.characters, "character")} in all${cut ? ", cut" : ""}`;
  const title = `Thinking (${length}${thought ? `, ${several(thought, "match", "matches")}` : ""})`;
  const answer =
    rollout.answer === null
      ? make("p", {}, make("em", {}, "none: the think block is never closed"))
      : written(rollout.answer, sheet, view.query);
  const file = make("code", {}, `${evaluation.folder}/rollouts.jsonl`);
  return make(
    "article",
    { class: "column", "aria-label": `${evaluation.label}, rollout ${k}` },
    make(
      "h3",
      {},
      make("span", { class: `sample ${states[k]}`, "aria-hidden": "true" }, sign),
      evaluation.label,
      make("span", { class: "aside" }, ` rollout ${k}, ${name}`),
    ),
    states.length > 1 ? picks(e, states, k, pick) : "",
    facts,
    ...(rollout.thinking
      ? [thinking(title, rollout.thinking, sheet, thinks || (thought && !said), thought)]
      : []),
    section("Answer", answer),
    cut
      ? make("p", { class: "whole" }, "The full text is in the line with this key in ", file, ".")
      : "",
  );
}

// The problem's index in the reference's evaluation, if it is not the one shown and has a rollout.
function besides(p) {
  if (view.evaluation === REFERENCE) return null;
  const before = referenceOf.get(shownEvaluation().problems[p].at);
  return before !== undefined && /[^m]/.test(statesBefore(p)) ? before : null;
}

function besideOf(p, k) {
  if (!paired || besides(p) === null) return null;
  const states = statesBefore(p);
  return (states[k] ?? "m") === "m" ? states.search(/[^m]/) : k;
}

async function open(p, k, { opener, beside = besideOf(p, k) } = {}) {
  const { states } = shownEvaluation().problems[p];
  if (states[k] === "m") return;
  const isSame = opened?.p === p && byId("panel").open;
  const here = (opened = { p, k, beside, opener });
  const e = view.evaluation;
  const before = besides(p);
  const [own, other] = await Promise.all([
    sheet(e, p),
    beside === null ? null : sheet(REFERENCE, before),
  ]);
  if (here !== opened) return;
  const held = isSame ? document.activeElement?.dataset.column : undefined;
  const columns = [column(e, p, k, own, (i) => open(p, i, { opener, beside: opened.beside }))];
  if (other)
    columns.unshift(
      column(REFERENCE, before, beside, other, (i) => open(p, k, { opener, beside: i })),
    );
  byId("panel-body").replaceChildren(
    section("Problem", written(own.problem, own, view.query)),
    make("div", { class: "columns" }, ...columns),
  );
  showBar(here, before);
  setLink(here);
  if (!byId("panel").open) byId("panel").showModal();
  byId("panel-body").scrollTop = 0;
  const focus = byId("panel-body").querySelector(`[data-column="${held}"][aria-current]`);
  (focus ?? byId("panel-body")).focus();
  showMatches();
}

function showBar({ p, k, beside }, before) {
  const { label, problems } = shownEvaluation();
  const { id, states } = problems[p];
  const [name, sign] = STATES[states[k]];
  const at = shown.findIndex(([q, i]) => q === p && i === k);
  const place = at < 0 ? "not in the grid's selection" : `${count(at + 1)} of ${count(shown.length)}`;
  byId("panel-title").replaceChildren(
    make("span", { class: `sample ${states[k]}`, "aria-hidden": "true" }, sign),
    `${id}, rollout ${k} `,
    make("span", { class: "aside" }, `${name}, ${label}, ${place}`),
  );
  byId("pair").hidden = data.evaluations.length === 1;
  byId("pair").disabled = before === null;
  byId("pair").textContent = `Compare with ${data.evaluations[REFERENCE].label}`;
  byId("pair").setAttribute("aria-pressed", beside !== null);
  byId("panel").classList.toggle("paired", beside !== null);
  byId("copied").hidden = true;
}

// Matches of the search in what is open, and a way from one to the next.
const matches = () => [...byId("panel-body").querySelectorAll("mark, math.hit")];

function showMatches() {
  const all = matches();
  byId("match").hidden = !all.length;
  const first = all.find((node) => node.checkVisibility());
  byId("match").textContent = several(all.length, "match", "matches");
  if (first) goTo(first);
}

function goTo(node) {
  const all = matches();
  for (const other of all) other.classList.toggle("current", other === node);
  node.closest("details")?.setAttribute("open", "");
  node.scrollIntoView({ block: "center" });
  byId("match").textContent = `Match ${count(all.indexOf(node) + 1)} of ${count(all.length)}`;
}

function nextMatch() {
  const all = matches();
  goTo(all[(all.findIndex((node) => node.classList.contains("current")) + 1) % all.length]);
}

function neighbour(step) {
  const at = shown.findIndex(([p, k]) => p === opened.p && k === opened.k);
  const next = at < 0 ? shown.at(step > 0 ? 0 : -1) : shown[at + step];
  if (next) open(...next);
}

byId("panel").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  if (step) neighbour(step);
  else if (event.key === "n" && !byId("match").hidden) nextMatch();
});
byId("panel").addEventListener("click", ({ target }) => {
  if (target === byId("panel")) byId("panel").close();
});
byId("panel").addEventListener("close", () => {
  const { p, k, opener } = opened;
  opened = null;
  setLink(null);
  const place = opener?.isConnected ? opener : cellOf(p, k);
  (place ?? byId("grid").querySelector("button[tabindex='0']") ?? byId("search")).focus();
});
byId("pair").addEventListener("click", () => {
  paired = !paired;
  open(opened.p, opened.k, { opener: opened.opener });
});
byId("match").addEventListener("click", nextMatch);
byId("previous").addEventListener("click", () => neighbour(-1));
byId("next").addEventListener("click", () => neighbour(1));
byId("close").addEventListener("click", () => byId("panel").close());
