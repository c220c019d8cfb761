// Live updating: one event stream per tab carries notices; what is shown and has become stale is fetched again and morphed.

import { synchronise, tick } from "./times.js";

const POLL_WITHOUT_STREAM = 5000;
const GAP = 300;
// A page that is slow to make is asked for less often: at most a quarter of the time goes into it.
const REST = 3;
const PATIENCE = 30000; // for an answer: a server that says nothing must not end the refreshing
const WAY = 3000;

let source = null;
let lastFailure = 0;
let etag = null;
let etagFor = "";
let busy = false;
let again = false;
let timer = 0;
let lastFetch = 0;
let lastTook = 0;
let lastNotice = 0;

const main = () => document.getElementById("main");

function state(name, text) {
  const light = document.getElementById("live");
  if (!light) return;
  light.dataset.state = name;
  light.lastElementChild.textContent = text;
}

function connect() {
  if (source || document.hidden) return;
  source = new EventSource(document.body.dataset.stream);
  source.addEventListener("hello", () => {
    lastFailure = 0;
    state("on", "live");
    // what changed before the stream was there has not been told
    refresh();
  });
  source.addEventListener("change", (message) => {
    lastNotice = Date.now();
    if (concerns(JSON.parse(message.data))) refresh();
  });
  source.onerror = () => {
    lastFailure = Date.now();
    state("slow", "polling");
    if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(connect, 5000); }
  };
}

function disconnect() {
  source?.close();
  source = null;
  state("off", "paused");
}

function concerns(change) {
  const view = main();
  const kinds = (view.dataset.live ?? "").split(" ");
  if (!change.kinds.some((kind) => kinds.includes(kind))) return false;
  const id = view.dataset.liveId;
  return !id || change.many || change.ids.includes(id) || [...view.querySelectorAll("[data-watch]")].some((e) => change.ids.includes(e.dataset.watch));
}

export function refresh() {
  if (busy) { again = true; return; }
  const wait = Math.max(0, lastFetch + Math.max(GAP, lastTook * (1 + REST)) - Date.now());
  clearTimeout(timer);
  timer = setTimeout(load, wait);
}

async function load() {
  const view = main();
  // the answer to a form has no address to be fetched again from
  if (document.hidden || (!view.dataset.live && !view.dataset.every)) return;
  if (busy) { again = true; return; }
  busy = true;
  lastFetch = Date.now();
  const address = location.href.split("#")[0];
  try {
    const headers = { "X-Fragment": "1" };
    if (etag && etagFor === address) headers["If-None-Match"] = etag;
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(address, { headers, cache: "no-store", credentials: "same-origin", signal });
    if (answer.redirected || answer.status === 401) { location.reload(); return; }
    if (answer.status === 200 && view === main() && address === location.href.split("#")[0]) {
      etag = answer.headers.get("ETag");
      etagFor = address;
      apply(await answer.text());
    }
    if (!lastFailure && source) state("on", "live");
  } catch (error) {
    lastFailure = Date.now();
    state("lost", "no connection");
    console.info("holdfast: the page could not be refreshed:", error.message);
  } finally {
    busy = false;
    lastTook = Date.now() - lastFetch;
    if (again) { again = false; refresh(); }
  }
}

function apply(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const next = fresh.getElementById("main");
  if (!next) { location.reload(); return; }
  document.title = fresh.title;
  morph(document.getElementById("nav"), fresh.getElementById("nav"));
  const held = document.dispatchEvent(new CustomEvent("holdfast:fresh", { detail: next, cancelable: true }));
  if (held) morph(main(), next);
  document.dispatchEvent(new Event("holdfast:morphed"));
  tick();
}

// Not `ignoreActiveValue`: it leaves everything below the focused element as it was, and that may be all of main.
export function morph(old, next) {
  Idiomorph.morph(old, next, { morphStyle: "outerHTML", callbacks: { beforeNodeMorphed, beforeAttributeUpdated, afterNodeAdded, beforeNodeRemoved } });
}

// What the viewer has done to the page stays: opened folds, selected rows, charts that scripts drew.
function beforeNodeMorphed(old) {
  return !(old.nodeType === Node.ELEMENT_NODE && old.hasAttribute("data-keep"));
}

function beforeNodeRemoved(node) {
  return !(node.nodeType === Node.ELEMENT_NODE && node.hasAttribute("data-own"));
}

function beforeAttributeUpdated(name, node, kind) {
  if (name === "open" && node.tagName === "DETAILS") return false;
  if (name === "checked" || (name === "value" && node === document.activeElement)) return false;
  if (name === "class" && node.matches(".drawn,.shown,.at,.arrived")) return false;
  if (kind === "remove" && (name === "data-own" || name === "hidden")) return false;
  return !(name === "hidden" && node.matches("[data-select-all]"));
}

function afterNodeAdded(node) {
  if (node.nodeType === Node.ELEMENT_NODE && node.matches("tr[data-item]")) node.classList.add("arrived");
}

export function start() {
  connect();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else { connect(); refresh(); }
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", (event) => { if (event.persisted) { connect(); refresh(); } });
  setInterval(() => {
    if (document.hidden) return;
    const every = Number(main()?.dataset.every) || 0;
    const streaming = source?.readyState === EventSource.OPEN;
    const due = every || (streaming || !main()?.dataset.live ? 0 : POLL_WITHOUT_STREAM);
    if (due && Date.now() - lastFetch >= due) refresh();
  }, 250);
}

export function arrived() {
  // a page that was just loaded is fresh; times in it come from the server's clock
  lastFetch = Date.now();
  etag = null;
  synchronise(Number(document.getElementById("said")?.dataset.now));
  if (source?.readyState === EventSource.OPEN) state("on", "live");
  // a notice that came while this page was on its way was weighed against the page before
  if (Date.now() - lastNotice < WAY) refresh();
}
