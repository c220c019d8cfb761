// Functions of an application on the official TypeScript SDK, in either major version.

const SECOND = 1000;

/**
 * @param {object} sdk the SDK's module
 * @param {object} client its client
 * @param {(runId: string, what: unknown) => unknown} note keeps what a run notices
 * @param {string} model the address of a stand-in for a language model
 */
export function defineFunctions(sdk, client, note, model) {
  const { NonRetriableError, RetryAfterError, StepError, referenceFunction } = sdk;
  const major = sdk.EventSchemas ? 3 : 4;
  const app = client.id;
  const made = [];
  const add = (options, handler) => {
    const { triggers = [{ event: `${app}/${options.id}` }], ...rest } = options;
    const fn =
      major === 3 ? client.createFunction(rest, triggers, handler) : client.createFunction({ ...rest, triggers }, handler);
    made.push(fn);
    return fn;
  };
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  add({ id: "steps" }, async ({ event, step, runId }) => {
    const first = await step.run("double", () => note(runId, event.data.n * 2));
    const nothing = await step.run("nothing", () => undefined);
    return [first, nothing, await step.run("more", (n) => n + 1, first)];
  });

  add({ id: "one-id" }, async ({ step, runId }) => {
    const out = [];
    for (let n = 0; n < 3; n++) out.push(await step.run("same", () => note(runId, `a${n}`)));
    return out;
  });

  add({ id: "sleeps" }, async ({ step }) => {
    await step.sleep("short", 300);
    await step.sleep("text", "1s");
    await step.sleepUntil("moment", new Date(Date.now() + 300));
    await step.sleepUntil("past", "2020-01-01T00:00:00Z");
    return "awake";
  });

  add({ id: "waits" }, async ({ step }) => step.waitForEvent("reply", { event: `${app}/reply`, timeout: "5m", match: "data.id" }));
  add({ id: "waits-if" }, async ({ step }) =>
    step.waitForEvent("reply", { event: `${app}/reply`, timeout: "5m", if: "async.data.id == event.data.id && async.data.n > 1" }),
  );
  add({ id: "waits-in-vain" }, async ({ step }) => step.waitForEvent("reply", { event: `${app}/never`, timeout: "1s" }));

  add({ id: "sends" }, async ({ step }) => step.sendEvent("send", [{ name: `${app}/sent`, data: { n: 1 } }, { name: `${app}/sent`, data: { n: 2 } }]));
  add({ id: "receives", triggers: [{ event: `${app}/sent` }] }, async ({ event }) => event.data.n);

  const callee = add({ id: "callee", retries: 0 }, async ({ event, step }) => {
    if (event.data.fail) throw new TypeError("callee failed");
    if (event.data.sleep) await step.sleep("long", "5m");
    return { got: event.data.n, name: event.name };
  });

  add({ id: "invokes", retries: 0 }, async ({ step }) => {
    const out = [await step.invoke("by function", { function: callee, data: { n: 1 } })];
    out.push(await step.invoke("by reference", { function: referenceFunction({ functionId: "callee" }), data: { n: 2 } }));
    const wrong = [
      ["failing", { function: callee, data: { fail: true } }],
      ["unknown", { function: referenceFunction({ functionId: "nowhere" }), data: {} }],
      ["late", { function: callee, data: { sleep: true }, timeout: "1s" }],
    ];
    for (const [name, options] of wrong) {
      try {
        await step.invoke(name, options);
      } catch (error) {
        out.push([error.name, error.message]);
      }
    }
    return out;
  });

  add({ id: "parallel" }, async ({ step, runId }) => {
    const body = (name, ms) => () => pause(ms).then(() => note(runId, name));
    const found = await Promise.all([step.run("a", body("a", 0)), step.run("b", body("b", 100)), step.run("c", body("c", 200))]);
    return [...found, await step.run("after", () => "after")];
  });

  add({ id: "race" }, async ({ step, runId, group }) => {
    const body = (name, ms) => () => pause(ms).then(() => note(runId, name));
    const run = () => Promise.race([step.run("quick", body("quick", 0)), step.sleep("slow", "2s").then(() => "slow")]);
    const won = group?.parallel ? await group.parallel({ mode: "race" }, run) : await run();
    return [won, await step.run("after", () => "after"), await step.run("then", () => "then")];
  });

  add({ id: "mixed" }, async ({ step }) =>
    Promise.all([
      step.run("step", () => "step"),
      step.sleep("nap", 200),
      step.waitForEvent("wait", { event: `${app}/never`, timeout: "1s" }),
      step.invoke("invoke", { function: callee, data: { n: 5 } }),
    ]),
  );

  add({ id: "chains" }, async ({ step, runId }) => {
    const chain = async (name) => {
      const first = await step.run(`${name}1`, () => note(runId, `${name}1`));
      return [first, await step.run(`${name}2`, () => note(runId, `${name}2`))];
    };
    return Promise.all([chain("a"), chain("b")]);
  });

  add({ id: "flaky", retries: 3 }, async ({ step, runId, attempt, maxAttempts }) => {
    const found = await step.run("flaky", () => {
      note(runId, attempt);
      if (attempt < 2) throw new Error("down");
      return attempt;
    });
    return [found, attempt, maxAttempts];
  });

  add({ id: "step-fails", retries: 1 }, async ({ step }) => {
    try {
      await step.run("bad", () => {
        throw new RangeError("bad step");
      });
    } catch (error) {
      return [error instanceof StepError, error.name, error.message, await step.run("after", () => "mended")];
    }
  });

  add(
    {
      id: "fails",
      retries: 2,
      onFailure: async ({ event, error }) => {
        note(event.data.run_id, ["onFailure", error.name, error.message, event.data.event.name, event.data.function_id]);
      },
    },
    async ({ runId, attempt }) => {
      note(runId, attempt);
      throw new Error("never works");
    },
  );

  add({ id: "not-retriable", retries: 3 }, async ({ runId, attempt }) => {
    note(runId, attempt);
    throw new NonRetriableError("no use");
  });
  add({ id: "step-not-retriable", retries: 3 }, async ({ step }) => {
    try {
      await step.run("never", () => {
        throw new NonRetriableError("no use");
      });
    } catch (error) {
      return error.message;
    }
  });
  add({ id: "retry-after", retries: 3 }, async ({ runId, attempt }) => {
    note(runId, Date.now());
    if (attempt === 0) throw new RetryAfterError("busy", 2 * SECOND);
    return attempt;
  });

  add({ id: "signals" }, async ({ step, event }) => step.waitForSignal("signal", { signal: event.data.signal, timeout: "5m", onConflict: "fail" }));
  add({ id: "signals-in-vain" }, async ({ step }) => step.waitForSignal("signal", { signal: `${app}-never`, timeout: "1s", onConflict: "replace" }));
  add({ id: "sends-signal" }, async ({ step, event }) => {
    await step.sendSignal("send", { signal: event.data.signal, data: { n: 9 } });
  });

  add({ id: "fetches" }, async ({ step }) => {
    const answer = await step.fetch(`${model}/echo`, { method: "POST", body: "hello", headers: { "x-said": "yes" } });
    return [answer.status, await answer.json()];
  });
  add({ id: "infers", retries: 1 }, async ({ step, event }) => {
    const openai = step.ai.models.openai({ model: "gpt-test", apiKey: "sk-test", baseUrl: `${model}/v1/` });
    const answer = await step.ai.infer("ask", { model: openai, body: { messages: [{ role: "user", content: event.data.say }] } });
    return answer.choices[0].message.content;
  });

  add({ id: "large-state" }, async ({ step }) => {
    const out = [];
    for (let n = 0; n < 4; n++) out.push((await step.run("part", () => String(n).repeat(1_500_000))).length);
    return out;
  });
  add({ id: "large-output", retries: 0 }, async () => "x".repeat(9_000_000));
  add({ id: "many-steps", retries: 0 }, async ({ step }) => {
    for (let n = 0; n < 4; n++) await step.run("step", () => n);
    return 4;
  });
  add({ id: "context" }, async ({ event, events, attempt, step }) => {
    await step.run("one", () => 1);
    return { event, events: events.length, attempt };
  });

  // -- flow control ---------------------------------------------------------------------------------------------------

  add({ id: "cancelled", cancelOn: [{ event: `${app}/cancel`, match: "data.id" }] }, async ({ step }) => step.sleep("long", "5m"));
  add({ id: "one-at-a-time", concurrency: { limit: 1, key: "event.data.who" } }, async ({ step }) =>
    step.run("work", async () => {
      note(`one-at-a-time`, "in");
      await pause(150);
      note(`one-at-a-time`, "out");
    }),
  );
  add({ id: "throttled", throttle: { limit: 1, period: "1s", key: "event.data.who" } }, async () => note("throttled", Date.now()));
  add({ id: "rate-limited", rateLimit: { limit: 1, period: "1m", key: "event.data.who" } }, async () => "ran");
  add({ id: "debounced", debounce: { period: "1s", key: "event.data.who" } }, async ({ event }) => event.data.n);
  add({ id: "batched", batchEvents: { maxSize: 3, timeout: "2s" } }, async ({ events }) => events.map((event) => event.data.n));
  add({ id: "prioritised", priority: { run: "event.data.urgent ? 60 : 0" }, concurrency: 1 }, async ({ event }) => {
    note("prioritised", event.data.n);
    await pause(150);
  });
  add({ id: "single", singleton: { mode: "skip", key: "event.data.who" } }, async ({ step }) => step.sleep("nap", "1s"));
  add({ id: "idempotent", idempotency: "event.data.order" }, async () => "ran");
  add({ id: "finish-timeout", timeouts: { finish: "1s" } }, async ({ step }) => step.sleep("long", "5m"));
  add(
    { id: "triggers", triggers: [{ event: `${app}/first` }, { event: `${app}/second`, if: "event.data.n > 1" }, { event: `${app}-wild/*` }, { cron: "0 0 1 1 *" }] },
    async ({ event }) => event.name,
  );
  return made;
}
