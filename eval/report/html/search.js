// The packed texts: read one by one to be shown, all of an evaluation to be searched.

// Sheets that are kept after they were read: those of the next and the last problem, twice.
const KEPT = 4;
// Longest time in milliseconds that a search holds up the page.
const SLICE = 24;
const read = new Map();
// Folded texts of the evaluation that was searched last; a second search reads nothing.
let searchable = { evaluation: null, problems: [] };

async function inflated(base64) {
  const characters = atob(base64);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return new Response(
    new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")),
  ).json();
}

// A problem's texts, and its formulas' MathML, as eval/report/html/texts.py packed them.
function packed(evaluation, problem) {
  return byId(`sheet-${evaluation}-${problem}`).textContent.split(".");
}

async function sheet(evaluation, problem) {
  const key = `${evaluation} ${problem}`;
  let found = read.get(key);
  if (!found) {
    const [texts, formulas] = await Promise.all(packed(evaluation, problem).map(inflated));
    found = { ...texts, formulas };
  }
  read.delete(key);
  read.set(key, found);
  if (read.size > KEPT) read.delete(read.keys().next().value);
  return found;
}

async function foldedTexts(evaluation, p) {
  const { problem, gold, rollouts, sources } = await inflated(packed(evaluation, p)[0]);
  const { id } = data.evaluations[evaluation].problems[p];
  const joined = (...texts) => folded(texts.join(GAP));
  return {
    problem: joined(id, source(problem, sources), source(gold, sources)),
    rollouts: rollouts.map((rollout) => {
      if (!rollout) return "";
      const { thinking, answer, raw } = rollout;
      return joined(source(thinking ?? [], sources), source(answer ?? [], sources), raw ?? "");
    }),
  };
}

// Which problems have the query in their words, answer or id, and which rollouts in their texts:
// one set of indices and one set of indices for each problem. Null once ``isStale``.
async function search(evaluation, query, progress, isStale) {
  const { problems } = data.evaluations[evaluation];
  if (searchable.evaluation !== evaluation) searchable = { evaluation, problems: [] };
  const texts = searchable.problems;
  const found = { problems: new Set(), rollouts: problems.map(() => new Set()) };
  let begun = performance.now();
  for (let p = 0; p < problems.length; p++) {
    texts[p] ??= await foldedTexts(evaluation, p);
    if (performance.now() - begun > SLICE) {
      if (!isStale()) progress((p + 1) / problems.length);
      await new Promise((resume) => setTimeout(resume));
      begun = performance.now();
    }
    if (isStale()) return null;
    if (texts[p].problem.includes(query)) found.problems.add(p);
    texts[p].rollouts.forEach((text, k) => {
      if (text.includes(query)) found.rollouts[p].add(k);
    });
  }
  return found;
}
