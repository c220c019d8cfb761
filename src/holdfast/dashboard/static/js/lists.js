// Lists: selecting rows, and new rows that wait behind a pill while somebody reads.

import { morph } from "./live.js";

let pill = null;

const boxes = () => [...document.querySelectorAll('#main input[name="run"][type="checkbox"]')];

function count() {
  const chosen = boxes().filter((box) => box.checked);
  const bar = document.querySelector("[data-bulk-bar]");
  if (bar) {
    bar.classList.toggle("shown", chosen.length > 0);
    bar.querySelector("[data-bulk-count]").textContent = `${chosen.length} selected`;
  }
  const all = document.querySelector("[data-select-all]");
  if (all) {
    all.hidden = false;
    all.checked = chosen.length > 0 && chosen.length === boxes().length;
    all.indeterminate = chosen.length > 0 && !all.checked;
  }
}

function reading(list) {
  return scrollY > 40 || list.matches(":hover") || list.querySelector(".at") || boxes().some((box) => box.checked);
}

function drop() {
  pill?.remove();
  pill = null;
}

// Rows must not move under the pointer: new ones are announced, and shown when asked for.
function hold(event) {
  const list = document.querySelector("#main table[data-grows=top]");
  const next = event.detail.querySelector("table[data-grows=top] tbody");
  if (!list || !next || !reading(list)) { drop(); return; }
  const body = list.tBodies[0];
  const known = new Set([...body.rows].map((row) => row.id));
  const fresh = [...next.rows].filter((row) => !known.has(row.id));
  if (!fresh.length) { drop(); return; }
  const whole = event.detail.cloneNode(true);
  // rows that were there are brought up to date where they stand
  const current = new Map([...next.rows].map((row) => [row.id, row]));
  for (const row of [...body.rows]) {
    if (current.has(row.id)) morph(row, current.get(row.id).cloneNode(true));
  }
  const tabs = event.detail.querySelector(".tabs");
  if (tabs) morph(document.querySelector("#main .tabs"), tabs);
  event.preventDefault();
  drop();
  pill = document.createElement("button");
  pill.className = "pill";
  pill.type = "button";
  pill.dataset.own = "";
  pill.textContent = `${fresh.length} new`;
  pill.addEventListener("click", () => {
    drop();
    morph(document.getElementById("main"), whole);
    scrollTo({ top: 0 });
  });
  document.body.append(pill);
}

export function start() {
  document.addEventListener("holdfast:fresh", hold);
  document.addEventListener("holdfast:morphed", count);
  let last = null;
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement) || box.type !== "checkbox") return;
    if (box.matches("[data-select-all]")) {
      for (const other of boxes()) other.checked = box.checked;
    } else if (box.name === "run") {
      const all = boxes();
      if (event.shiftKey && last && all.includes(last)) {
        const [from, to] = [all.indexOf(last), all.indexOf(box)].sort((a, b) => a - b);
        for (const other of all.slice(from, to + 1)) other.checked = box.checked;
      }
      last = box;
    }
    count();
  });
  // a click anywhere on a row opens it; links, boxes and selected text keep their meaning
  document.addEventListener("click", (event) => {
    const row = event.target.closest?.("[data-list] tr[data-item]");
    if (!row || event.target.closest("a,button,input,label,form,summary") || String(getSelection())) return;
    row.querySelector("a.item-link")?.click();
  });
}

export function arrived() {
  drop();
  count();
}
