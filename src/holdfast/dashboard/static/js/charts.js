// The chart of runs that ended: stacked bars with a legend under the pointer; drag over a stretch to list its runs.

const SERIES = [["completed", "Completed", "ok"], ["failed", "Failed", "bad"], ["cancelled", "Cancelled", "idle"]];
let drawn = null;

function colour(tone) {
  const probe = document.createElement("i");
  probe.className = `probe tone-${tone}`;
  document.body.append(probe);
  const value = getComputedStyle(probe).backgroundColor;
  probe.remove();
  return value;
}

function stack(data) {
  const rows = SERIES.map(([name]) => data[name]);
  const sums = rows.map((_, top) => data.starts.map((_, slot) => rows.slice(0, top + 1).reduce((sum, row) => sum + row[slot], 0)));
  return [data.starts, ...sums.reverse()];
}

function axisColour() {
  return getComputedStyle(document.querySelector(".chart-scale")).color;
}

function bars(width) {
  return uPlot.paths.bars({ size: [0.78, 48, 1], radius: width > 600 ? 0.12 : 0 });
}

function options(figure, holder, data) {
  const width = holder.clientWidth;
  const line = getComputedStyle(document.querySelector(".card")).borderTopColor;
  const axis = { stroke: axisColour(), grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width, height: 182, legend: { show: false }, padding: [8, 4, 0, 0],
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
    scales: { x: { time: true, range: (_, low, high) => [low - slot(data) * 0.2, high + slot(data)] }, y: { range: (_, low, high) => [0, Math.max(high * 1.08, 4)] } },
    axes: [{ ...axis, grid: { show: false }, space: 90, size: 30, values: (_, splits, __, ___, step) => splits.map((at) => label(at, step)) }, { ...axis, size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000, 500000, 1000000] }],
    series: [{}, ...[...SERIES].reverse().map(([, label, tone]) => ({ label, fill: colour(tone), stroke: colour(tone), width: 0, points: { show: false }, paths: bars(width) }))],
    hooks: { setCursor: [(plot) => tip(plot, holder, data)], ready: [(plot) => brush(plot, figure, data)] },
  };
}

function label(at, step) {
  const moment = new Date(at * 1000);
  if (step >= 86400 || (moment.getHours() === 0 && moment.getMinutes() === 0)) return moment.toLocaleDateString([], { day: "numeric", month: "short" });
  return moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}

function slot(data) {
  return data.starts.length > 1 ? data.starts[1] - data.starts[0] : 60;
}

function tip(plot, holder, data) {
  let box = holder.querySelector(".chart-tip");
  const index = plot.cursor.idx;
  if (index == null || plot.cursor.left < 0) { box?.remove(); return; }
  if (!box) {
    box = document.createElement("div");
    box.className = "chart-tip";
    holder.append(box);
  }
  const from = new Date(data.starts[index] * 1000);
  const title = document.createElement("strong");
  title.textContent = from.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  box.replaceChildren(title, ...SERIES.map(([name, label, tone]) => {
    const row = document.createElement("div");
    row.className = `tone-${tone}`;
    const value = document.createElement("b");
    value.textContent = data[name][index].toLocaleString();
    row.append(document.createElement("i"), label, value);
    return row;
  }));
  const left = plot.cursor.left + 60;
  box.style.left = `${Math.min(left, holder.clientWidth - box.offsetWidth - 4)}px`;
}

// From the events themselves: what the plot has drawn as selected lags a frame or two behind the pointer. A bar that is
// touched is chosen whole, so that the list shows what the bar counts.
function brush(plot, figure, data) {
  plot.over.addEventListener("mousedown", (down) => {
    const { left, width } = plot.over.getBoundingClientRect();
    const place = (event) => Math.min(Math.max(event.clientX - left, 0), width);
    const from = place(down);
    document.addEventListener("mouseup", (up) => {
      const [low, high] = [from, place(up)].sort((a, b) => a - b);
      if (high - low < 8) return;
      const since = Math.floor(data.starts[plot.posToIdx(low)] * 1000);
      const until = Math.ceil((data.starts[plot.posToIdx(high)] + slot(data)) * 1000);
      location.href = `${figure.dataset.href}?since=${since}&until=${until}`;
    }, { once: true });
  });
}

export function draw() {
  const figure = document.querySelector("[data-chart]");
  if (!figure) { drawn?.plot.destroy(); drawn = null; return; }
  const holder = figure.querySelector(".chart-live");
  const text = figure.dataset.chart;
  const key = `${text} ${holder.clientWidth} ${document.documentElement.dataset.theme} ${matchMedia("(prefers-color-scheme: dark)").matches}`;
  if (drawn && drawn.holder === holder && drawn.key === key) return;
  const data = JSON.parse(text);
  if (!data.starts.length) return;
  drawn?.plot.destroy();
  holder.replaceChildren();
  figure.classList.add("drawn");
  drawn = { holder, key, plot: new uPlot(options(figure, holder, data), stack(data), holder) };
}

export function start() {
  document.addEventListener("holdfast:morphed", draw);
  document.addEventListener("holdfast:theme", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", () => requestAnimationFrame(draw));
}
