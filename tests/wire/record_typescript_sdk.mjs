// Records what the official TypeScript SDK says on the wire, into golden/. Run by hand, where `inngest` is installed:
//
//     SDK_FROM=<a package.json beside node_modules> node tests/wire/record_typescript_sdk.mjs
//
// It serves an application made with that SDK, stands in for the server, and writes each request and answer down.

import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(process.env.SDK_FROM ?? import.meta.url);
const { Inngest, NonRetriableError, RetryAfterError } = require("inngest");
const { serve } = require("inngest/node");
const here = path.dirname(fileURLToPath(import.meta.url));
const sha = (id) => createHash("sha1").update(id).digest("hex");

const registered = [];
const sent = [];
const kept = (headers) => Object.fromEntries(Object.entries(headers).filter(([name]) =>
  name.startsWith("x-inngest") || ["content-type", "retry-after"].includes(name)));

const recorder = http.createServer((request, response) => {
  let raw = "";
  request.on("data", (chunk) => (raw += chunk));
  request.on("end", () => {
    response.setHeader("content-type", "application/json");
    if (request.url === "/dev") return response.end("{}");
    const body = raw ? JSON.parse(raw) : null;
    (request.url.startsWith("/fn/register") ? registered : sent).push({ path: request.url, headers: kept(request.headers), body });
    response.end(JSON.stringify(request.url.startsWith("/fn/") ? { ok: true, modified: true } : { ids: ["01JABCDEFGHJKMNPQRSTVWXYZ0"], status: 200 }));
  });
});
await new Promise((done) => recorder.listen(0, "127.0.0.1", done));
const base = `http://127.0.0.1:${recorder.address().port}`;
process.env.INNGEST_DEV = base;

const client = new Inngest({ id: "golden", eventKey: "test-key", isDev: true, baseUrl: base, logger: { info() {}, warn() {}, error() {}, debug() {} }, checkpointing: false });
const make = (id, fn, more = {}) => client.createFunction({ id, triggers: [{ event: "a/b" }], ...more }, fn);

const functions = [
  client.createFunction({
    id: "everything", name: "Everything", retries: 2,
    triggers: [{ event: "shop/order.paid", if: "event.data.amount > 1" }, { cron: "TZ=Europe/Paris 0 9 * * 1-5" }],
    concurrency: [{ limit: 2, key: "event.data.user", scope: "env" }], throttle: { limit: 3, period: "1m", burst: 2, key: "event.data.user" },
    rateLimit: { limit: 3, period: "1h", key: "event.data.user" }, priority: { run: "event.data.vip ? 60 : 0" }, idempotency: "event.data.id",
    cancelOn: [{ event: "shop/order.cancelled", if: "event.data.id == async.data.id", timeout: "1d" }], timeouts: { start: "1m", finish: "1h" },
    singleton: { mode: "skip", key: "event.data.user" }, onFailure: async () => {},
  }, async () => {}),
  make("batched", async () => {}, { batchEvents: { maxSize: 5, timeout: "10s", key: "event.data.k" } }),
  make("debounced", async () => {}, { debounce: { period: "5s", key: "event.data.user", timeout: "1m" } }),
  make("steps", async ({ step }) => {
    const first = await step.run("one", async () => ({ n: 1 }));
    const again = await step.run("one", async () => ({ n: 1 }));
    await step.sleep("nap", "90m");
    await step.sleepUntil("until", new Date("2030-01-02T03:04:05Z"));
    const event = await step.waitForEvent("wait", { event: "a/c", if: "event.data.id == async.data.id", timeout: "2d" });
    const signal = await step.waitForSignal("signal", { signal: "s1", timeout: "1h", onConflict: "replace" });
    const sentIds = await step.sendEvent("send", { name: "a/d", data: { x: 1 } });
    const invoked = await step.invoke("call", { function: functions[1], data: { k: 1 }, timeout: "5m" });
    const fetched = await step.fetch("https://example.org/x", { method: "GET" });
    return [first, again, event?.name, signal, sentIds, invoked, fetched?.status];
  }),
  make("parallel", async ({ step }) => Promise.all([step.run("a", () => 1), step.run("b", () => 2)])),
  make("race", async ({ step }) => Promise.race([step.run("a", () => 1), step.run("b", () => 2)])),
  make("failing", async ({ step }) => step.run("bad", () => { throw new TypeError("no such order"); })),
  make("final", async ({ step }) => step.run("bad", () => { throw new NonRetriableError("never"); })),
  make("step-later", async ({ step }) => step.run("bad", () => { throw new RetryAfterError("busy", "90s"); })),
  make("plain-error", async () => { throw new TypeError("outside steps"); }),
  make("plain-final", async () => { throw new NonRetriableError("never"); }),
  make("later", async () => { throw new RetryAfterError("busy", "90s"); }),
  make("empty", async () => {}),
];

