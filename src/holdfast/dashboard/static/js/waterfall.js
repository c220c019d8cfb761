// The waterfall: a line under the pointer, and zooming by dragging over the bars. Geometry comes from the server.

const WHOLE = [0, 100];
let view = WHOLE;
let drag = null;

const wf = () => document.querySelector("[data-waterfall]");

function apply() {
  const root = wf();
  if (!root) return;
  const [from, to] = view;
  const scale = 100 / (to - from);
  for (const shape of root.querySelectorAll("svg rect, svg line, svg text")) {
    for (const name of ["x", "x1", "x2", "width"]) {
      if (!shape.hasAttribute(name)) continue;
      const kept = `o${name}`;
      shape.dataset[kept] ??= shape.getAttribute(name);
      const original = parseFloat(shape.dataset[kept]);
      const value = name === "width" ? original * scale : (original - from) * scale;
      shape.setAttribute(name, `${value}%`);
    }
  }
  root.classList.toggle("zoomed", view !== WHOLE);
  reset(root);
}

function reset(root) {
  let button = root.querySelector(".wf-reset");
  if (view === WHOLE) { button?.remove(); return; }
  if (button) return;
  button = document.createElement("button");
  button.type = "button";
  button.className = "button button-small wf-reset";
  button.dataset.own = "";
  button.textContent = "Whole run";
  button.addEventListener("click", () => { view = WHOLE; apply(); });
  root.prepend(button);
}

function share(event) {
  const area = wf()?.querySelector(".wf-grid svg")?.getBoundingClientRect();
  if (!area || !area.width) return null;
  return { x: (event.clientX - area.left) / area.width, area };
}

function band(root, from, to, area) {
  let box = root.querySelector(".wf-band");
  if (!box) {
    box = document.createElement("div");
    box.className = "wf-band";
    box.dataset.own = "";
    root.querySelector(".wf-body").append(box);
  }
  const left = root.querySelector(".wf-body").getBoundingClientRect().left;
  box.style.left = `${area.left - left + Math.min(from, to) * area.width}px`;
  box.style.width = `${Math.abs(to - from) * area.width}px`;
}

function down(event) {
  if (event.button !== 0 || !event.target.closest?.(".wf-bar, .wf-axis")) return;
  const place = share(event);
  if (place) drag = { from: place.x, moved: false };
}

function moveTo(event) {
  if (!drag) return;
  const root = wf(), place = share(event);
  if (!root || !place) { drag = null; return; }
  if (Math.abs(place.x - drag.from) * place.area.width > 6) drag.moved = true;
  if (drag.moved) { event.preventDefault(); band(root, drag.from, clamp(place.x), place.area); }
}

function up(event) {
  if (!drag) return;
  const { from, moved } = drag;
  drag = null;
  wf()?.querySelector(".wf-band")?.remove();
  const place = share(event);
  if (!moved || !place) return;
  // the click that ends a drag must not open the row beneath
  const swallow = (click) => { click.preventDefault(); click.stopPropagation(); };
  addEventListener("click", swallow, { capture: true });
  setTimeout(() => removeEventListener("click", swallow, { capture: true }), 0);
  const [low, high] = [from, clamp(place.x)].sort((a, b) => a - b);
  const [start, end] = view, width = end - start;
  view = [start + low * width, start + high * width];
  apply();
}

const clamp = (x) => Math.min(1, Math.max(0, x));

export function start() {
  document.addEventListener("pointerdown", down);
  document.addEventListener("pointermove", moveTo);
  document.addEventListener("pointerup", up);
  document.addEventListener("dragstart", (event) => { if (event.target.closest?.(".wf-row")) event.preventDefault(); });
  document.addEventListener("holdfast:morphed", () => {
    // the fresh geometry is the whole run's; show the part that was zoomed to
    for (const shape of wf()?.querySelectorAll("[data-ox],[data-ox1],[data-owidth]") ?? []) {
      for (const key of ["ox", "ox1", "ox2", "owidth"]) delete shape.dataset[key];
    }
    if (view !== WHOLE) apply();
  });
}

export function arrived() {
  view = WHOLE;
}
