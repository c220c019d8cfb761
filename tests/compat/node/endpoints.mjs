// Durable endpoints on the official TypeScript SDK, behind node:http.
// Usage: node endpoints.mjs HOLDFAST_URL; prints the port that it listens on.

import { Inngest, NonRetriableError, step } from "inngest";
import { createEndpointServer, endpointAdapter } from "inngest/node";

const [baseUrl, signingKey] = process.argv.slice(2);
const quiet = { info() {}, warn() {}, debug() {}, error() {} };
const client = new Inngest({ id: "endpoints", isDev: !signingKey, signingKey, baseUrl, logger: quiet, endpointAdapter });
const notes = {};
const note = (name, what) => {
  (notes[name] ??= []).push(what);
  return what;
};

const handlers = {
  "/at-once": async (request) => {
    const first = await step.run("first", () => note("at-once", "one"));
    const second = await step.run("second", () => `${first} and two`);
    return Response.json({ second, said: new URL(request.url).searchParams.get("say") }, { status: 202 });
  },
  "/value": async () => (await step.run("only", () => 3)) + 1,
  "/sleeps": async (request) => {
    const before = await step.run("before", () => note("sleeps", "before"));
    await step.sleep("nap", "1s");
    const after = await step.run("after", () => note("sleeps", "after"));
    return Response.json([before, after, request.method, new URL(request.url).searchParams.get("say")]);
  },
  "/waits": async (request) => {
    const id = new URL(request.url).searchParams.get("id");
    const reply = await step.waitForEvent("reply", { event: "endpoints/reply", timeout: "1m", if: `async.data.id == '${id}'` });
    return Response.json(reply.data);
  },
  "/parallel": async () => Response.json(await Promise.all(["a", "b"].map((id) => step.run(id, () => note("parallel", id))))),
  "/retries": async () => {
    const attempt = await step.run("flaky", () => {
      if (note("retries", "try") && notes.retries.length < 3) throw new Error("not yet");
      return notes.retries.length;
    });
    return Response.json({ attempt });
  },
  "/fails": async () => {
    await step.run("bad", () => {
      note("fails", "try");
      throw new Error("never works");
    });
  },
  "/step-is-final": async () => {
    try {
      await step.run("bad", () => {
        throw new NonRetriableError("no use");
      });
    } catch (error) {
      return Response.json({ caught: error.message });
    }
  },
  "/function-fails": async () => {
    await step.run("fine", () => 1);
    note("function-fails", "try");
    if (notes["function-fails"].length < 2) throw new Error("outside of steps");
    return Response.json("mended");
  },
};

const endpoint = client.endpoint(async (request) => handlers[new URL(request.url).pathname](request));
const server = createEndpointServer(async (request) =>
  new URL(request.url).pathname === "/notes" ? Response.json(notes) : endpoint(request),
);
server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
