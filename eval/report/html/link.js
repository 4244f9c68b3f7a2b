// The address of one rollout: #rollout=MODEL/SET/PROBLEM/K, or with &beside=K two columns.

const LINK = /^#rollout=([^/]*)\/([^/]*)\/([^/]*)\/(\d+)(?:&beside=(\d+))?$/;

// An id may have half a character, which no address can hold.
const wellFormed = (text) => text.replace(/\p{Surrogate}/gu, "\ufffd");

function setLink(place) {
  history.replaceState(null, "", place ? linkOf(place) : location.href.split("#")[0]);
}

function linkOf({ p, k, beside }) {
  const { name, problems } = shownEvaluation();
  const path = [name, problems[p].set, problems[p].id]
    .map((part) => encodeURIComponent(wellFormed(part)))
    .join("/");
  return `#rollout=${path}/${k}${beside === null ? "" : `&beside=${beside}`}`;
}

// The rollout that a link names: {e, p, k, beside}; null if there is none.
function linked(hash) {
  const [, ...found] = LINK.exec(hash) ?? [];
  if (!found.length) return null;
  let words;
  try {
    words = found.slice(0, 3).map(decodeURIComponent);
  } catch {
    return null; // a % without its two digits
  }
  const [name, set, id] = words;
  const [k, beside] = found.slice(3).map((digits) => (digits ? Number(digits) : null));
  const e = data.evaluations.findIndex((evaluation) => evaluation.name === name);
  const p = data.evaluations[e]?.problems.findIndex(
    (one) => wellFormed(one.set) === set && wellFormed(one.id) === id,
  );
  const state = data.evaluations[e]?.problems[p]?.states[k] ?? "m";
  return state === "m" ? null : { e, p, k, beside };
}

async function follow() {
  if (!location.hash.startsWith("#rollout=")) return;
  const found = linked(location.hash);
  byId("notice").hidden = found !== null;
  if (!found) {
    if (byId("panel").open) byId("panel").close();
    return;
  }
  const { e, p, k, beside } = found;
  if (e !== view.evaluation) await choose(e);
  paired = beside !== null && besides(p) !== null;
  const known = paired && (statesBefore(p)[beside] ?? "m") !== "m";
  await open(p, k, known ? { beside } : {});
}

byId("copy").addEventListener("click", async () => {
  const link = byId("link");
  link.value = location.href;
  try {
    await navigator.clipboard.writeText(location.href);
    link.hidden = true;
    byId("copied").textContent = "copied";
  } catch {
    // Where the browser refuses, the reader copies it.
    link.hidden = false;
    link.select();
    byId("copied").textContent = "press Ctrl+C";
  }
  byId("copied").hidden = false;
});
byId("dismiss").addEventListener("click", () => (byId("notice").hidden = true));
addEventListener("hashchange", follow);
choose(view.evaluation).then(follow);
