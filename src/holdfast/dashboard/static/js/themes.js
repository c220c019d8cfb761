// Light, dark, or as the system has it.

const ORDER = ["system", "light", "dark"];
const LABELS = { system: "System", light: "Light", dark: "Dark" };

export function current() {
  return document.documentElement.dataset.theme ?? "system";
}

export function next() {
  const choice = ORDER[(ORDER.indexOf(current()) + 1) % ORDER.length];
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  try { localStorage.setItem("holdfast-theme", choice); } catch { /* it holds for this tab only */ }
  show();
  document.dispatchEvent(new Event("holdfast:theme"));
}

export function show() {
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.hidden = false;
    button.dataset.now = current();
    button.title = "Theme (t)";
    button.querySelector("[data-theme-label]").textContent = LABELS[current()];
  }
}
