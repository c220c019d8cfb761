"""Records what the official Python SDK says on the wire, into golden/. Run by hand, where `inngest` and `fastapi` are installed:

    python tests/wire/record_python_sdk.py

It serves an application made with that SDK, stands in for the server, and writes each request and answer down.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import json
import logging
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastapi
import inngest
import inngest.fast_api
import uvicorn

GOLDEN = Path(__file__).parent / "golden"
KEY = "signkey-test-" + "0123456789abcdef" * 4
REGISTERED: list[dict[str, Any]] = []
SENT: list[dict[str, Any]] = []


class Recorder(BaseHTTPRequestHandler):
    """Accepts whatever the SDK posts to its server."""

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        entry = {"path": self.path, "headers": kept(self.headers), "body": json.loads(raw)}
        if self.path.startswith("/fn/register"):
            REGISTERED.append(entry)
            self.answer({"ok": True, "modified": True})
        else:
            SENT.append(entry)
            self.answer({"ids": ["01JABCDEFGHJKMNPQRSTVWXYZ0"] * len(entry["body"]), "status": 200})

    def answer(self, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


def kept(headers: Any) -> dict[str, str]:
    left_out = {"host", "date", "server", "content-length", "accept", "accept-encoding", "connection", "user-agent", "server-timing"}
    return {name.lower(): value for name, value in headers.items() if name.lower() not in left_out}


def functions(client: inngest.Inngest) -> list[Any]:
    @client.create_function(
        fn_id="everything",
        name="Everything",
        trigger=[
            inngest.TriggerEvent(event="shop/order.paid", expression="event.data.amount > 1"),
            inngest.TriggerCron(cron="TZ=Europe/Paris 0 9 * * 1-5"),
        ],
        retries=2,
        concurrency=[inngest.Concurrency(limit=2, key="event.data.user", scope="env")],
        throttle=inngest.Throttle(limit=3, period=datetime.timedelta(minutes=1), burst=2, key="event.data.user"),
        rate_limit=inngest.RateLimit(limit=3, period=datetime.timedelta(hours=1), key="event.data.user"),
        debounce=inngest.Debounce(period=datetime.timedelta(seconds=5), key="event.data.user"),
        priority=inngest.Priority(run="event.data.vip ? 60 : 0"),
        cancel=[inngest.Cancel(event="shop/order.cancelled", if_exp="event.data.id == async.data.id", timeout=datetime.timedelta(days=1))],
        idempotency="event.data.id",
        on_failure=failed,
    )
    async def everything(ctx: inngest.Context) -> None: ...

    @client.create_function(
        fn_id="batched", trigger=inngest.TriggerEvent(event="a/b"),
        batch_events=inngest.Batch(max_size=5, timeout=datetime.timedelta(seconds=10), key="event.data.k"),
    )
    async def batched(ctx: inngest.Context) -> None: ...

    @client.create_function(fn_id="steps", trigger=inngest.TriggerEvent(event="a/b"))
    async def steps(ctx: inngest.Context) -> Any:
        async def one() -> dict[str, int]:
            return {"n": 1}

        first = await ctx.step.run("one", one)
        again = await ctx.step.run("one", one)
        await ctx.step.sleep("nap", datetime.timedelta(hours=1, minutes=30))
        await ctx.step.sleep_until("until", datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
        event = await ctx.step.wait_for_event(
            "wait", event="a/c", if_exp="event.data.id == async.data.id", timeout=datetime.timedelta(days=2)
        )
        sent = await ctx.step.send_event("send", inngest.Event(name="a/d", data={"x": 1}))
        invoked = await ctx.step.invoke("call", function=batched, data={"k": 1}, timeout=datetime.timedelta(minutes=5))
        return [first, again, event.name if event else None, sent, invoked]

    @client.create_function(fn_id="parallel", trigger=inngest.TriggerEvent(event="a/b"))
    async def parallel(ctx: inngest.Context) -> Any:
        async def value(n: int) -> int:
            return n

        return await ctx.group.parallel((lambda: ctx.step.run("a", value, 1), lambda: ctx.step.run("b", value, 2)))

    @client.create_function(fn_id="failing", trigger=inngest.TriggerEvent(event="a/b"))
    async def failing(ctx: inngest.Context) -> Any:
        async def bad() -> None:
            raise ValueError("no such order")

        await ctx.step.run("bad", bad)

    @client.create_function(fn_id="final", trigger=inngest.TriggerEvent(event="a/b"))
    async def final(ctx: inngest.Context) -> Any:
        async def bad() -> None:
            raise inngest.NonRetriableError("never")

        await ctx.step.run("bad", bad)

    @client.create_function(fn_id="plain-error", trigger=inngest.TriggerEvent(event="a/b"))
    async def plain_error(ctx: inngest.Context) -> Any:
        raise ValueError("outside steps")

    @client.create_function(fn_id="plain-final", trigger=inngest.TriggerEvent(event="a/b"))
    async def plain_final(ctx: inngest.Context) -> Any:
        raise inngest.NonRetriableError("never")

    @client.create_function(fn_id="later", trigger=inngest.TriggerEvent(event="a/b"))
    async def later(ctx: inngest.Context) -> Any:
        raise inngest.RetryAfterError("busy", datetime.timedelta(seconds=90))

    @client.create_function(fn_id="step-later", trigger=inngest.TriggerEvent(event="a/b"))
    async def step_later(ctx: inngest.Context) -> Any:
        async def bad() -> None:
            raise inngest.RetryAfterError("busy", datetime.timedelta(seconds=90))

        await ctx.step.run("bad", bad)

    @client.create_function(fn_id="empty", trigger=inngest.TriggerEvent(event="a/b"))
    async def empty(ctx: inngest.Context) -> Any:
        return None

    return [everything, batched, steps, parallel, failing, final, plain_error, plain_final, later, step_later, empty]


async def failed(ctx: inngest.Context) -> None: ...


class Application:
    """An application with the official SDK, served by uvicorn in a thread."""

    def __init__(self, base: str, mode: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        client = inngest.Inngest(
            app_id="golden", api_base_url=base, event_api_base_url=base, is_production=mode == "cloud",
            signing_key=KEY if mode == "cloud" else None, event_key="test-key", logger=logging.getLogger("quiet"),
        )
        app = fastapi.FastAPI()
        inngest.fast_api.serve(app, client, functions(client))
        server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="critical"))
        threading.Thread(target=server.run, daemon=True).start()
        while not server.started:
            time.sleep(0.02)
        self.mode = mode

    def ask(self, method: str, query: str = "", body: Any = None, **headers: str) -> dict[str, Any]:
        raw = b"" if body is None else json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.mode == "cloud":
            t = str(int(time.time()))
            key = KEY.removeprefix("signkey-test-").encode()
            sent["X-Inngest-Signature"] = f"t={t}&s={hmac.new(key, raw + t.encode(), hashlib.sha256).hexdigest()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, f"/api/inngest{query}", raw, {"content-type": "application/json", **sent})
        answer = connection.getresponse()
        content = answer.read()
        return {"status": answer.status, "headers": kept(answer.headers), "body": json.loads(content) if content else None}

    def call(self, function: str, steps: dict[str, Any], step: str = "step", planned: bool = False, attempt: int = 0) -> dict[str, Any]:
        event = {"name": "a/b", "data": {"id": 7}, "id": "e1", "ts": 1_700_000_000_000, "user": {}}
        body = {
            "event": event, "events": [event], "steps": steps, "use_api": False, "version": 2,
            "ctx": {
                "fn_id": "11111111-1111-4111-8111-111111111111", "run_id": "01JABCDEFGHJKMNPQRSTVWXYZ0", "env": "local", "step_id": "step",
                "attempt": attempt, "max_attempts": 3, "qi_id": "q", "request_id": "r", "job_id": "j", "use_api": False,
                "disable_immediate_execution": planned, "stack": {"stack": list(steps), "current": len(steps)},
            },
        }
        return {"request": body, "step": step, "answer": self.ask("POST", f"?fnId=golden-{function}&stepId={step}", body)}


def sha(step: str) -> str:
    return hashlib.sha1(step.encode()).hexdigest()


def memo_steps(application: Application) -> list[dict[str, Any]]:
    """The whole way through `steps`, one memo after the other."""
    memos: dict[str, Any] = {}
    calls = []
    event = {"name": "a/c", "data": {"id": 7}, "user": {}, "id": "e2", "ts": 1_700_000_000_500}
    for step, memo in [
        ("one", {"data": {"n": 1}}), ("one:1", {"data": {"n": 1}}), ("nap", None), ("until", None), ("wait", event),
        ("send", {"data": ["01J"]}), ("call", {"data": 5}), ("", None),
    ]:
        calls.append(application.call("steps", dict(memos)))
        memos[sha(step)] = memo
    return calls


def main() -> None:
    recorder = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{recorder.server_port}"
    dev = Application(base, "dev")
    cloud = Application(base, "cloud")
    calls = {
        "steps": memo_steps(dev),
        "parallel": [
            dev.call("parallel", {}),
            dev.call("parallel", {}, sha("a"), planned=True),
            dev.call("parallel", {sha("a"): {"data": 1}}, planned=True),
            dev.call("parallel", {sha("a"): {"data": 1}, sha("b"): {"data": 2}}),
            dev.call("parallel", {}, "missing", planned=True),
        ],
        "errors": [
            dev.call("failing", {}), dev.call("failing", {}, attempt=2), dev.call("final", {}), dev.call("plain-error", {}), dev.call("plain-final", {}),
            dev.call("later", {}), dev.call("step-later", {}), dev.call("failing", {sha("bad"): {"error": {"name": "ValueError", "message": "no such order"}}}),
            dev.call("no-such-function", {}), {"answer": dev.ask("POST", "?fnId=golden-steps&stepId=step", [])},
            {"answer": dev.ask("POST", "", {})},
        ],
        "empty": [dev.call("empty", {})],
    }
    sync = {
        "out_of_band": {"answer": dev.ask("PUT", body={"url": "x"}), "register": REGISTERED[-1:]},
        "in_band": {
            "answer": cloud.ask("PUT", body={"url": f"http://127.0.0.1:{cloud.port}/api/inngest"}, x_inngest_sync_kind="in_band")
        },
        "introspection_dev": dev.ask("GET"),
        "introspection_cloud_signed": cloud.ask("GET"),
        "probe": cloud.ask("POST", "?probe=trust", {}),
    }
    cloud.mode = "unsigned"
    sync["introspection_cloud_unsigned"] = cloud.ask("GET")
    sync["call_unsigned"] = cloud.ask("POST", "?fnId=golden-empty&stepId=step", {})
    sync["in_band_unsigned"] = cloud.ask("PUT", body={"url": "http://x/"}, x_inngest_sync_kind="in_band")
    cloud.mode = "cloud"
    sync["out_of_band_cloud"] = {"answer": cloud.ask("PUT", body={"url": "x"}), "register": REGISTERED[-1:]}
    document = {"sdk": "inngest 0.5.19 (Python)", "calls": calls, "sync": sync, "sent": SENT}
    text = json.dumps(document, indent=1, sort_keys=True)
    for place in (str(Path(__file__).parent), str(Path(inngest.__file__).parents[1])):
        text = text.replace(place + os.sep, "")
    for application in (dev, cloud):
        text = text.replace(str(application.port), "8000")
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "python_sdk.json").write_text(text.replace(str(recorder.server_port), "8288") + "\n")


if __name__ == "__main__":
    main()
