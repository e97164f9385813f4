// Behind circuit.js and controls.js: rows by place, what a feature fires on, and notes on it.
data.rows.forEach(([place, y]) => {
  const text = make("text", { x: state.stage.box[0] + 8, y: y + 4, class: "row" }, $("layers"));
  text.textContent = place;
});
parts.forEach((part, i) => { part.querySelector("text").textContent = data.words[i]; });

const keyOf = (card) => `${card.place}/${card.feature}`;
const noted = new Map();
data.cards.forEach((card) => {
  if (card && card.feature !== null && card.note) { noted.set(keyOf(card), card.note); }
});
function put(tag, text, kind, parent) {
  const element = document.createElement(tag);
  if (text !== null) { element.textContent = text; }
  if (kind) { element.className = kind; }
  parent.append(element);
  return element;
}
const visible = (word) => word.replaceAll("\n", "↵").replaceAll("\t", "⇥");
function context([words, values], largest, parent) {
  const line = put("div", null, "example", parent);
  words.forEach((word, i) => {
    const token = put("span", visible(word), "token", line);
    if (values[i] > 0) {
      token.style.background = `color-mix(in srgb, var(--helps) ${(60 * values[i] / largest).toFixed(0)}%, transparent)`;
      token.title = `${values[i]}`;
    }
  });
}
function row(title, words, parent) {
  if (!words || !words.length) { return; }
  put("h3", title, "", parent);
  const line = put("p", null, "words", parent);
  words.forEach((word) => put("span", visible(word), "", line));
}
function note(card, parent) {
  const box = put("textarea", null, "", parent);
  box.placeholder = "what this feature is";
  box.setAttribute("aria-label", `note on ${keyOf(card)}`);
  box.value = noted.get(keyOf(card)) ?? "";
  box.addEventListener("input", () => {
    if (box.value) { noted.set(keyOf(card), box.value); } else { noted.delete(keyOf(card)); }
  });
}
let drawn = null;
function show_card(part) {
  if (part === drawn) { return; }
  drawn = part;
  const box = $("card"), card = part === null ? null : data.cards[part];
  box.replaceChildren();
  if (!card) { return; }
  put("h2", nameOf(part), "", box);
  const ends = card.low === null ? "" : ` [${signed(card.low)}, ${signed(card.high)}]`;
  put("p", `importance ${signed(card.importance)}${ends}`, "", box);
  if (card.token) { put("p", `position ${card.pos}, such as “${visible(card.token)}”`, "", box); }
  if (card.feature === null) { put("p", "what the dictionary leaves out: a whole vector", "", box); return; }
  note(card, box);
  row("Raises the logits of", card.top, box);
  row("Lowers the logits of", card.bottom, box);
  card.groups.forEach(([name, group]) => {
    put("h3", name, "", box);
    group.forEach((example) => context(example, card.largest, box));
  });
  if (!card.groups.length) { put("p", "no contexts: never active on the text, or no text was given", "note", box); }
}
// Pointing at a box shows its card; the kept one comes back.
const paintGraph = paint;
paint = function () {
  paintGraph();
  show_card(state.over ?? state.kept);
};
// Notes as JSON lines, in the form in which they are read.
function notes() {
  return [...noted].sort().map(([key, text]) => {
    const [place, feature] = key.split("/");
    return `${JSON.stringify({ model: data.model, place, feature: Number(feature), text })}\n`;
  }).join("");
}
$("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([notes()], { type: "application/jsonl" }));
  link.download = "annotations.jsonl";
  link.click();
  URL.revokeObjectURL(link.href);
});
paint();
