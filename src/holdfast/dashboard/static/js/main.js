// Everything here is an addition: without it pages read the same, links go and forms post.

import * as charts from "./charts.js";
import * as dialogs from "./dialogs.js";
import * as keys from "./keys.js";
import * as lists from "./lists.js";
import * as live from "./live.js";
import * as themes from "./themes.js";
import { tick } from "./times.js";
import * as waterfall from "./waterfall.js";

function arrived() {
  themes.show();
  document.querySelector("#nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  live.arrived();
  dialogs.arrived();
  keys.arrived();
  lists.arrived();
  waterfall.arrived();
  charts.draw();
  tick();
}

for (const part of [dialogs, keys, lists, waterfall, charts, live]) part.start();
document.addEventListener("click", (event) => { if (event.target.closest?.("[data-theme-toggle]")) themes.next(); });
setInterval(tick, 1000);

// A page that isn't ours (a login, an error of a proxy) is opened as a page, not put into this one.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (xhr.responseText.includes("data-holdfast")) { event.detail.shouldSwap = true; event.detail.isError = false; return; }
  event.detail.shouldSwap = false;
  location.href = xhr.responseURL || location.href;
});
document.addEventListener("htmx:afterSettle", arrived);
arrived();
