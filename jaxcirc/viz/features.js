// Behind list.js: features of a dictionary, and notes on them.
const kind = "feature", items = data.features;
const [order, dead] = ["sort", "dead"].map($);
const notes = new Map();
items.forEach((feature) => { if (feature.n) { notes.set(feature.i, feature.n); } });
const percent = (share) => share === 0 ? "dead" : share < 0.0001 ? "<0.01%"
  : `${(100 * share).toPrecision(2).replace(/\.0$/, "")}%`;
const wordAt = (row, at) => data.words[data.rows[row][at]];
const peakOf = ([row, start, peak]) => wordAt(row, start + peak);

function text(feature) {
  const peaks = feature.q.flatMap(([, group]) => group.map(peakOf));
  const logits = [...feature.t, ...feature.b].map(([word]) => word);
  return [...peaks, ...logits].join(" ");
}
function matches(feature, words) {
  if (feature.m <= 0 && !dead.checked && !words.includes(String(feature.i))) { return false; }
  return words.every((word) => /^\d+$/.test(word) && String(feature.i) === word
    || `${haystack(feature, text)} ${notes.get(feature.i) ?? ""}`.toLowerCase().includes(word));
}
function found(words) {
  const by = order.value, some = items.filter((feature) => matches(feature, words));
  if (by !== "i") { some.sort((a, b) => b[by] - a[by]); }
  // A number typed alone names a feature: it comes first.
  const exact = some.findIndex((feature) => words.length === 1 && String(feature.i) === words[0]);
  if (exact > 0) { some.unshift(...some.splice(exact, 1)); }
  return some;
}

function bars(counts) {
  const svg = document.createElementNS($("bars").namespaceURI, "svg");
  const most = Math.log1p(Math.max(...counts, 1));
  svg.setAttribute("viewBox", `0 0 ${counts.length} 10`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  counts.forEach((count, i) => {
    const bar = document.createElementNS(svg.namespaceURI, "rect"), tall = 10 * Math.log1p(count) / most;
    Object.entries({ x: i, y: 10 - tall, width: 0.85, height: tall })
      .forEach(([key, value]) => bar.setAttribute(key, value));
    svg.append(bar);
  });
  return svg;
}
function tokens(example, most, parent) {
  const [row, start, , values] = example;
  values.forEach((value, i) => shaded(wordAt(row, start + i), value, most, parent));
}
function headOf(feature, head) {
  make("span", percent(feature.d), "share", head);
  head.append(bars(feature.h));
  const best = feature.q[0]?.[1][0], peak = make("span", null, "peak tokens", head);
  if (best) {
    const [row, start, at, values] = best, from = Math.max(0, at - 6);
    tokens([row, start + from, 0, values.slice(from, at + 4)], feature.m, peak);
  }
  const raised = feature.t.slice(0, 5).map(([word]) => seen(word)).join(" ");
  make("span", notes.get(feature.i) ?? raised, "said", head);
}
function logits(name, words, kind, parent) {
  if (!words.length) { return; }
  make("h3", name, "", parent);
  const line = make("div", null, "logits tokens", parent);
  words.forEach(([word, value]) => { make("span", seen(word), kind, line).title = `${value}`; });
}
function bodyOf(feature) {
  const body = make("div", null, "body");
  logits("Raises the logits of", feature.t, "helps", body);
  logits("Lowers the logits of", feature.b, "opposes", body);
  feature.q.forEach(([name, group]) => {
    make("h3", name, "", body);
    group.forEach((example) => {
      const line = make("div", null, "example tokens", body);
      make("span", `${example[3][example[2]]}`, "number", line);
      tokens(example, feature.m, line);
    });
  });
  if (!feature.q.length) { make("p", "Never active on this text.", "note", body); }
  const note = make("textarea", null, "", body);
  note.placeholder = "what this feature is";
  note.setAttribute("aria-label", `note on feature ${feature.i}`);
  note.value = notes.get(feature.i) ?? "";
  note.addEventListener("input", () => {
    if (note.value) { notes.set(feature.i, note.value); } else { notes.delete(feature.i); }
  });
  return body;
}

// Notes as JSON lines, in the form in which they are read; one that was written anew is nobody's.
const given = new Map(items.map((feature) => [feature.i, feature]));
function lines() {
  const { model, place } = data;
  return [...notes].sort(([a], [b]) => a - b).map(([feature, text]) => {
    const { n, w } = given.get(feature);
    return `${JSON.stringify({ model, place, feature, text, ...(text === n ? w : {}) })}\n`;
  }).join("");
}

$("save").addEventListener("click", () => download("annotations.jsonl", "application/jsonl", lines()));
begin(order, dead);
