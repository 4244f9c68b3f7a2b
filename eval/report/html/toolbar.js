// What the reader chooses above the grid: evaluation, outcomes, order, search.

// Milliseconds after the last key before the texts are searched.
const PAUSE = 150;
let searches = 0;

function choose(evaluation) {
  view.evaluation = evaluation;
  byId("evaluation").querySelectorAll("input")[evaluation].checked = true;
  showFilters();
  showDisagreements();
  return find(byId("search").value);
}

const counted = (name, n) => [name, make("span", { class: "number" }, n)];

function chip(pressed, change, attributes, ...content) {
  const node = button({ class: "chip", "aria-pressed": pressed, ...attributes }, ...content);
  node.addEventListener("click", () => {
    change();
    node.setAttribute("aria-pressed", node.getAttribute("aria-pressed") !== "true");
    showGrid();
  });
  return make("li", {}, node);
}

function showFilters() {
  const evaluation = shownEvaluation();
  const all = evaluation.problems.map(({ states }) => states).join("");
  const outcomes = Object.entries(STATES).map(([state, [name, sign]]) => {
    const n = occurs(all, state);
    const sample = make("span", { class: `sample ${state}`, "aria-hidden": "true" }, sign);
    const content = [sample, ...counted(`${name} `, count(n))];
    if (state === "m") return n ? make("li", { class: "chip" }, ...content) : "";
    const toggle = () => view.outcomes.delete(state) || view.outcomes.add(state);
    return chip(view.outcomes.has(state), toggle, {}, ...content);
  });
  byId("legend").replaceChildren(...outcomes, differChip(evaluation), changedChip(evaluation));
  showOrders();
}

function differChip({ disagreeing }) {
  return chip(
    view.differ,
    () => (view.differ = !view.differ),
    { title: "Exact match and math-verify give different verdicts" },
    ...counted("graders disagree ", count(disagreeing)),
  );
}

function changedChip({ problems }) {
  if (view.evaluation === REFERENCE) {
    view.changed = false;
    return "";
  }
  const { label, n } = data.evaluations[REFERENCE];
  const title =
    n > 1
      ? `Problems whose share of right rollouts differs from ${label}'s by at least one half`
      : `Problems that are right in one of the two and not in the other`;
  const changed = problems.filter((_, p) => hasChanged(p)).length;
  return chip(
    view.changed,
    () => (view.changed = !view.changed),
    { title },
    ...counted(`changed against ${label} `, several(changed, "problem")),
  );
}

function showOrders() {
  const names = Object.keys(ORDERS).filter(
    (name) => view.evaluation !== REFERENCE || !["lost", "gained"].includes(name),
  );
  if (!names.includes(view.order)) view.order = "set";
  byId("order").replaceChildren(
    ...names.map((value) => make("option", { value }, ORDERS[value][0])),
  );
  byId("order").value = view.order;
}

async function find(text) {
  const mine = ++searches;
  const query = folded(text).trim();
  view.query = query;
  const show = (share) => {
    byId("count").textContent = "searching";
    byId("progress").textContent = `${Math.floor(100 * share)} % read`;
  };
  const found = query
    ? await search(view.evaluation, query, show, () => mine !== searches)
    : null;
  if (mine !== searches) return;
  byId("progress").textContent = "";
  view.found = found;
  showGrid();
}

function clear() {
  view.outcomes.clear();
  view.differ = view.changed = false;
  byId("search").value = "";
  showFilters();
  find("");
}

let waiting;
byId("search").addEventListener("input", ({ target }) => {
  clearTimeout(waiting);
  waiting = setTimeout(() => find(target.value), target.value ? PAUSE : 0);
});
byId("search").addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    event.preventDefault();
    if (!event.target.value) event.target.blur();
    event.target.value = "";
    clearTimeout(waiting);
    find("");
  } else if (event.key === "ArrowDown") {
    event.preventDefault();
    byId("grid").querySelector("button[tabindex='0']")?.focus();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (byId("panel").open || event.target.matches("input:not([type='radio']), select, textarea"))
    return;
  event.preventDefault();
  byId("search").focus();
  byId("search").select();
});
byId("clear").addEventListener("click", () => {
  clear();
  byId("search").focus();
});
byId("order").addEventListener("change", ({ target }) => {
  view.order = target.value;
  showGrid();
});
byId("evaluation").append(
  ...data.evaluations.map(({ label }, i) => {
    const radio = make("input", { type: "radio", name: "evaluation", value: i });
    radio.addEventListener("change", () => choose(i));
    return make("label", {}, radio, make("span", {}, label));
  }),
);
