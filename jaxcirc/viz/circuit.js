"use strict";
const data = JSON.parse(document.querySelector("#data").textContent);
const $ = (id) => document.getElementById(id);
const [graph, camera, slider, size, tip] = ["graph", "camera", "slider", "size", "tip"].map($);
const count = data.edge.length;
const state = { shown: 0, stage: null, over: null, kept: null, zoom: 1, x: 0, y: 0 };
// The slider is logarithmic: small circuits are the ones to look at.
const decades = Math.log(Math.max(count, 2));
const position = (shown) => Math.round(1000 * Math.log(Math.max(shown, 1)) / decades);
const steps = data.curve.sizes.filter((one) => one <= count);

function make(name, attributes, parent) {
  const element = document.createElementNS(graph.namespaceURI, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  parent.append(element);
  return element;
}
const signed = (value) => value === null ? "–"
  : (value > 0 ? "+" : "") + Number(value.toPrecision(3)).toString().replace("-", "−");
const many = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const share = (value) => value === null ? "–" : value.toFixed(2).replace("-", "−");
const nameOf = (part) => data.parts[part][0];
const helps = (i) => data.importance[i] > 0;
const words = (i) => `${nameOf(data.source[i])} → ${nameOf(data.reader[i])} ${data.slot[i]}`.trim();

// Boxes and lines are made once; the strongest lines come last and lie on top.
const parts = data.parts.map(([name, kind, , wide, tall], i) => {
  const group = make("g", { class: `part off ${kind}`, tabindex: 0, role: "button" }, $("parts"));
  make("rect", { x: -wide / 2, y: -tall / 2, width: wide, height: tall, rx: 5 }, group);
  make("text", {}, group).textContent = name;
  group.addEventListener("pointerenter", () => hover(i));
  group.addEventListener("pointerleave", () => hover(null));
  group.addEventListener("focus", () => hover(i));
  group.addEventListener("blur", () => hover(null));
  group.addEventListener("click", () => keep(i));
  group.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { keep(i); event.preventDefault(); }
  });
  return group;
});
const lines = [], hits = [];
for (let i = count - 1; i >= 0; i--) {
  const wide = 0.8 + 6 * data.strength[i];
  lines[i] = make("path", { class: `line off ${helps(i) ? "helps" : "opposes"}`, "data-edge": data.edge[i],
    "stroke-width": wide.toFixed(2), "aria-hidden": "true" }, $("lines"));
  const dash = { query: [wide, wide * 1.1 + 1], key: [3 * wide + 3, wide + 2.5] }[data.slot[i]];
  if (dash) { lines[i].setAttribute("stroke-dasharray", dash.map((step) => step.toFixed(1)).join(" ")); }
  hits[i] = make("path", { class: "hit off", "aria-hidden": "true" }, $("hits"));
  hits[i].addEventListener("pointermove", (event) => point(i, event));
  hits[i].addEventListener("pointerleave", () => point(null));
}

function place(stage) {
  state.stage = stage;
  stage.part.forEach((part, i) => {
    parts[part].style.transform = `translate(${stage.xy[i][0]}px, ${stage.xy[i][1]}px)`;
  });
  stage.paths.forEach((path, i) => [lines[i], hits[i]].forEach((one) => one.setAttribute("d", path)));
  $("links").replaceChildren();
  stage.links.forEach((path) => make("path", { class: "link", d: path }, $("links")));
  $("layers").replaceChildren();
  const [left, , wide] = stage.box, at = new Map();
  stage.part.forEach((part, i) => {
    const [, kind, layer] = data.parts[part];
    if (kind === "head" || (kind === "mlp" && !at.has(layer))) { at.set(layer, stage.xy[i][1]); }
  });
  at.forEach((y, layer) => {
    make("path", { d: `M${left + 70},${y}H${left + wide}` }, $("layers"));
    make("text", { x: left + 8, y: y + 4 }, $("layers")).textContent = `layer ${layer}`;
  });
  graph.setAttribute("viewBox", stage.box.join(" "));
  look(1, 0, 0);
}

