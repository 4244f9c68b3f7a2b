// The rollouts on which the two graders disagree.

const opinion = (verdict) =>
  verdict === true ? "✓ right" : verdict === false ? "✗ wrong" : String(verdict);

function showDisagreements() {
  const { label, problems, disagreements, disagreeing, unjudged } = shownEvaluation();
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
    const name = button({ class: "link" }, `${problems[p].id}, rollout ${k}`);
    name.addEventListener("click", () => open(p, k, { opener: name }));
    const found = extracted === null ? make("em", {}, "none") : make("code", {}, extracted);
    const cells = [name, make("code", {}, gold), found, opinion(exact), opinion(verified)];
    return make("tr", {}, ...cells.map((content) => make("td", {}, content)));
  });
  const listed = rows.length < disagreeing ? `; the first ${count(rows.length)}` : "";
  const list = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  place.replaceChildren(
    make("p", {}, `${label}: ${several(disagreeing, "rollout")}${listed}.${rest}`),
    make("div", { class: "scroll list", tabindex: 0 }, list),
  );
}
