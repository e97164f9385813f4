// Behind list.js: clusters of samples, and the nodes of their circuits.
const kind = "cluster", items = data.clusters;
const [order, rise, hide] = ["sort", "rise", "hide"].map($);
const BEFORE = 12, AFTER = 4;
const trivial = data.measures.indexOf("trivial");
const faithful = data.measures.findLastIndex((name) => /^faithfulness, \d+ nodes/.test(name));
const said = (value) => value === null ? "–" : `${value}`.replace("-", "−");
const wordOf = (token) => data.words[token];
const answerOf = (sample) => wordOf(data.answers[sample]);

// The commonest next token first.
function answers(cluster) {
  const counts = new Map();
  cluster.r.forEach((i) => counts.set(answerOf(i), (counts.get(answerOf(i)) ?? 0) + 1));
  return [...counts].sort(([, a], [, b]) => b - a);
}

function text(cluster) {
  const texts = cluster.r.map((i) => data.rows[i].map(wordOf).join("") + answerOf(i));
  const nodes = cluster.n.map(([name]) => `${name} ${data.labels[name] ?? ""}`);
  return [...texts, ...nodes].join(" ");
}
function keyOf(cluster) {
  if (order.value === "number") { return -cluster.i; }
  return order.value === "size" ? cluster.s : cluster.m[data.measures.indexOf(order.value)];
}
function compare(one, other) {
  const [a, b] = [keyOf(one), keyOf(other)];
  if (a === null || b === null) { return (a === null) - (b === null); }
  return rise.checked ? a - b : b - a;
}
function found(words) {
  return items.filter((cluster) => !(hide.checked && cluster.m[trivial])
    && words.every((word) => haystack(cluster, text).includes(word))).sort(compare);
}

function headOf(cluster, head) {
  make("span", `${cluster.s} samples`, "share", head);
  const words = answers(cluster).slice(0, 4).map(([word]) => seen(word)).join(" ");
  make("span", words, "said tokens", head);
  const line = make("span", null, "peak tokens", head);
  sample(cluster.r[0], make("bdi", null, "", line), BEFORE);
  make("span", `faithfulness ${said(cluster.m[faithful])}`, "share", head);
}
function sample(i, parent, most) {
  const tokens = data.rows[i].slice(most ? -most : 0);
  make("span", tokens.map((token) => seen(wordOf(token))).join(""), "token", parent);
  make("mark", seen(answerOf(i)), "", parent);
}
function peak([i, at, value], parent) {
  const row = data.rows[i], text = (from, to) => row.slice(Math.max(0, from), to).map(wordOf).join("");
  const line = make("div", null, "tokens where", parent);
  make("span", seen(text(at - BEFORE, at)), "token", line);
  make("span", seen(text(at, at + 1)), "token at", line).title = `activation ${value}`;
  make("span", seen(text(at + 1, at + 1 + AFTER)), "token", line);
}
function bodyOf(cluster) {
  const body = make("div", null, "body"), split = cluster.r.length - cluster.h;
  const measures = make("div", null, "measures", make("div", null, "", body));
  measures.style.marginTop = "12px";
  data.measures.forEach((name, i) => {
    make("b", said(cluster.m[i]), "", make("span", `${name}`, "", measures));
  });
  [["The circuit was found on", cluster.r.slice(0, split)], ["and judged on", cluster.r.slice(split)]]
    .forEach(([name, rows]) => {
      make("h3", name, "", body);
      rows.forEach((i) => sample(i, make("div", null, "example tokens", body)));
    });
  make("h3", "Nodes, best first: importance, what they are, where they are strongest", "", body);
  const most = Math.max(...cluster.n.map(([, value]) => Math.abs(value)), 1e-9);
  cluster.n.forEach(([name, value]) => {
    const node = make("div", null, "node", body), what = make("div", null, "", null);
    make("span", name, "", node);
    const bar = make("span", null, value > 0 ? "bar" : "bar opposes", node);
    bar.style.width = `${100 * Math.abs(value) / most}%`;
    bar.title = `importance ${said(value)}`;
    node.append(what);
    if (data.labels[name]) { make("div", data.labels[name], "label", what); }
    (data.peaks[name] ?? []).forEach((one) => peak(one, what));
  });
  return body;
}

begin(order, rise, hide);
