// Keeps the lower part of the page as it is now: asks for it every two seconds, and says so when nobody answers.
const part = document.getElementById("now");
const hint = document.getElementById("hint");
const EVERY = 2000;
const PATIENCE = 5000;

async function look() {
  try {
    const response = await fetch("/now", { signal: AbortSignal.timeout(PATIENCE) });
    if (response.status === 401) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    const html = await response.text();
    const focused = document.activeElement?.getAttribute("aria-label");
    if (html !== part.dataset.html && !part.querySelector(":active")) {
      part.innerHTML = part.dataset.html = html;
      if (focused) [...part.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === focused)?.focus();
    }
    hint.textContent = "";
  } catch {
    hint.textContent = "The connection is lost. Trying again...";
  }
  setTimeout(look, EVERY);
}

setTimeout(look, EVERY);
