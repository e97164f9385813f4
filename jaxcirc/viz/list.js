// Behind rows.js: a list that is searched, sorted and opened row by row. The script behind it says what
// a row is: headOf(item, head) fills its head, bodyOf(item) makes what is seen when it is opened, and
// found(words) gives the items in which every word typed occurs, in the order wanted.
const [list, find, more] = ["list", "find", "more"].map($);
const STEP = 40;
const state = { found: [], shown: 0, open: new Set() };

// What an item is known by, made once for each: text(item) in small letters.
const known = new Map();
function haystack(item, text) {
  if (!known.has(item.i)) { known.set(item.i, ` ${item.i} ${text(item)}`.toLowerCase()); }
  return known.get(item.i);
}
function search() {
  state.found = found(find.value.toLowerCase().split(/\s+/).filter(Boolean));
  state.shown = 0;
  list.replaceChildren();
  $("count").textContent = `${state.found.length} of ${items.length} ${kind}s`;
  extend();
}
function extend() {
  const next = state.found.slice(state.shown, state.shown + STEP);
  list.append(...next.map(rowOf));
  state.shown += next.length;
  const left = state.found.length - state.shown;
  more.textContent = left ? `${left} more below` : "";
}
function rowOf(item) {
  const row = make("article", null, kind), head = make("button", null, "head", row);
  row.dataset[kind] = item.i;
  head.type = "button";
  make("b", `${item.i}`, "", head);
  headOf(item, head);
  head.setAttribute("aria-expanded", state.open.has(item.i));
  head.addEventListener("click", () => toggle(item, row, head));
  if (state.open.has(item.i)) { row.append(bodyOf(item)); }
  return row;
}
function toggle(item, row, head) {
  const opened = !state.open.has(item.i);
  head.setAttribute("aria-expanded", opened);
  if (opened) { state.open.add(item.i); row.append(bodyOf(item)); return; }
  state.open.delete(item.i);
  row.querySelector(".body").remove();
}

// The page's #text is searched for at once.
function begin(...changed) {
  find.addEventListener("input", search);
  changed.forEach((one) => one.addEventListener("change", search));
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("scroll", () => {
    const end = document.documentElement.scrollHeight - window.innerHeight - window.scrollY;
    if (end < 600 && state.shown < state.found.length) { extend(); }
  }, { passive: true });
  find.value = decodeURIComponent(location.hash.slice(1));
  if (/^\d+$/.test(find.value)) { state.open.add(Number(find.value)); }
  search();
}
