// The keyboard: `g` and a letter goes to a page, `j` and `k` move in a list.

import { refresh } from "./live.js";
import * as themes from "./themes.js";

const PLACES = { h: "", r: "runs", e: "events", f: "functions", l: "flow", q: "queue", d: "dead-letters", c: "crons", a: "audit" };
// When `g` was pressed, on the clock of events: handling them may lag behind on a busy machine.
let going = -Infinity;
const TOGETHER = 2000;
let at = null;

function items() {
  return [...document.querySelectorAll("#main [data-item]")].filter((item) => item.offsetParent !== null);
}

function move(step) {
  const all = items();
  if (!all.length) return;
  const now = all.findIndex((item) => item.id === at);
  const index = now < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, now + step));
  for (const item of all) item.classList.remove("at");
  all[index].classList.add("at");
  all[index].scrollIntoView({ block: "nearest" });
  at = all[index].id;
}

function place() {
  return items().find((item) => item.id === at);
}

function open(item) {
  (item.matches("a") ? item : item.querySelector("a.item-link"))?.click();
}

function visit(path) {
  const root = document.body.dataset.root.replace(/\/$/, "");
  const link = document.querySelector(`#nav a[href="${root}/${path}"]`);
  if (link) link.click();
  else location.href = `${root}/${path}`;
}

function search() {
  const box = document.querySelector("[data-page-search]") ?? document.querySelector("[data-global-search]");
  box.focus();
  box.select();
}

const ACTIONS = {
  "/": search,
  "?": () => document.getElementById("keys").showModal(),
  j: () => move(1),
  k: () => move(-1),
  x: () => place()?.querySelector('input[type="checkbox"]')?.click(),
  r: refresh,
  t: themes.next,
};

function typing(target) {
  return target.closest("input:not([type=checkbox]),textarea,select,[contenteditable]") !== null;
}

export function start() {
  document.addEventListener("keydown", (event) => {
    const form = event.target.closest?.("[data-editor-form]");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form) { form.requestSubmit(); event.preventDefault(); return; }
    if (event.key === "k" && (event.ctrlKey || event.metaKey)) { search(); event.preventDefault(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && typing(event.target)) { event.target.blur(); return; }
    if (typing(event.target) || document.querySelector("dialog[open]")) return;
    if (event.timeStamp - going < TOGETHER && event.key in PLACES) {
      going = -Infinity;
      visit(PLACES[event.key]);
    } else if (event.key === "g") {
      going = event.timeStamp;
    } else if (event.key === "Enter" && place() && !event.target.closest("a,button,summary")) {
      open(place());
    } else if (event.key in ACTIONS) {
      ACTIONS[event.key]();
    } else {
      return;
    }
    event.preventDefault();
  });
}

export function arrived() {
  at = null;
  for (const button of document.querySelectorAll("[data-keys-open]")) {
    button.hidden = false;
    button.onclick = ACTIONS["?"];
  }
}
