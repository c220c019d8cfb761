// Loaded before anything is drawn, so that a chosen theme never flashes in late.
(() => {
  let choice = null;
  try { choice = localStorage.getItem("holdfast-theme"); } catch { /* storage may be forbidden; the system's theme holds */ }
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
  document.documentElement.classList.add("scripted");
})();
