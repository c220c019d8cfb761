"""The server's side of the execution protocol, in plain JSON: it registers apps and drives their runs by calls over HTTP.

It shares no code with holdfast's codec, so that a mistake in one is not hidden by the same mistake in the other. Its time
jumps: a sleep or a retry's delay is over when nothing else is due earlier.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import itertools
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from holdfast.core.expressions import compile_expression

START = 1_900_000_000_000
UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
DISCOVERY = "step"


def sha(step: str) -> str:
    return hashlib.sha1(step.encode()).hexdigest()


@dataclass
class Call:
    """A call that was made, and its answer."""

    step: str
    attempt: int
    planned_only: bool
    status: int
    headers: dict[str, str]
    body: Any
    at: int

    @property
    def ops(self) -> list[str]:
        return [op["op"] for op in self.body] if self.status == 206 else []

    @property
    def named(self) -> list[str]:
        return [f"{op['op']} {op.get('displayName', '')}".strip() for op in self.body] if self.status == 206 else [f"{self.status}"]


@dataclass
class Outcome:
    """How a run ended."""

    status: str
    output: Any
    calls: list[Call]
    failed_events: int = 0

    @property
    def told(self) -> list[list[str]]:
        return [call.named for call in self.calls]


@dataclass(order=True)
class Item:
    due: int
    order: int
    step: str = field(compare=False)
    attempt: int = field(compare=False, default=0)
    effect: Callable[[], None] | None = field(compare=False, default=None)


class ProtocolServer:
    """Stands in for the server: event API, registration, and runs of whatever has registered."""

    def __init__(self, *, signing_key: str | None = None, replies: list[dict[str, Any]] | None = None, use_api: bool = False, signals: list[tuple[str, Any]] | None = None) -> None:
        self.functions: dict[str, dict[str, Any]] = {}
        self.registered: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self.seeds: list[str | None] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.on_checkpoint: Callable[[dict[str, Any]], int | None] = lambda body: None
        """Asked before steps are taken; a status refuses them."""
        self.runs: dict[str, Run] = {}
        self.refuse_sends = 0
        self.lose_answers = 0
        """Requests that are taken and then not answered."""
        self.signing_key = signing_key
        self.replies = list(replies or [])
        """Events that come in once something waits for them."""
        self.signals = dict(signals or [])
        """Signals that are given once something waits for them."""
        self.use_api = use_api
        self.state: dict[str, tuple[list[Any], dict[str, Any]]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                answer = server.post(self.path, json.loads(raw), {name.lower(): value for name, value in self.headers.items()})
                if server.lose_answers:
                    server.lose_answers -= 1
                    self.close_connection = True
                else:
                    self.reply(*answer)

            def do_GET(self) -> None:
                self.reply(*server.get(self.path, {name.lower(): value for name, value in self.headers.items()}))

            def reply(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    # -- what apps ask of it ---------------------------------------------------------------------------------------------

    def post(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        self.requests.append(("POST", path, headers))
        if path.startswith("/fn/register"):
            refusal = self._unauthorised(headers)
            if refusal:
                return refusal
            self.registered.append(body)
            for function in body["functions"]:
                self.functions[function["id"]] = function
            return 200, {"ok": True, "modified": True, "app_id": "x"}
        if path.startswith("/v1/checkpoint/"):
            refusal = self._unauthorised(headers)
            if refusal:
                return refusal
            self.checkpoints.append(body)
            status = self.on_checkpoint(body)
            if status is not None:
                return status, {"error": "not taken", "status": status}
            assert path == f"/v1/checkpoint/{body['run_id']}/async"
            self.runs[body["run_id"]].checkpoint(body["steps"])
            return 200, {"data": {}}
        if path.endswith("/metadata"):
            return 404, {"error": "page not found", "status": 404}
        if path == "/v1/signals":
            return 404, {"error": "No signal found", "status": 404}
        if self.refuse_sends:
            self.refuse_sends -= 1
            return 503, {"ids": [], "status": 503, "error": "busy"}
        if any(event["name"] == "bad/event" for event in body):
            return 400, {"ids": [], "status": 400, "error": "not acceptable"}
        self.sent += body
        self.seeds.append(headers.get("x-inngest-event-id-seed"))
        return 200, {"ids": [ulid(len(self.sent) + index) for index in range(len(body))], "status": 200}

    def get(self, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        self.requests.append(("GET", path, headers))
        found = re.fullmatch(r"/v0/runs/(\w+)/(batch|actions)", path)
        refusal = self._unauthorised(headers)
        if refusal or found is None or found[1] not in self.state:
            return refusal or (404, {"error": "no such run", "status": 404})
        return 200, self.state[found[1]][found[2] == "actions"]

    def _unauthorised(self, headers: dict[str, str]) -> tuple[int, Any] | None:
        if self.signing_key is None:
            return None
        key = self.signing_key.split("-")[-1]
        expected = f"Bearer {hashlib.sha256(bytes.fromhex(key)).hexdigest()}"
        return None if headers.get("authorization") == expected else (401, {"error": "Authentication failed", "status": 401})

    # -- what it asks of apps --------------------------------------------------------------------------------------------

    def ask(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], Any]:
        raw = b"" if body is None else json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
        sent = {"content-type": "application/json", "x-inngest-server-kind": "dev", **(headers or {})}
        if self.signing_key is not None:
            t = str(int(time.time()))
            mac = hmac.new(self.signing_key.split("-")[-1].encode(), raw + t.encode(), hashlib.sha256)
            sent["X-Inngest-Signature"] = f"t={t}&s={mac.hexdigest()}"
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, raw, sent)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, json.loads(content)

    def run(self, slug: str, event: dict[str, Any]) -> Outcome:
        """Start a function for an event and drive it to its end."""
        return Run(self, slug, event).drive()


class Run:
    """One run: its memos, its queue, and what is pending of parallel steps."""

    _ids = itertools.count(1000)
    limit = 200

    def __init__(self, server: ProtocolServer, slug: str, event: dict[str, Any]) -> None:
        self.server = server
        self.slug = slug
        self.step = server.functions[slug]["steps"]["step"]
        self.retries = self.step.get("retries", {}).get("attempts", 4)
        self.event = {"id": "e1", "ts": START, "user": {}, **event}
        self.id = ulid(next(self._ids))
        self.now = START
        self.memos: dict[str, Any] = {}
        self.stack: list[str] = []
        self.pending: set[str] = set()
        self.known: set[str] = set()
        self.force_plan = False
        self.version = -1
        self.order = itertools.count()
        self.queue: list[Item] = []
        self.calls: list[Call] = []
        self.result: Outcome | None = None
        self.attempt_reset = False
        server.runs[self.id] = self
        self.push(DISCOVERY)

    def checkpoint(self, steps: list[dict[str, Any]]) -> None:
        """Steps reported while a call goes on."""
        for op in steps:
            assert op["op"] == "StepRun"
            assert op["id"] not in self.memos, f"{op['displayName']} ran twice"
            self.memos[op["id"]] = {"data": op.get("data")}
            self.stack.append(op["id"])
        self.attempt_reset = True

    def push(self, step: str, due: int = 0, attempt: int = 0, effect: Callable[[], None] | None = None) -> None:
        self.queue.append(Item(max(due, self.now), next(self.order), step, attempt, effect))

    def drive(self) -> Outcome:
        while self.result is None:
            assert self.queue, f"the run hangs after {[call.named for call in self.calls]}"
            assert len(self.calls) < self.limit, "the run does not come to an end"
            item = min(self.queue)
            self.queue.remove(item)
            self.now = item.due
            if item.effect is not None:
                item.effect()
            else:
                self.attempt_reset = False
                call = self.call(item)
                if self.attempt_reset:
                    item.attempt = 0
                self.take(item, call)
        return self.result

    def call(self, item: Item) -> Call:
        detached = self.server.use_api and bool(self.memos)
        self.server.state[self.id] = ([self.event], dict(self.memos))
        body = {
            "event": self.event, "events": [] if detached else [self.event], "steps": {} if detached else dict(self.memos), "use_api": detached, "version": self.version,
            "ctx": {
                "fn_id": "f", "run_id": self.id, "env": "local", "step_id": "step", "attempt": item.attempt, "max_attempts": self.retries + 1,
                "stack": {"stack": list(self.stack), "current": len(self.stack)}, "qi_id": "q1", "request_id": "r1", "job_id": "j1", "use_api": detached,
                "disable_immediate_execution": self.force_plan,
            },
        }
        url = re.sub(r"stepId=\w+", f"stepId={item.step}", self.step["runtime"]["url"])
        headers = {"X-Run-ID": self.id, "X-Inngest-Step-ID": item.step, "x-inngest-generation-id": "1", "x-request-id": "r1"}
        status, answered, content = self.server.ask("POST", url, body, headers)
        assert "x-inngest-sdk" in answered, (status, content)
        assert answered["x-inngest-req-version"] == "2"
        self.version = 2
        call = Call(item.step, item.attempt, self.force_plan, status, answered, content, self.now)
        self.calls.append(call)
        return call

    def take(self, item: Item, call: Call) -> None:
        if call.status == 206:
            self.operations(item, call)
        elif call.status == 200:
            self.result = Outcome("COMPLETED", call.body, self.calls)
        elif call.headers.get("x-inngest-no-retry") == "true" or item.attempt >= self.retries:
            self.result = Outcome("FAILED", call.body, self.calls, failed_events=1)
        else:
            self.push(item.step, self.now + self.delay(call, item.attempt), item.attempt + 1)

    def delay(self, call: Call, attempt: int) -> int:
        asked = call.headers.get("retry-after")
        return 15_000 if asked is None else int(asked) * 1000

    def operations(self, item: Item, call: Call) -> None:
        ops = call.body
        if not ops:
            self.push(DISCOVERY)
        if len(ops) > 1:
            self.force_plan = True
            self.pending |= {op["id"] for op in ops if op.get("id") and op["id"] not in self.known and op["id"] not in self.memos}
        for op in ops:
            if op["op"] in {"StepRun", "StepFailed", "StepError"}:
                self.executed(item, call, op)
            elif op.get("id") not in self.known and op.get("id") not in self.memos:
                self.known.add(op.get("id", ""))
                getattr(self, f"on_{op['op']}")(op)

    def executed(self, item: Item, call: Call, op: dict[str, Any]) -> None:
        assert op["id"] not in self.memos, f"{op['displayName']} ran twice"
        if op["op"] == "StepRun":
            self.finish(op, {"data": op["data"]} if "data" in op else {"data": None})
        elif op["op"] == "StepFailed" or op["error"].get("noRetry") or item.attempt >= self.retries:
            self.finish(op, {"error": op["error"]})
        else:
            self.push(item.step, self.now + self.delay(call, item.attempt), item.attempt + 1)

    def finish(self, op: dict[str, Any], memo: Any) -> None:
        if op["id"] in self.memos:
            return
        self.memos[op["id"]] = memo
        self.stack.append(op["id"])
        race = (op.get("opts") or {}).get("parallelMode") == "race"
        was_pending = op["id"] in self.pending
        self.pending.discard(op["id"])
        if not self.pending:
            self.force_plan = False
        if not was_pending or not self.pending or race:
            self.push(DISCOVERY)

    def on_DiscoveryRequest(self, op: dict[str, Any]) -> None:
        self.known.discard(op.get("id", ""))
        self.push(DISCOVERY)

    # -- what is to be done ------------------------------------------------------------------------------------------------

    def on_StepPlanned(self, op: dict[str, Any]) -> None:
        self.push(op["id"])

    def on_Sleep(self, op: dict[str, Any]) -> None:
        text = op["opts"]["duration"]
        due = span(text) + self.now if not text[:4].isdigit() or "T" not in text else round(datetime.fromisoformat(text).timestamp() * 1000)
        self.push("", due, effect=lambda: self.finish(op, None))

    def on_WaitForEvent(self, op: dict[str, Any]) -> None:
        opts = op["opts"]
        for reply in self.server.replies:
            event = {"id": "e2", "ts": self.now, "user": {}, **reply}
            if reply["name"] == opts["event"] and self.holds(opts.get("if"), event):
                self.server.replies.remove(reply)
                self.push("", self.now, effect=lambda: self.finish(op, event))
                return
        self.push("", self.now + span(opts["timeout"]), effect=lambda: self.finish(op, None))

    def on_WaitForSignal(self, op: dict[str, Any]) -> None:
        opts = op["opts"]
        assert opts["conflict"] in {"fail", "replace"}
        if opts["signal"] in self.server.signals:
            memo = {"data": {"signal": opts["signal"], "data": self.server.signals.pop(opts["signal"])}}
            self.push("", self.now, effect=lambda: self.finish(op, memo))
        else:
            self.push("", self.now + span(opts["timeout"]), effect=lambda: self.finish(op, None))

    def holds(self, expression: str | None, event: dict[str, Any]) -> bool:
        return expression is None or compile_expression(expression).matches(**{"event": self.event, "async": event})

    def on_InvokeFunction(self, op: dict[str, Any]) -> None:
        opts = op["opts"]
        if opts["function_id"] not in self.server.functions:
            memo = {"error": {"name": "Error", "message": f"could not find function with ID: {opts['function_id']}"}}
        elif opts.get("timeout") == "1s":
            memo = {"error": {"name": "InngestInvokeTimeoutError", "message": "Timed out waiting for invoked function to complete"}}
        else:
            child = self.server.run(opts["function_id"], {"name": "inngest/function.invoked", "data": opts["payload"]["data"]})
            memo = {"data": child.output} if child.status == "COMPLETED" else {"error": child.output}
        self.push("", self.now, effect=lambda: self.finish(op, memo))


def span(text: str) -> int:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|w|d|h|m|s)", text)
    assert "".join(a + b for a, b in parts) == text, text
    return round(sum(float(a) * UNITS[b] for a, b in parts))


def ulid(n: int) -> str:
    return "01JABCDEFGHJKMNPQRST" + f"{n:06d}"


def query_of(path: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