// To the places of another stage; who has zoomed in on a kept part stays with it.
function move(stage) {
  const zoom = state.zoom;
  place(stage);
  if (zoom !== 1 && stage.part.includes(state.kept)) { centre(state.kept, zoom); }
}
// The picture with the first `wanted` edges.
function show(wanted) {
  const shown = Math.max(Math.min(Math.round(wanted) || 1, count), count ? 1 : 0);
  const stage = data.stages.find((one) => one.edges >= shown);
  if (stage !== state.stage) { move(stage); }
  state.shown = shown;
  const edges = parts.map(() => 0);
  for (let i = 0; i < shown; i++) {
    edges[data.source[i]] += 1;
    edges[data.reader[i]] += 1;
  }
  parts.forEach((part, i) => {
    part.classList.toggle("off", edges[i] === 0);
    part.setAttribute("aria-label", `${nameOf(i)}, ${many(edges[i], "edge")}`);
  });
  [lines, hits].forEach((group) => group.forEach((one, i) => one.classList.toggle("off", i >= shown)));
  Array.from($("links").children).forEach((link, i) =>
    link.classList.toggle("off", !stage.ends[i].every((part) => edges[part])));
  const nodes = data.parts.filter(([, kind], i) => edges[i] && kind !== "input" && kind !== "logits").length;
  slider.value = position(shown);
  slider.setAttribute("aria-valuetext", many(shown, "edge"));
  size.value = shown;
  $("said").textContent = `${many(shown, "edge")}, ${many(nodes, "node")}, ${measured(shown)}`;
  mark(shown);
  point(null);
  paint();
}

function nearest(shown) {
  const below = data.curve.sizes.filter((one) => one <= shown).length;
  return Math.max(below - 1, 0);
}
function measured(shown) {
  const { sizes, value, low, high } = data.curve, i = nearest(shown);
  return sizes.length === 0 ? "faithfulness not measured"
    : `faithfulness ${share(value[i])} [${share(low[i])}, ${share(high[i])}] (measured at ${sizes[i]})`;
}
const touching = (part) => Array.from({ length: state.shown }, (_, i) => i)
  .filter((i) => data.source[i] === part || data.reader[i] === part);
function hover(part) { state.over = part; paint(); }
function keep(part) { state.kept = state.kept === part ? null : part; paint(); }

// Light up one part: the one under the pointer, or the one that was clicked.
function paint() {
  const part = state.over ?? state.kept;
  const lit = part === null ? [] : touching(part);
  const near = new Set([part, ...lit.flatMap((i) => [data.source[i], data.reader[i]])]);
  graph.classList.toggle("dim", part !== null);
  const on = new Set(lit);
  lines.forEach((line, i) => line.classList.toggle("lit", on.has(i)));
  parts.forEach((one, i) => {
    one.classList.toggle("lit", near.has(i));
    one.classList.toggle("kept", i === state.kept);
    one.setAttribute("aria-pressed", i === state.kept);
  });
  $("list").replaceChildren(...(part === null ? [] : [table(part, lit)]));
}
function table(part, lit) {
  const table = document.createElement("table");
  const reads = lit.filter((i) => data.reader[i] === part).length;
  table.createCaption().textContent = `${nameOf(part)}: ${many(reads, "edge")} in, ${lit.length - reads} out`;
  lit.forEach((i) => {
    const row = table.insertRow(), cells = [`#${i + 1}`, words(i), signed(data.importance[i])];
    cells.forEach((text) => { row.insertCell().textContent = text; });
    row.cells[2].className = `number ${helps(i) ? "helps" : "opposes"}`;
    row.addEventListener("pointerenter", () =>
      lines.forEach((line, other) => line.classList.toggle("lit", other === i)));
  });
  table.addEventListener("pointerleave", paint);
  return table;
}

function point(i, event) {
  tip.hidden = i === null;
  if (i === null) { return; }
  const strong = document.createElement("b");
  strong.textContent = words(i);
  tip.replaceChildren(strong, `importance ${signed(data.importance[i])} · rank ${i + 1}`);
  const box = $("view").getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  tip.style.left = `${Math.min(x + 14, box.width - 220)}px`;
  tip.style.top = `${Math.min(y + 14, box.height - 60)}px`;
}
