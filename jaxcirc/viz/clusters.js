"use strict";
const data = JSON.parse(document.querySelector("#data").textContent);
const $ = (id) => document.getElementById(id);
const [list, find, order, rise, hide, more] = ["list", "find", "sort", "rise", "hide", "more"].map($);
const STEP = 40, BEFORE = 12, AFTER = 4;
const state = { found: [], shown: 0, open: new Set() };
const trivial = data.measures.indexOf("trivial");
const faithful = data.measures.findLastIndex((name) => /^faithfulness, \d+ nodes/.test(name));

function make(name, text, kind, parent) {
  const element = document.createElement(name);
  if (text !== null) { element.textContent = text; }
  if (kind) { element.className = kind; }
  if (parent) { parent.append(element); }
  return element;
}
const seen = (word) => word.replaceAll("\n", "↵").replaceAll("\t", "⇥");
const said = (value) => value === null ? "–" : `${value}`.replace("-", "−");
const wordOf = (token) => data.words[token];
const answerOf = (sample) => wordOf(data.answers[sample]);

// The commonest next token first.
function answers(cluster) {
  const counts = new Map();
  cluster.r.forEach((i) => counts.set(answerOf(i), (counts.get(answerOf(i)) ?? 0) + 1));
  return [...counts].sort(([, a], [, b]) => b - a);
}

// Every word typed must occur in what a cluster is known by; made once for each.
const known = new Map();
function haystack(cluster) {
  if (!known.has(cluster.i)) {
    const texts = cluster.r.map((i) => data.rows[i].map(wordOf).join("") + answerOf(i));
    const nodes = cluster.n.map(([name]) => `${name} ${data.labels[name] ?? ""}`);
    known.set(cluster.i, ` ${cluster.i} ${[...texts, ...nodes].join(" ")}`.toLowerCase());
  }
  return known.get(cluster.i);
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
function search() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  state.found = data.clusters.filter((cluster) => !(hide.checked && cluster.m[trivial])
    && words.every((word) => haystack(cluster).includes(word))).sort(compare);
  state.shown = 0;
  list.replaceChildren();
  $("count").textContent = `${state.found.length} of ${data.clusters.length} clusters`;
  extend();
}
function extend() {
  const next = state.found.slice(state.shown, state.shown + STEP);
  list.append(...next.map(rowOf));
  state.shown += next.length;
  const left = state.found.length - state.shown;
  more.textContent = left ? `${left} more below` : "";
}

function rowOf(cluster) {
  const row = make("article", null, "cluster"), head = make("button", null, "head", row);
  row.dataset.cluster = cluster.i;
  head.type = "button";
  make("b", `${cluster.i}`, "", head);
  make("span", `${cluster.s} samples`, "share", head);
  const words = answers(cluster).slice(0, 4).map(([word]) => seen(word)).join(" ");
  make("span", words, "said tokens", head);
  const peak = make("span", null, "peak tokens", head), text = make("bdi", null, "", peak);
  sample(cluster.r[0], text, BEFORE);
  make("span", `faithfulness ${said(cluster.m[faithful])}`, "share", head);
  head.setAttribute("aria-expanded", state.open.has(cluster.i));
  head.addEventListener("click", () => toggle(cluster, row, head));
  if (state.open.has(cluster.i)) { row.append(bodyOf(cluster)); }
  return row;
}
function toggle(cluster, row, head) {
  const opened = !state.open.has(cluster.i);
  head.setAttribute("aria-expanded", opened);
  if (opened) { state.open.add(cluster.i); row.append(bodyOf(cluster)); return; }
  state.open.delete(cluster.i);
  row.querySelector(".body").remove();
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

[find, order, rise, hide].forEach((one) => one.addEventListener(one === find ? "input" : "change", search));
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("scroll", () => {
  const end = document.documentElement.scrollHeight - window.innerHeight - window.scrollY;
  if (end < 600 && state.shown < state.found.length) { extend(); }
}, { passive: true });
// clusters.html#capital finds it.
find.value = decodeURIComponent(location.hash.slice(1));
search();
