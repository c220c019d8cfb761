// Shows a job live: what is pushed, and every two seconds what is asked for, should pushing not get through.
const box = document.getElementById("job");
const doing = document.getElementById("doing");
const hint = document.getElementById("hint");
const base = `/jobs/${box.dataset.job}`;
const EVERY = 2000;
const PATIENCE = 5000;

function show(job) {
  if (job.ended) return location.reload(); // what came of it is on the page then
  if (job.progress?.fraction != null) box.querySelector("progress").value = job.progress.fraction;
  if (job.progress?.text) doing.textContent = job.progress.text;
}

const live = new EventSource(`${base}/live`);
live.addEventListener("run", (event) => show(JSON.parse(event.data)));

async function look() {
  try {
    const response = await fetch(`${base}/state`, { signal: AbortSignal.timeout(PATIENCE) });
    if (response.status === 401 || response.status === 404) return location.reload();
    if (!response.ok) throw new Error(String(response.status));
    show(await response.json());
    hint.textContent = "This page goes on by itself. You can also leave it: the job continues.";
  } catch {
    hint.textContent = "The connection is lost. Trying again...";
  }
  setTimeout(look, EVERY);
}

setTimeout(look, EVERY);
