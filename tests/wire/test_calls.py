"""Calls that are malformed are refused with a reason, never with anything else; memos are told apart."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.calls import CallContext, CallEvent, CallRequest, call_headers, call_url, decode_call, encode_call, wrapped_memo
from holdfast.wire.checkpoints import AsyncCheckpoint, decode_checkpoint, encode_checkpoint
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import Op, Opcode

EVENT = {"name": "a/b", "data": {}, "id": "e", "ts": 1, "user": {}}


def test_go_writes_null_for_what_is_empty() -> None:
    call = decode_call(json.dumps({"ctx": {"run_id": "r", "stack": {"stack": None, "current": 0}}, "event": EVENT, "events": None, "steps": None}).encode())
    assert (call.events, call.steps, call.ctx.stack.stack, call.version) == (None, None, None, -1)


def test_a_call_says_everything_that_sdks_insist_on() -> None:
    written = json.loads(encode_call(CallRequest(CallContext("r"), CallEvent("a/b", id="e", ts=1))))
    assert {"event", "events", "steps", "ctx", "version", "use_api"} <= written.keys()
    assert {"run_id", "fn_id", "step_id", "attempt", "stack", "qi_id", "disable_immediate_execution", "use_api", "max_attempts"} <= written["ctx"].keys()
    assert written["ctx"]["stack"] == {"stack": [], "current": 0}


@pytest.mark.parametrize("body", ["", "null", "[]", "{}", '{"ctx":{}}', '{"ctx":{"run_id":""},"event":{"name":"a"}}', '{"ctx":{"run_id":"r"}}', '{"ctx":{"run_id":"r"},"event":{}}', '{"ctx":{"run_id":"r","attempt":"x"},"event":{"name":"a"}}'])
def test_no_call(body: str) -> None:
    with pytest.raises(WireError):
        decode_call(body.encode())


def test_a_call_whose_state_is_to_be_fetched_needs_no_events() -> None:
    assert decode_call(b'{"ctx":{"run_id":"r","use_api":true},"events":[]}').detached


@pytest.mark.parametrize(
    ("raw", "data", "error", "given"),
    [
        ("null", b"null", None, None), ("5", b"5", None, None), ('{"data":{"a":1}}', b'{"a":1}', None, None), ('{"data":null}', b"null", None, None),
        ('{"error":{"name":"E","message":"m"}}', None, "m", None), ('{"data":1,"error":null}', b"1", None, None), ('{"error":"text"}', None, "text", None),
        ('{"input":[1]}', None, None, b"[1]"), ('{"a":1}', b'{"a":1}', None, None), ("[1]", b"[1]", None, None),
    ],
)
def test_memos(raw: str, data: bytes | None, error: str | None, given: bytes | None) -> None:
    memo = wrapped_memo(msgspec.Raw(raw.encode()))
    assert (None if memo.data is None else bytes(memo.data)) == data
    assert (memo.error.message if memo.error else None) == error
    assert (bytes(memo.input) if memo.input is not None else None) == given


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["ctx", "event", "run_id", "name", "steps", "stack", "attempt"]), x, max_size=4)))
def test_whatever_comes_is_a_call_or_a_wire_error(value: object) -> None:
    try:
        decode_call(json.dumps(value).encode())
    except WireError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("http://x/api/inngest?fnId=a-f&stepId=step", "http://x/api/inngest?fnId=a-f&stepId=abc"), ("http://x/api?fnId=a-f", "http://x/api?fnId=a-f&stepId=abc"),
        ("https://x:1/p/?stepId=step&x=%20y&fnId=a", "https://x:1/p/?x=+y&fnId=a&stepId=abc"),
    ],
)
def test_the_address_of_a_call(url: str, called: str) -> None:
    assert call_url(url, "abc") == called


def test_the_headers_of_a_call() -> None:
    call = CallRequest(CallContext("r", request_id="q", job_id="j"), CallEvent("a/b"))
    assert call_headers(call, "step", server_kind="dev", generation=2) == {
        "content-type": "application/json", "x-run-id": "r", "x-inngest-step-id": "step", "x-inngest-server-kind": "dev",
        "x-inngest-generation-id": "2", "x-inngest-req-version": "-1", "x-request-id": "q", "x-inngest-job-id": "j",
    }


def test_a_checkpoint() -> None:
    report = AsyncCheckpoint("r", [Opcode(Op.STEP_RUN, "a" * 40, "a", data=msgspec.Raw(b"1"))], "f", "q", "x", 3, 5, 6)
    assert decode_checkpoint(encode_checkpoint(report)) == report
    # the TypeScript SDK's generation is text
    assert decode_checkpoint(b'{"run_id":"r","steps":[],"generation_id":"4","qi_id":null}').generation_id == 4
    for body in (b"[]", b'{"run_id":"r","steps":[{"op":"Sleep","id":"a","name":"1h"}]}', b'{"run_id":"r","steps":[{"op":"Nonsense"}]}'):
        with pytest.raises(WireError):
            decode_checkpoint(body)
