"use strict";
// What pages of rows share: their data, elements, tokens whose shade says how active they are, and
// files that are saved.
const data = JSON.parse(document.querySelector("#data").textContent);
const $ = (id) => document.getElementById(id);

function make(name, text, kind, parent) {
  const element = document.createElement(name);
  if (text !== null) { element.textContent = text; }
  if (kind) { element.className = kind; }
  if (parent) { parent.append(element); }
  return element;
}
const seen = (word) => word.replaceAll("\n", "↵").replaceAll("\t", "⇥");
function shaded(word, value, most, parent) {
  const token = make("span", seen(word), "token", parent);
  if (value > 0) {
    const share = (60 * value / most).toFixed(0);
    token.style.background = `color-mix(in srgb, var(--helps) ${share}%, transparent)`;
    token.title = `${value}`;
  }
}
function download(name, type, text) {
  const link = make("a", null);
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
