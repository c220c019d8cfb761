// Keeps relative times and running durations current. `ago` says what humanize.py says.

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

function coarse(ms) {
  const seconds = Math.floor(Math.abs(ms) / SECOND);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function ago(moment, now) {
  const distance = moment - now;
  if (Math.abs(distance) < 2 * SECOND) return distance <= SECOND ? "just now" : "in a moment";
  if (Math.abs(distance) >= 30 * DAY) return new Date(moment).toISOString().slice(0, 10);
  return distance > 0 ? `in ${coarse(distance)}` : `${coarse(distance)} ago`;
}

export function duration(ms) {
  if (ms < 0) return "0 ms";
  if (ms < SECOND) return `${Math.round(ms)} ms`;
  if (ms < 10 * SECOND) return `${(ms / SECOND).toFixed(1)} s`;
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  for (const [unit, size, limit, lower, lowerSize] of [
    ["min", MINUTE, HOUR, "s", SECOND], ["h", HOUR, DAY, "min", MINUTE], ["d", DAY, Infinity, "h", HOUR]]) {
    if (ms < limit) {
      const whole = Math.floor(ms / size), part = Math.floor((ms % size) / lowerSize);
      return part ? `${whole} ${unit} ${part} ${lower}` : `${whole} ${unit}`;
    }
  }
}

// The server's clock decides: a laptop whose clock is minutes off must not show times from the future.
let skew = 0;

export function synchronise(serverNow) {
  if (serverNow > 0) skew = serverNow - Date.now();
}

export function tick() {
  const now = Date.now() + skew;
  for (const element of document.querySelectorAll('time[data-style="ago"]')) {
    put(element, ago(Number(element.dataset.at), now));
  }
  for (const element of document.querySelectorAll(".ticking[data-since]")) {
    put(element, duration(now - Number(element.dataset.since)));
  }
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
