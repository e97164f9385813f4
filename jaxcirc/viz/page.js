"use strict";
const body = document.querySelector("tbody");
const rows = body ? Array.from(body.rows) : [];
const filter = document.querySelector("#filter");
const count = document.querySelector("#count");

// Every word typed must occur somewhere in the row.
function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  count.textContent = `${shown} of ${rows.length} rows`;
}

function keyOf(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") {
    return a - b;
  }
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function sort(head) {
  const heads = Array.from(head.parentNode.cells);
  const column = heads.indexOf(head);
  const rising = head.getAttribute("aria-sort") !== "ascending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  rows.sort((a, b) => (rising ? 1 : -1) * compare(keyOf(a, column), keyOf(b, column)));
  body.append(...rows);
}

if (body) {
  filter.addEventListener("input", show);
  document.querySelectorAll("th").forEach((head) => head.addEventListener("click", () => sort(head)));
  // page.html#mlp opens the page with the table filtered.
  filter.value = decodeURIComponent(location.hash.slice(1));
  show();
}
