// Asks every two seconds where an import stands, and goes on when it has ended. What is pushed meanwhile moves the bar.
const box = document.getElementById("import");
const hint = document.getElementById("hint");
const EVERY = 2000;
const PATIENCE = 5000;

function show(status) {
  box.dataset.status = status;
  for (const part of box.querySelectorAll("[data-when]")) part.hidden = part.dataset.when !== status;
}

async function look() {
  let answer;
  try {
    const response = await fetch(`/api/scrape-status/${box.dataset.product}`, {
      headers: { accept: "application/json" },
      signal: AbortSignal.timeout(PATIENCE), // a connection that died without a word would be waited for without end
    });
    if (response.status === 401 || response.status === 404) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    answer = await response.json();
  } catch {
    hint.textContent = "The connection is lost. Trying again...";
    return setTimeout(look, EVERY);
  }
  if (answer.status === "IMPORTED" || answer.status === "ENHANCED") {
    return location.replace(`/products/${answer.productId}`);
  }
  if (answer.status === "FAILED") {
    document.getElementById("error").textContent = answer.error;
    document.title = "Import failed - Catalogue";
    return show("FAILED");
  }
  hint.textContent = "This page goes on by itself. You can also leave it: the import continues.";
  return setTimeout(look, EVERY);
}

function follow() {
  const bar = box.querySelector("progress");
  const live = new EventSource(`/api/scrape-status/${box.dataset.product}/live`);
  live.addEventListener("run", (event) => {
    const run = JSON.parse(event.data);
    if (run.progress?.fraction != null) {
      bar.value = run.progress.fraction;
      document.getElementById("doing").textContent = run.progress.text;
    }
    if (run.ended) live.close(); // what came of it, the next look says
  });
  live.addEventListener("error", () => {
    if (live.readyState !== EventSource.CLOSED || box.dataset.status !== "IMPORTING") return;
    setTimeout(follow, EVERY); // refused for now: the import has not begun
  });
}

if (box.dataset.status === "IMPORTING") {
  setTimeout(look, EVERY);
  follow();
}

// A second click would be answered the same way; this only shows that the first one was heard.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button")) setTimeout(() => (button.disabled = true));
  });
}
// Coming back with the browser's button, the page is as it was left.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
