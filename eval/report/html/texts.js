// Texts as they are shown: formulas, bold words, cuts, and marks where the search found something.

// Asterisks next to a number, a word or a bracket are powers.
const BOLD = /((?<![\w*)\]}])\*\*(?=\S)[^*\n]+(?<=\S)\*\*(?![\w*([{])|^#{1,6} .+$)/m;
// Stands between texts that are searched together; no query has it.
const GAP = "\0";

// For comparison: without case, each space as a blank, each character at its place.
function folded(text) {
  const lower = text.toLowerCase();
  const same = lower.length === text.length ? lower : text.replace(/./gsu, lowerOfSameLength);
  return same.replace(/[^\S ]/g, " ");
}

function lowerOfSameLength(character) {
  const lower = character.toLowerCase();
  return lower.length === character.length ? lower : character;
}

// A text's characters as they were written, formulas as LaTeX.
function source(pieces, sources) {
  return pieces
    .map((piece) =>
      typeof piece === "string" ? piece : typeof piece === "number" ? sources[piece] : GAP,
    )
    .join("");
}

// [start, end] of each place in a text where the folded query occurs.
function hitsIn(text, query) {
  const hits = [];
  if (!query) return hits;
  const where = folded(text);
  for (let at = where.indexOf(query); at >= 0; at = where.indexOf(query, at + query.length))
    hits.push([at, at + query.length]);
  return hits;
}

// Goes once through a text's hits, in step with its pieces.
class Marker {
  constructor(hits) {
    this.hits = hits;
    this.at = 0;
  }

  // The hits that touch the text from start to end; pieces must come in order.
  *within(start, end) {
    for (; this.at < this.hits.length && this.hits[this.at][0] < end; this.at++) {
      if (this.hits[this.at][1] > start) yield this.hits[this.at];
      if (this.hits[this.at][1] > end) return;
    }
  }

  marked(text, start) {
    const nodes = [];
    let done = 0;
    for (const [from, to] of this.within(start, start + text.length)) {
      const first = Math.max(from - start, done);
      const last = Math.min(to - start, text.length);
      nodes.push(text.slice(done, first), make("mark", {}, text.slice(first, last)));
      done = last;
    }
    return [...nodes, text.slice(done)].filter((node) => node !== "");
  }
}

// Bold text and headings, which nearly every answer has; the rest of Markdown stays as it was
// written.
function emphasised(text, start, marker) {
  const nodes = [];
  for (const [i, piece] of text.split(BOLD).entries()) {
    if (i % 2) {
      const heading = piece.match(/^#+ /)?.[0].length ?? 0;
      const [, stars, inner] = piece.slice(heading).match(/^(\*\*)(.+)\*\*$/) ?? ["", "", null];
      const shown = inner ?? piece.slice(heading);
      nodes.push(make("strong", {}, ...marker.marked(shown, start + heading + stars.length)));
    } else nodes.push(...marker.marked(piece, start));
    start += piece.length;
  }
  return nodes;
}

function written(pieces, { formulas, sources }, query, tag = "div") {
  const node = make(tag, { class: "text", dir: "ltr" });
  const marker = new Marker(hitsIn(source(pieces, sources), query));
  let start = 0;
  for (const piece of pieces) {
    if (typeof piece === "string") {
      node.append(
        ...(tag === "div" ? emphasised(piece, start, marker) : marker.marked(piece, start)),
      );
      start += piece.length;
    } else if (typeof piece === "number") {
      const end = start + sources[piece].length;
      const formula = mathml(formulas[piece]);
      if ([...marker.within(start, end)].length) formula.classList.add("hit");
      node.append(formula);
      start = end;
    } else {
      node.append(make("span", { class: "cut" }, `✂ ${several(piece.cut, "character")} cut`));
      start += GAP.length;
    }
  }
  return node;
}
