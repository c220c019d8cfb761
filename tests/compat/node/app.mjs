// Applications on the official TypeScript SDK: Express and node:http, Next routes and Remix routes, each as such applications have them.
// Usage: node app.mjs MAJOR HOLDFAST_URL MODEL_URL; prints the port that it listens on. Two majors of the SDK in one process get in each
// other's way, so each has its own.

import http from "node:http";
import express from "express";
import { defineFunctions } from "./functions.mjs";

const [major, baseUrl, model] = process.argv.slice(2);
const name = major === "3" ? "inngest-v3" : "inngest";
const sdk = await import(name);
const adapter = async (framework) => (await import(`${name}/${framework}`)).serve;
const [serveExpress, serveNext, serveNode, serveRemix] = await Promise.all(["express", "next", "node", "remix"].map(adapter));

const notes = {};
const calls = {};
const note = (runId, what) => {
  (notes[runId] ??= []).push(what);
  return what;
};
const quiet = { info() {}, warn() {}, debug() {}, error() {} };
const typed = sdk.EventSchemas ? { schemas: new sdk.EventSchemas().fromRecord() } : {};
const client = (id, more = {}) => new sdk.Inngest({ id: `${id}${major}`, isDev: true, baseUrl, logger: quiet, ...typed, ...more });

/** A small function, for adapters that are shown to work at all. */
const smoke = (id) => {
  const own = client(id);
  const hello = async ({ event, step }) => {
    const first = await step.run("first", () => `hello ${event.data.name}`);
    await step.sleep("nap", 50);
    return [first, await step.run("second", () => 2)];
  };
  const trigger = { event: `${own.id}/hello` };
  const fn = typed.schemas ? own.createFunction({ id: "hello" }, trigger, hello) : own.createFunction({ id: "hello", triggers: [trigger] }, hello);
  return { client: own, functions: [fn], servePath: `/${id}/api/inngest` };
};

// app/api/inngest/route.ts
const { GET, POST, PUT } = serveNext(smoke("next"));
// app/routes/api.inngest.ts
const handler = serveRemix(smoke("remix"));
const routes = { "/next": { GET, POST, PUT }, "/remix": { loader: handler, action: handler } };
const nodeHandler = serveNode(smoke("node"));

/** What Next and Remix do with a request: make a `Request` of it, and send the `Response`. */
async function callRoute(route, req, res) {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  const body = chunks.length ? Buffer.concat(chunks) : undefined;
  const request = new Request(`http://${req.headers.host}${req.url}`, { method: req.method, headers: req.headers, body });
  const answer = route[req.method]
    ? await route[req.method](request, {})
    : await (req.method === "GET" ? route.loader : route.action)({ request, params: {}, context: {} });
  res.writeHead(answer.status, Object.fromEntries(answer.headers));
  res.end(Buffer.from(await answer.arrayBuffer()));
}

const app = express();
app.use(express.json({ limit: "20mb" }));
app.use((req, res, next) => {
  const run = req.headers["x-run-id"];
  if (!run) return next();
  const chunks = [];
  const { write, end } = res;
  res.write = function (chunk, ...rest) {
    chunks.push(Buffer.from(chunk));
    return write.call(this, chunk, ...rest);
  };
  res.end = function (chunk, ...rest) {
    if (chunk && typeof chunk !== "function") chunks.push(Buffer.from(chunk));
    const answer = Buffer.concat(chunks).toString();
    const ops = res.statusCode === 206 ? JSON.parse(answer).map((op) => `${op.op} ${op.displayName ?? op.id}`) : res.statusCode;
    const { ctx, use_api, steps } = req.body;
    (calls[run] ??= []).push({ step: req.query.stepId, told: ops, ctx, use_api, steps: Object.keys(steps).length });
    return end.call(this, chunk, ...rest);
  };
  next();
});
for (const [path, own] of [
  ["/api/inngest", client("js")],
  ["/plain/api/inngest", client("plain", { checkpointing: false })],
  ["/buffered/api/inngest", client("buffered", { checkpointing: { bufferedSteps: 2 } })],
]) {
  app.use(path, serveExpress({ client: own, functions: defineFunctions(sdk, own, note, model) }));
}
app.get("/seen/:run", (req, res) => res.json({ notes: notes[req.params.run] ?? [], calls: calls[req.params.run] ?? [] }));

const server = http.createServer((req, res) => {
  const route = routes[`/${req.url.split("/")[1]}`];
  if (req.url.startsWith("/node")) nodeHandler(req, res);
  else if (route) callRoute(route, req, res).catch((error) => res.writeHead(500).end(String(error)));
  else app(req, res);
});
server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
