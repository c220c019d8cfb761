"""The requests that were put to the official Python SDK get the same answers here, where the protocol leaves no choice."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast import App, Context, NonRetriableError, RetryAfterError
from holdfast.base.ids import ulid_bytes
from holdfast.sdk.sender import Sent
from holdfast.serve.handler import ServeHandler
from holdfast.serve.http import Request
from holdfast.serve.settings import ServeSettings
from holdfast.wire.canonical import canonical_json

pytestmark = pytest.mark.anyio
GOLDEN = json.loads((Path(__file__).parents[1] / "wire" / "golden" / "python_sdk.json").read_text())


class Accepts:
    """Sends as the recorded server took it."""

    async def send(self, events):
        return [Sent(ulid_bytes("01JABCDEFGHJKMNPQRSTVWXYZ0")) for _ in events]


def golden_app() -> App:
    app = App("golden")
    app.bind(Accepts())

    @app.function("a/b", id="batched")
    async def batched(ctx: Context[Any]) -> None: ...

    @app.function("a/b", id="steps")
    async def steps(ctx: Context[Any]) -> list[Any]:
        async def one() -> dict[str, int]:
            return {"n": 1}

        first = await ctx.step.run("one", one)
        again = await ctx.step.run("one", one)
        await ctx.step.sleep("nap", timedelta(hours=1, minutes=30))
        await ctx.step.sleep_until("until", datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
        event = await ctx.step.wait_for_event("wait", "a/c", if_="event.data.id == async.data.id", timeout=timedelta(days=2))
        sent = await ctx.step.send("send", {"name": "a/d", "data": {"x": 1}})
        invoked = await ctx.step.invoke("call", batched, {"k": 1}, timeout="5m")
        return [first, again, event.name if event else None, sent, invoked]

    @app.function("a/b", id="parallel")
    async def parallel(ctx: Context[Any]) -> list[int]:
        async def value(n: int) -> int:
            return n

        return list(await asyncio.gather(ctx.step.run("a", value, 1), ctx.step.run("b", value, 2)))

    def fails(error: Exception) -> Any:
        async def bad() -> None:
            raise error

        return bad

    @app.function("a/b", id="failing")
    async def failing(ctx: Context[Any]) -> None:
        await ctx.step.run("bad", fails(ValueError("no such order")))

    @app.function("a/b", id="plain-error")
    async def plain_error(ctx: Context[Any]) -> None:
        raise ValueError("outside steps")

    @app.function("a/b", id="plain-final")
    async def plain_final(ctx: Context[Any]) -> None:
        raise NonRetriableError("never")

    @app.function("a/b", id="later")
    async def later(ctx: Context[Any]) -> None:
        raise RetryAfterError("busy", 90)

    @app.function("a/b", id="empty")
    async def empty(ctx: Context[Any]) -> None: ...

    return app


def essence(status: int, headers: dict[str, str], body: Any) -> dict[str, Any]:
    """What the protocol fixes of an answer: not stacks, not the wording of options that mean the same."""
    out: dict[str, Any] = {"status": status, "final": headers.get("x-inngest-no-retry") == "true", "later": "retry-after" in headers}
    if status == 206:
        out["ops"] = [
            {
                "op": op["op"], "id": op["id"], "displayName": op["displayName"], "data": op.get("data"), "userland": op["userland"],
                "error": op.get("error") and (op["error"]["name"], op["error"]["message"]),
                "opts": {name: value for name, value in (op.get("opts") or {}).items() if name in {"if", "timeout", "function_id"}},
            }
            for op in body
        ]
    elif status == 200:
        out["result"] = body
    else:
        out["error"] = (body["name"], body["message"])
    return out


CASES = [
    (kind, index, call)
    for kind, calls in GOLDEN["calls"].items()
    for index, call in enumerate(calls)
    if "request" in call and (kind, index) not in {
        ("errors", 2),  # a NonRetriableError in a step ends the function there; here the function may handle it, as the protocol says
        ("errors", 6),  # and so does a RetryAfterError
        ("errors", 8),  # the wording of an unknown function's error
        ("parallel", 4),  # a planned step that is gone: there the function ends with nothing
    }
]
FUNCTIONS = {
    "steps": ["steps"] * 8, "parallel": ["parallel"] * 5, "empty": ["empty"],
    "errors": ["failing", "failing", "", "plain-error", "plain-final", "later", "", "failing"],
}


@pytest.mark.protocol("register.own")
@pytest.mark.parametrize(("kind", "index", "call"), CASES, ids=lambda value: "" if isinstance(value, dict) else str(value))
async def test_the_same_answer(kind: str, index: int, call: dict[str, Any]) -> None:
    handler = ServeHandler(golden_app(), ServeSettings.of({}, dev=True), "fastapi")
    query = {"fnId": f"golden-{FUNCTIONS[kind][index]}", "stepId": call["step"]}
    answer = await handler.handle(Request("POST", "http://x/api/inngest", query, {}, canonical_json(call["request"])))
    official = call["answer"]
    theirs = essence(official["status"], official["headers"], official["body"])
    ours = essence(answer.status, answer.headers, json.loads(answer.body))
    assert ours == theirs
    assert answer.headers["x-inngest-req-version"] == official["headers"]["x-inngest-req-version"]


@pytest.mark.protocol("register.own")
async def test_the_same_registration() -> None:
    handler = ServeHandler(golden_app(), ServeSettings.of({}, dev=True), "fast_api")
    answer = await handler.handle(Request("PUT", "http://127.0.0.1:8000/api/inngest", {}, {"x-inngest-sync-kind": "in_band"}, b""))
    ours = json.loads(answer.body)
    theirs = GOLDEN["sync"]["in_band"]["answer"]["body"]
    assert theirs.keys() <= ours.keys()
    assert theirs["inspection"].keys() <= ours["inspection"].keys()
    steps = next(f for f in ours["functions"] if f["id"] == "golden-steps")
    official = next(f for f in theirs["functions"] if f["id"] == "golden-steps")
    assert steps["steps"]["step"]["runtime"] == official["steps"]["step"]["runtime"]
    assert (steps["name"], steps["triggers"]) == (official["name"], official["triggers"])


@pytest.mark.protocol("register.own")
async def test_the_same_introspection() -> None:
    handler = ServeHandler(golden_app(), ServeSettings.of({}, dev=True), "fast_api")
    answer = await handler.handle(Request("GET", "http://x/api/inngest", {}, {}, b""))
    assert GOLDEN["sync"]["introspection_dev"]["body"].keys() <= json.loads(answer.body).keys()
