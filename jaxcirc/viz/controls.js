// The second half of circuit.js: the curve, moving and zooming, search, slider and keys.

// Faithfulness against edges, both axes in pixels of its view box.
const { sizes: measures, value: kept, low, high, random } = data.curve;
const reach = Math.log(Math.max(count, 2, ...measures));
const across = (edges) => 38 + 292 * Math.log(Math.max(edges, 1)) / reach;
const heights = [...kept, ...low, ...high, ...random.flat()].filter((one) => one !== null);
const [least, most] = [Math.min(0, ...heights), Math.max(1, ...heights)];
const up = (share) => 178 - 166 * (share - least) / (most - least);
function trace(values) {
  const known = measures.map((edges, i) => [edges, values[i]]).filter(([, one]) => one !== null);
  return known.map(([edges, one]) => `${across(edges).toFixed(1)},${up(one).toFixed(1)}`);
}
function area(from, to, name) {
  make("polygon", { points: [...trace(from), ...trace(to).reverse()].join(" "), class: name }, $("curve"));
}
function write(text, x, y, anchor) {
  make("text", { x, y, "text-anchor": anchor }, $("curve")).textContent = text;
}
function draw() {
  [0, 0.5, 1].forEach((one) => {
    make("path", { class: "rule", d: `M38,${up(one)}H330` }, $("curve"));
    write(`${100 * one}%`, 33, up(one) + 4, "end");
  });
  for (let edges = 1; Math.log(edges) <= reach; edges *= 10) {
    write(edges.toLocaleString("en"), across(edges), 192, "middle");
  }
  write("edges", 330, 206, "end");
  if (random.length) {
    area(random[0], random[2], "random");
    make("polyline", { points: trace(random[1]).join(" "), class: "mean" }, $("curve"));
    write("random sets", 326, up(random[1].at(-1) ?? 0) - 7, "end");
  }
  area(low, high, "band");
  make("polyline", { points: trace(kept).join(" "), class: "value" }, $("curve"));
  trace(kept).forEach((dot) => {
    const [cx, cy] = dot.split(",");
    make("circle", { cx, cy, r: 2.5, class: "dot" }, $("curve"));
  });
}
draw();
const now = make("path", { class: "now" }, $("curve"));
const here = make("circle", { r: 4.5, class: "here", visibility: "hidden" }, $("curve"));
function mark(shown) {
  now.setAttribute("d", `M${across(shown)},8V178`);
  const i = nearest(shown);
  if (kept.length && kept[i] !== null) {
    here.setAttribute("cx", across(measures[i]));
    here.setAttribute("cy", up(kept[i]));
    here.setAttribute("visibility", "visible");
  }
}

// Moving and zooming, in units of the view box.
function look(zoom, x, y) {
  Object.assign(state, { zoom, x, y });
  camera.setAttribute("transform", `translate(${x} ${y}) scale(${zoom})`);
}
const middle = () => ({ x: state.stage.box[0] + state.stage.box[2] / 2,
  y: state.stage.box[1] + state.stage.box[3] / 2 });
function centre(part, zoom) {
  const at = middle(), [x, y] = state.stage.xy[state.stage.part.indexOf(part)];
  look(zoom, at.x - zoom * x, at.y - zoom * y);
}
const inside = (event) =>
  new DOMPoint(event.clientX, event.clientY).matrixTransform(graph.getScreenCTM().inverse());
function zoomAt(at, factor) {
  const zoom = Math.min(Math.max(state.zoom * factor, 0.5), 12), by = zoom / state.zoom;
  look(zoom, at.x - (at.x - state.x) * by, at.y - (at.y - state.y) * by);
}
graph.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(inside(event), Math.exp(-0.0015 * event.deltaY));
}, { passive: false });
let held = null;
graph.addEventListener("pointerdown", (event) => {
  held = { at: inside(event), x: state.x, y: state.y, moved: false };
});
graph.addEventListener("pointermove", (event) => {
  if (held === null || event.buttons === 0) { held = null; return; }
  const at = inside(event), [x, y] = [at.x - held.at.x, at.y - held.at.y];
  held.moved ||= Math.hypot(x, y) > 5;
  graph.classList.toggle("held", held.moved);
  if (held.moved) { look(state.zoom, held.x + x, held.y + y); }
});
graph.addEventListener("click", (event) => {
  graph.classList.remove("held");
  if (held?.moved) { event.stopPropagation(); } else if (event.target === graph) { keep(state.kept); }
  held = null;
}, true);

// Search, numbers and keys.
function find(text) {
  const wanted = text.trim().toLowerCase();
  const names = data.parts.map(([name]) => name);
  const exact = names.indexOf(wanted);
  parts.forEach((part, i) => part.classList.toggle("found", wanted !== "" && names[i].startsWith(wanted)));
  return exact >= 0 || wanted === "" ? exact : names.findIndex((name) => name.startsWith(wanted));
}
function go(part) {
  if (part < 0) { return; }
  const first = data.edge.findIndex((_, i) => data.source[i] === part || data.reader[i] === part);
  show(Math.max(state.shown, first + 1));
  state.kept = part;
  centre(part, state.zoom * Math.max(1, 1.4 / $("layers").getScreenCTM().a));
  parts.forEach((one, i) => one.classList.toggle("found", i === part));
  paint();
}
const keys = {
  ArrowRight: () => show(state.shown + 1), ArrowUp: () => show(state.shown + 1),
  ArrowLeft: () => show(state.shown - 1), ArrowDown: () => show(state.shown - 1),
  PageUp: () => show(Math.ceil(state.shown * 1.25)), PageDown: () => show(Math.floor(state.shown / 1.25)),
  Home: () => show(1), End: () => show(count), Escape: () => keep(state.kept),
  "+": () => zoomAt(middle(), 1.25), "-": () => zoomAt(middle(), 0.8), 0: () => look(1, 0, 0),
};
const jumps = {
  ArrowRight: () => show(steps.find((one) => one > state.shown) ?? count),
  ArrowLeft: () => show(steps.findLast((one) => one < state.shown) ?? 1),
};
window.addEventListener("keydown", (event) => {
  const act = (event.shiftKey && jumps[event.key]) || keys[event.key];
  const typing = event.target === $("find") || event.target === size;
  if (act && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    act();
  }
});
slider.addEventListener("input", () => show(Math.exp(slider.value / 1000 * decades)));
size.addEventListener("change", () => show(Number(size.value)));
$("find").addEventListener("input", () => find($("find").value));
$("find").addEventListener("keydown", (event) => {
  if (event.key === "Enter") { go(find(event.target.value)); }
});
$("fit").addEventListener("click", () => look(1, 0, 0));
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("beforeprint", () => look(1, 0, 0));

data.parts.forEach(([name]) => $("names").append(new Option(name)));
size.max = count;
slider.disabled = size.disabled = count < 2;
let last = -1;
steps.forEach((edges) => {
  const tick = document.createElement("span"), at = position(edges) / 1000;
  tick.style.left = `calc(8px + ${at} * (100% - 16px))`;
  tick.textContent = at - last > 0.04 ? edges : "\u200b";
  last = at - last > 0.04 ? at : last;
  $("ticks").append(tick);
});
// circuit.html#120 opens with 120 edges, circuit.html#9.9 at that head.
const asked = decodeURIComponent(location.hash.slice(1));
show(/^\d+$/.test(asked) ? Number(asked) : data.start);
if (asked !== "" && !/^\d+$/.test(asked)) { go(find(asked)); }
