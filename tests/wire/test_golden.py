"""What the official SDKs say on the wire, recorded from them, is understood; and what is written back is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.wire import answers, calls, registering
from holdfast.wire.answers import Outcome
from holdfast.wire.canonical import canonical_json
from holdfast.wire.opcodes import Op, decode_opcodes, encode_opcodes
from holdfast.wire.times import moment_ms

GOLDEN = json.loads((Path(__file__).parent / "golden" / "python_sdk.json").read_text())
CALLS = [(kind, index, call) for kind, found in GOLDEN["calls"].items() for index, call in enumerate(found)]


def read(call: dict[str, Any]) -> answers.Answer:
    answer = call["answer"]
    return answers.read(answer["status"], answer["headers"], canonical_json(answer["body"]), 0)


@pytest.mark.parametrize(("kind", "index", "call"), CALLS, ids=lambda value: "" if isinstance(value, dict) else str(value))
def test_a_call_is_read_and_written_as_the_sdk_took_it(kind: str, index: int, call: dict[str, Any]) -> None:
    if "request" not in call:
        return
    request = calls.decode_call(canonical_json(call["request"]))
    assert json.loads(calls.encode_call(request)) == {**call["request"], "defers": {}}


def test_every_opcode_survives_the_way_through() -> None:
    seen = set()
    for _, _, call in CALLS:
        if call["answer"]["status"] == 206:
            operations = read(call).operations
            seen |= {one.op for one in operations}
            assert decode_opcodes(encode_opcodes(operations)) == operations
    assert seen == {Op.STEP_RUN, Op.STEP_PLANNED, Op.STEP_ERROR, Op.STEP_FAILED, Op.SLEEP, Op.WAIT_FOR_EVENT, Op.INVOKE_FUNCTION}


def test_steps_one_after_the_other() -> None:
    found = [read(call) for call in GOLDEN["calls"]["steps"]]
    one, again, nap, until, wait, send, invoke = [answer.operations[0] for answer in found[:-1]]
    assert (one.op, bytes(one.data), one.userland.index) == (Op.STEP_RUN, b'{"n":1}', None)
    assert (again.userland.id, again.userland.index, again.title) == ("one", 1, "one")
    assert moment_ms(until.option("duration") or until.name, 0) == 1893553445000
    assert moment_ms(nap.option("duration") or nap.name, 0) > 1_700_000_000_000
    assert (wait.text("event", wait.name), wait.text("timeout"), wait.text("if")) == ("a/c", "2d", "event.data.id == async.data.id")
    assert bytes(send.data) == b'["01JABCDEFGHJKMNPQRSTVWXYZ0"]'
    assert (invoke.text("function_id"), invoke.text("timeout"), invoke.option("payload")["data"]) == ("golden-batched", "5m", {"k": 1})
    assert (found[-1].outcome, found[-1].result) == (Outcome.FINISHED, b'[{"n":1},{"n":1},"a/c",["01J"],5]')
    assert all(answer.version == 2 for answer in found)


def test_errors() -> None:
    retried, last, final, plain, plain_final, later, step_later, memo, unknown, *malformed = [read(call) for call in GOLDEN["calls"]["errors"]]
    assert retried.operations[0].error.message == last.operations[0].error.message == "no such order"
    assert "ValueError: no such order" in retried.operations[0].error.stack
    assert [answer.no_retry for answer in (final, plain, plain_final, memo)] == [True, False, True, True]
    assert later.retry_after == step_later.retry_after == 86_400_000  # from 1970, clipped
    assert (unknown.outcome, unknown.error.code) == (Outcome.FAILED, "function_not_found")
    assert all(answer.outcome is Outcome.FAILED for answer in malformed)


def test_a_registration() -> None:
    body = GOLDEN["sync"]["out_of_band"]["register"][0]["body"]
    request = registering.decode_register(canonical_json(body))
    assert (request.app_name, request.sdk, request.deploy_type) == ("golden", body["sdk"], "ping")
    assert request.capabilities == registering.Capabilities("v1", "v1", "v1")
    functions = {function.id: function for function in registering.functions_of(request)}
    everything = functions["golden-everything"]
    assert everything.limits.step[0].scope == "env"
    assert (everything.retry_count, functions["golden-steps"].retry_count, functions["golden-everything-failure"].retry_count) == (2, 4, 0)
    assert (everything.rate_limit.period, everything.throttle.burst, everything.cancel[0].if_) == ("1h", 2, "event.data.id == async.data.id")
    assert functions["golden-batched"].batch_events.max_size == 5
    assert functions["golden-batched"].url.endswith("/api/inngest?fnId=golden-batched&stepId=step")
    written = registering.decode_register(registering.encode_register(request))
    assert written == request


def test_an_in_band_sync() -> None:
    answer = GOLDEN["sync"]["in_band"]["answer"]
    found = registering.decode_in_band(canonical_json(answer["body"]))
    assert (found.app_id, found.inspection.mode, found.inspection.authentication_succeeded, len(found.functions)) == ("golden", "cloud", True, 12)


def test_an_introspection() -> None:
    found = msgspec.convert(GOLDEN["sync"]["introspection_dev"]["body"], registering.Introspection)
    assert (found.function_count, found.mode, found.has_signing_key) == (11, "dev", False)


# -- TypeScript ------------------------------------------------------------------------------------------------------

TYPESCRIPT = json.loads((Path(__file__).parent / "golden" / "typescript_sdk.json").read_text())


def operations(kind: str, index: int) -> list[Any]:
    return read(TYPESCRIPT["calls"][kind][index]).operations


def test_typescript_opcodes_survive_the_way_through() -> None:
    seen = set()
    for found in TYPESCRIPT["calls"].values():
        for call in found:
            if call["answer"]["status"] == 206:
                ops = read(call).operations
                seen |= {one.op for one in ops}
                assert decode_opcodes(encode_opcodes(ops)) == ops
    assert {Op.WAIT_FOR_SIGNAL, Op.GATEWAY, Op.STEP_FAILED, Op.STEP_ERROR} <= seen


def test_typescript_steps() -> None:
    nap, until, wait, signal, send, invoke, fetch = [operations("steps", index)[0] for index in range(2, 9)]
    assert moment_ms(nap.option("duration") or nap.name, 0) == 5_400_000
    assert moment_ms(until.option("duration") or until.name, 0) == 1893553445000
    assert (wait.text("event", wait.name), wait.text("timeout"), wait.text("if")) == ("a/c", "2d", "event.data.id == async.data.id")
    assert (signal.text("signal"), signal.text("conflict"), signal.text("timeout")) == ("s1", "replace", "1h")
    assert (send.title, send.option("type"), bytes(send.data)) == ("send", "step.sendEvent", b'{"ids":["01JABCDEFGHJKMNPQRSTVWXYZ0"]}')
    assert (invoke.text("function_id"), invoke.text("timeout"), invoke.option("payload")) == ("golden-batched", "5m", {"data": {"k": 1}})
    assert (fetch.text("url"), fetch.text("method"), fetch.title) == ("https://example.org/x", "GET", "step.fetch: example.org")


def test_typescript_errors() -> None:
    retried, last, final, later, plain, plain_final, plain_later, memo, unknown = [read(call) for call in TYPESCRIPT["calls"]["errors"]]
    assert [one.operations[0].op for one in (retried, last, final, later)] == [Op.STEP_ERROR, Op.STEP_FAILED, Op.STEP_FAILED, Op.STEP_ERROR]
    assert (retried.operations[0].error.name, last.no_retry, later.retry_after, plain_later.retry_after) == ("TypeError", True, 90_000, 90_000)
    assert [answer.no_retry for answer in (plain, plain_final, memo, unknown)] == [False, True, True, False]
    assert plain.error.message == "outside steps"


def test_a_typescript_registration() -> None:
    body = TYPESCRIPT["sync"]["out_of_band"]["register"][0]["body"]
    functions = {function.id: function for function in registering.functions_of(registering.decode_register(canonical_json(body)))}
    everything = functions["golden-everything"]
    assert (everything.singleton.mode, everything.timeouts.start, everything.limits.step[0].key) == ("skip", "1m", "event.data.user")
    assert functions["golden-debounced"].debounce.timeout == "1m"
    assert functions["golden-everything-failure"].retry_count == 1
    assert TYPESCRIPT["sync"]["introspection_dev"]["body"]["function_count"] == 14
