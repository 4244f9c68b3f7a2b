// The grid: a row for each problem, a cell for each rollout.

// Problems in a row, where each has one rollout only and there are more than LISTED.
const WIDTH = 16;
const LISTED = 60;
// [p, k] of each rollout that can be opened, in the order of the grid.
let shown = [];

function described(p, k) {
  const { states, tokens } = shownEvaluation().problems[p];
  const length = tokens[k] === null ? "" : `, ${several(tokens[k], "token")}`;
  return `rollout ${k}: ${STATES[states[k]][0]}${length}`;
}

function cell(p, k, packed) {
  const { id, words, states } = shownEvaluation().problems[p];
  const isHit = view.found?.rollouts[p].has(k);
  const found = isHit ? ", found in its text" : "";
  const node = button(
    {
      class: `${states[k]}${isHit ? " hit" : ""}`,
      tabindex: -1,
      "aria-label": `${packed ? `${words || id}, ` : ""}${described(p, k)}${found}`,
      title: `${id}, ${described(p, k)}${packed && words ? `\n${words}` : ""}`,
    },
    STATES[states[k]][1],
  );
  Object.assign(node.dataset, { p, k });
  if (states[k] === "m") node.setAttribute("aria-disabled", "true");
  return make("td", { role: "gridcell" }, node);
}

function rowsOf({ n, problems }, members) {
  if (n > 1 || members.length <= LISTED)
    return members.map(([p, ks]) => {
      const { id, set, words, states } = problems[p];
      const hold = [...states].map((_, k) => (ks.includes(k) ? [p, k] : null));
      return { p, head: words || id, title: `${set}, ${id}`, states, cells: hold };
    });
  const rows = [];
  for (let i = 0; i < members.length; i += WIDTH) {
    const some = members.slice(i, i + WIDTH);
    const head = `${i + 1} to ${i + some.length}`;
    const states = some.map(([p]) => problems[p].states).join("");
    rows.push({ p: null, head, title: head, states, cells: some.map(([p]) => [p, 0]) });
  }
  return rows;
}

// Right rollouts of a row, and how many more or fewer than in the evaluation it is compared with.
function shareOf({ p, states }) {
  const { n, known } = right(states);
  const before = p === null ? null : statesBefore(p);
  const node = make("td", { role: "gridcell", class: "share" }, `${n}/${known}`);
  if (before === null || !right(before).known) return [node];
  const then = right(before);
  const more = n - then.n;
  const sign = more > 0 ? `+${more}` : more < 0 ? `−${-more}` : "";
  node.title = `${n} of ${known} right; ${data.evaluations[REFERENCE].label}: ${then.n} of ${then.known}`;
  if (known !== then.known) return [node];
  const change = make("td", { role: "gridcell", class: more < 0 ? "delta less" : "delta" }, sign);
  change.title = node.title;
  return [node, change];
}

function table(evaluation, set, members, some) {
  const all = members.map((p) => evaluation.problems[p].states).join("");
  const missing = occurs(all, "m");
  const percent = ((right(all).share ?? 0) * 100).toFixed(1);
  const gap = missing ? `, ${count(missing)} missing` : "";
  const note = ` ${several(members.length, "problem")}, ${percent} % right${gap}`;
  const body = make("tbody", { role: "rowgroup" });
  const rows = rowsOf(evaluation, some);
  const width = Math.max(...rows.map(({ cells }) => cells.length));
  for (const row of rows) {
    const words = make("span", { dir: "ltr" }, row.head);
    const head = make("th", { role: "rowheader", scope: "row", title: row.title }, words);
    const cells = row.cells.map((at) =>
      at ? cell(...at, row.p === null) : make("td", { role: "gridcell", class: "blank" }),
    );
    const rest = width - cells.length;
    if (rest) cells.push(make("td", { role: "gridcell", colspan: rest }));
    body.append(make("tr", { role: "row" }, head, ...cells, ...shareOf(row)));
  }
  const label = `${set}: ${evaluation.label}`;
  const grid = make("table", { role: "grid", class: "cells", "aria-label": label }, body);
  grid.style.setProperty("--cells", width);
  grid.querySelector("button").tabIndex = 0;
  return make(
    "div",
    { class: "set" },
    make("h3", { dir: "ltr" }, set, make("span", {}, note)),
    make("div", { class: "wide" }, grid),
  );
}

function showGrid() {
  const evaluation = shownEvaluation();
  const sets = shownSets().filter(([, , some]) => some.length);
  shown = sets.flatMap(([, , some]) =>
    some.flatMap(([p, ks]) =>
      ks.filter((k) => evaluation.problems[p].states[k] !== "m").map((k) => [p, k]),
    ),
  );
  byId("grid").replaceChildren(
    ...sets.map(([set, members, some]) => table(evaluation, set, members, some)),
  );
  const problems = sets.reduce((sum, [, , some]) => sum + some.length, 0);
  const all = evaluation.problems.reduce((sum, { states }) => sum + right(states).known, 0);
  byId("count").textContent = isFiltered()
    ? `${count(shown.length)} of ${several(all, "rollout")}, ` +
      `${count(problems)} of ${several(evaluation.problems.length, "problem")}`
    : `${several(all, "rollout")}, ${several(problems, "problem")}`;
  byId("clear").hidden = !isFiltered();
}

function cellOf(p, k) {
  return byId("grid").querySelector(`button[data-p="${p}"][data-k="${k}"]`);
}

// The cell to which a key leads from another: the next one that is shown in the row, or the
// nearest in the next row that has one.
function destination(from, key) {
  const row = from.closest("tr");
  const cells = [...row.querySelectorAll("button")];
  const at = cells.indexOf(from);
  if (key === "ArrowUp" || key === "ArrowDown") {
    const next = key === "ArrowUp" ? row.previousElementSibling : row.nextElementSibling;
    const column = from.closest("td").cellIndex;
    const distance = (node) => Math.abs(node.closest("td").cellIndex - column);
    const others = [...(next?.querySelectorAll("button") ?? [])];
    return others.sort((a, b) => distance(a) - distance(b))[0];
  }
  return { ArrowLeft: cells[at - 1], ArrowRight: cells[at + 1], Home: cells[0], End: cells.at(-1) }[
    key
  ];
}

byId("grid").addEventListener("click", ({ target }) => {
  if (target.matches("button"))
    open(Number(target.dataset.p), Number(target.dataset.k), { opener: target });
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
  destination(event.target, event.key)?.focus();
});
