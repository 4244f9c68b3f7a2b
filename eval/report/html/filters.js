// Which rollouts the grid shows, and in which order.

const data = JSON.parse(byId("data").textContent);
for (const { problems } of data.evaluations)
  for (const problem of problems) Object.assign(problem, data.problems[problem.at]);
// What others are compared with: base, or the first one if the base model was not evaluated.
const REFERENCE = 0;
// Smallest difference of the share right from the reference's that is called a change.
const CHANGE = 0.5;
const referenceOf = new Map(data.evaluations[REFERENCE].problems.map(({ at }, p) => [at, p]));

const view = {
  evaluation: data.evaluations.length - 1,
  outcomes: new Set(),
  differ: false,
  changed: false,
  order: "set",
  query: "",
  found: null,
};
const shownEvaluation = () => data.evaluations[view.evaluation];

function right(states) {
  const known = states.length - occurs(states, "m");
  const n = occurs(states, "r");
  return { n, known, share: known ? n / known : null };
}

// The states of the same problem in the reference's evaluation; null if that is the one shown.
function statesBefore(p) {
  if (view.evaluation === REFERENCE) return null;
  const before = referenceOf.get(shownEvaluation().problems[p].at);
  return before === undefined ? null : data.evaluations[REFERENCE].problems[before].states;
}

// Share right less that of the reference; null where either has no rollout.
function gain(p) {
  const before = statesBefore(p);
  const [now, then] = [right(shownEvaluation().problems[p].states), right(before ?? "")];
  return now.share === null || then.share === null ? null : now.share - then.share;
}

const hasChanged = (p) => Math.abs(gain(p) ?? 0) >= CHANGE;
const isFiltered = () =>
  view.outcomes.size > 0 || view.differ || view.changed || view.found !== null;

function passes(p, k) {
  const { states, differ } = shownEvaluation().problems[p];
  return (
    (!view.outcomes.size || view.outcomes.has(states[k])) &&
    (!view.differ || differ.includes(k)) &&
    (!view.changed || hasChanged(p)) &&
    (!view.found || view.found.problems.has(p) || view.found.rollouts[p].has(k))
  );
}

const ORDERS = {
  set: ["as in the set", null],
  wrong: ["wrong first", (p) => right(shownEvaluation().problems[p].states).share ?? 2],
  lost: ["lost most first", (p) => gain(p) ?? 2],
  gained: ["gained most first", (p) => -(gain(p) ?? -2)],
};

function ordered(members) {
  const rank = ORDERS[view.order][1];
  if (!rank) return members;
  const ranks = new Map(members.map((p) => [p, rank(p)]));
  return [...members].sort((a, b) => ranks.get(a) - ranks.get(b));
}

// Each set's problems of which something is shown, in order, with all rollouts that are shown:
// [set, all its problems, [[p, [k, ...]], ...]].
function shownSets() {
  const sets = new Map();
  shownEvaluation().problems.forEach(({ set }, p) => {
    if (!sets.has(set)) sets.set(set, []);
    sets.get(set).push(p);
  });
  return [...sets].map(([set, members]) => {
    const shown = ordered(members).map((p) => {
      const all = [...shownEvaluation().problems[p].states].map((_, k) => k);
      return [p, isFiltered() ? all.filter((k) => passes(p, k)) : all];
    });
    return [set, members, shown.filter(([, ks]) => ks.length)];
  });
}
