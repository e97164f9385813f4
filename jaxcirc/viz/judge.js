// Behind rows.js: features to keep or to ablate, and the decisions that are saved.
const [list, find, which] = ["list", "find", "which"].map($);
const SAID = ["keep", "ablate"];
const chosen = new Map(data.features.map((feature) => [feature.n, feature.a]));

function contexts(feature, parent) {
  const most = Math.max(...feature.x.map(([, values]) => Math.max(...values)));
  feature.x.forEach(([words, values]) => {
    const line = make("div", null, "example tokens", parent);
    make("span", `${Math.max(...values)}`, "number", line);
    words.forEach((word, i) => shaded(data.words[word], values[i], most, line));
  });
  if (!feature.x.length) { make("p", "Never active on these texts.", "note", parent); }
}
function choice(feature, row, fieldset, ablate) {
  const label = make("label", null, SAID[+ablate], fieldset), input = make("input", null, "", label);
  Object.assign(input, { type: "radio", name: feature.n, value: SAID[+ablate] });
  input.checked = chosen.get(feature.n) === ablate;
  label.append(SAID[+ablate]);
  input.addEventListener("change", () => {
    chosen.set(feature.n, ablate);
    row.dataset.said = SAID[+ablate];
    count();
  });
}
function rowOf(feature) {
  const row = make("article", null, "feature"), head = make("div", null, "head", row);
  row.dataset.feature = feature.n;
  row.dataset.said = SAID[+chosen.get(feature.n)];
  make("b", feature.n, "", head);
  make("span", `${feature.i} logits, ${feature.s} seed${feature.s > 1 ? "s" : ""}`, "share", head);
  make("span", feature.p, "said", head);
  const fieldset = make("fieldset", null, "switch", head);
  make("legend", `what becomes of ${feature.n}`, "", fieldset);
  [false, true].forEach((ablate) => choice(feature, row, fieldset, ablate));
  const body = make("div", null, "body", row);
  make("p", feature.w, "note", body);
  contexts(feature, body);
  return row;
}
function wanted(feature, words) {
  const said = SAID[+chosen.get(feature.n)], by = which.value;
  const fits = !by || by === said || by === "changed" && chosen.get(feature.n) !== feature.a;
  return fits && words.every((word) => `${feature.n} ${feature.p}`.toLowerCase().includes(word));
}
function count() {
  const gone = [...chosen.values()].filter(Boolean).length;
  $("count").textContent = `${list.children.length} shown, ${gone} of ${chosen.size} ablated`;
}
function search() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  list.replaceChildren(...data.features.filter((feature) => wanted(feature, words)).map(rowOf));
  count();
}

// In the form in which decisions are read back.
function decisions() {
  const { version, task, model } = data;
  const said = Object.fromEntries([...chosen].map(([name, ablate]) => [name, SAID[+ablate]]));
  return `${JSON.stringify({ version, task, model, decisions: said }, null, 1)}\n`;
}

find.addEventListener("input", search);
which.addEventListener("change", search);
$("save").addEventListener("click", () =>
  download(`decisions-${data.task}.json`, "application/json", decisions()));
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
search();