const app = http.createServer(serve({ client, functions }));
await new Promise((done) => app.listen(0, "127.0.0.1", done));
const port = app.address().port;

async function ask(method, query = "", body = undefined, headers = {}) {
  const response = await fetch(`http://127.0.0.1:${port}/api/inngest${query}`, {
    method, body: body === undefined ? undefined : JSON.stringify(body), headers: { "content-type": "application/json", ...headers },
  });
  const text = await response.text();
  let parsed = text;
  try { parsed = JSON.parse(text); } catch { /* kept as text */ }
  return { status: response.status, headers: kept(Object.fromEntries(response.headers)), body: parsed };
}

async function call(fn, steps, step = "step", { planned = false, attempt = 0 } = {}) {
  const event = { name: "a/b", data: { id: 7 }, id: "e1", ts: 1700000000000, user: {} };
  const body = {
    event, events: [event], steps, use_api: false, version: 2,
    ctx: {
      fn_id: "11111111-1111-4111-8111-111111111111", run_id: "01JABCDEFGHJKMNPQRSTVWXYZ0", env: "local", step_id: "step", attempt, max_attempts: 3,
      qi_id: "q", request_id: "r", job_id: "j", use_api: false, disable_immediate_execution: planned,
      stack: { stack: Object.keys(steps), current: Object.keys(steps).length },
    },
  };
  return { request: body, step, answer: await ask("POST", `?fnId=golden-${fn}&stepId=${step}`, body, { "x-inngest-generation-id": "1", "x-inngest-step-id": step }) };
}

const memos = {};
const steps = [];
const event = { name: "a/c", data: { id: 7 }, user: {}, id: "e2", ts: 1700000000500 };
for (const [id, memo] of [
  ["one", { data: { n: 1 } }], ["one:1", { data: { n: 1 } }], ["nap", null], ["until", null], ["wait", event], ["signal", { data: { signal: "s1", data: 1 } }],
  ["send", { data: { ids: ["01J"] } }], ["call", { data: 5 }], [null, null],
]) {
  const made = await call("steps", { ...memos });
  steps.push(made);
  if (id) memos[sha(id)] = memo;
}
const a = sha("a"), b = sha("b");
const calls = {
  steps,
  parallel: [await call("parallel", {}), await call("parallel", {}, a, { planned: true }), await call("parallel", { [a]: { data: 1 } }, "step", { planned: true }), await call("parallel", { [a]: { data: 1 }, [b]: { data: 2 } })],
  race: [await call("race", {}), await call("race", { [b]: { data: 2 } })],
  errors: [
    await call("failing", {}), await call("failing", {}, "step", { attempt: 2 }), await call("final", {}), await call("step-later", {}), await call("plain-error", {}),
    await call("plain-final", {}), await call("later", {}), await call("failing", { [sha("bad")]: { error: { name: "TypeError", message: "no such order" } } }),
    await call("no-such-function", {}),
  ],
  empty: [await call("empty", {})],
};
const sync = {
  out_of_band: { answer: await ask("PUT", "", { url: "x" }), register: registered.slice(-1) },
  introspection_dev: await ask("GET"),
};
const version = registered[0].body.sdk;
let text = JSON.stringify({ sdk: `inngest ${version} (TypeScript)`, calls, sync, sent }, null, 1);
const root = path.dirname(path.dirname(require.resolve("inngest"))).split("node_modules")[0];
for (const place of [here + path.sep, root]) text = text.replaceAll(place, "");
text = text.replaceAll(String(port), "8000").replaceAll(String(recorder.address().port), "8288");
writeFileSync(path.join(here, "golden", "typescript_sdk.json"), text + "\n");
process.exit(0);
