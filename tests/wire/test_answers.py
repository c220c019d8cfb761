"""What responses mean: each class of the protocol, and everything that only looks like one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire import answers
from holdfast.wire.answers import Outcome
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import Op, Opcode, StepFailure, Userland, decode_opcodes

SDK = {"x-inngest-sdk": "inngest-js:v4.18.0", "x-inngest-req-version": "2"}


def read(status: int, body: bytes | str, **headers: str) -> answers.Answer:
    raw = body if isinstance(body, bytes) else body.encode()
    return answers.read(status, {**SDK, **{name.replace("_", "-"): value for name, value in headers.items()}}, raw, 0)


def test_what_is_written_is_read_back() -> None:
    opcode = Opcode(Op.STEP_ERROR, "a" * 40, "n", {"x": 1}, error=StepFailure("E", "m", "s", {"chain": ["E"]}), display_name="d", userland=Userland("n", 2))
    written = answers.operations([opcode], retry_after=1500)
    found = answers.read(written.status, {**SDK, **written.headers}, written.body, 0)
    assert (found.operations, found.retry_after, found.no_retry) == ([opcode], 2000, False)
    written = answers.failed(StepFailure("E", "m"), no_retry=True, retry_after=5)
    found = answers.read(written.status, {**SDK, **written.headers}, written.body, 0)
    assert (found.outcome, found.error.name, found.no_retry, found.retry_after) == (Outcome.FAILED, "E", True, None)
    written = answers.finished(b'{"a":1}')
    assert answers.read(written.status, SDK, written.body, 0).result == b'{"a":1}'


@pytest.mark.parametrize("body", ["null", "[]", ""])
def test_no_opcodes_ask_for_another_discovery(body: str) -> None:
    if body:
        assert read(206, body).operations == []
    else:
        assert read(206, body).outcome is Outcome.FAILED


def test_a_single_opcode_needs_no_array() -> None:
    assert read(206, '{"op":"Sleep","id":"x","name":"1h","opts":null,"data":null,"error":null}').operations[0].op is Op.SLEEP


@pytest.mark.protocol("values.opcodes")
def test_an_unknown_opcode_fails_the_whole_answer_and_may_be_retried() -> None:
    found = read(206, '[{"op":"StepRun","id":"a"},{"op":"StepNotFound","id":"b"}]')
    assert (found.outcome, found.no_retry) == (Outcome.FAILED, False)
    assert "error reading generator opcode response: unknown opcode 'StepNotFound'" in found.error.message
    with pytest.raises(WireError, match="StepNotFound"):
        decode_opcodes(b'[{"op":"StepNotFound"}]')


@pytest.mark.protocol("call.finished")
@pytest.mark.parametrize(("body", "result"), [("null", b"null"), ("", b"null"), ('"x"', b'"x"'), ("plain text", b'"plain text"')])
def test_finished(body: str, result: bytes) -> None:
    assert read(200, body).result == result


@pytest.mark.protocol("call.failed")
def test_failures_of_a_function() -> None:
    found = read(500, '{"name":"ValueError","message":"no","stack":"s","code":"unknown"}', retry_after="90")
    assert (found.error.name, found.error.message, found.error.stack, found.no_retry, found.retry_after) == ("ValueError", "no", "s", False, 90_000)
    assert json.loads(found.output)["code"] == "unknown"
    assert read(400, "{}", x_inngest_no_retry="true").no_retry
    assert read(500, "boom").error.message == "boom"
    assert read(500, '["a"]').error.message == '["a"]'


@pytest.mark.protocol("call.failed")
@pytest.mark.parametrize(
    ("sdk", "status", "final"),
    [("inngest-js:v1.10.0", 400, True), ("inngest-js:v1.10.1", 400, False), ("inngest-js:v2.4.0", 404, True), ("inngest-js:v3.0.0", 400, False), ("inngest-js:v1.9.0", 500, False), ("inngest-py:v0.5.19", 400, False), ("js", 400, False)],
)
def test_a_4xx_is_retried_but_for_old_javascript(sdk: str, status: int, final: bool) -> None:
    assert read(status, "{}", x_inngest_sdk=sdk).no_retry is final


@pytest.mark.protocol("call.strange")
def test_what_is_no_sdk() -> None:
    found = answers.read(502, {}, b"<html>", 0)
    assert json.loads(found.output) == {"error": {
        "error": "Your server returned HTTP 502 before the SDK responded.", "name": "Server returned a fatal error",
        "message": "Your server returned HTTP 502 before the SDK responded.", "stack": "<html>",
    }}
    found = answers.read(200, {}, b'{"ok":true}', 0)
    assert (found.error.name, found.error.message, found.output) == ("not_sdk", "The response did not come from an Inngest SDK", b'{"ok":true}')
    assert (found.outcome, found.no_retry) == (Outcome.FAILED, False)


@pytest.mark.protocol("call.too-large")
def test_too_large() -> None:
    found = read(200, b'"' + b"x" * (8 * 1024 * 1024) + b'"')
    assert json.loads(found.output)["error"] == {
        "error": "output_too_large: Your function's response body exceeds the maximum size limit", "name": "output_too_large",
        "message": "Your function's response body exceeds the maximum size limit",
    }


@pytest.mark.protocol("call.finished")
def test_streamed() -> None:
    assert read(201, '   \n {"status":200,"headers":{},"body":"{\\"a\\":1}"}').result == b'{"a":1}'
    assert read(201, '{"status":200,"headers":{},"body":{"a":1}}').result == b'{"a":1}'
    found = read(201, ' {"status":206,"headers":{"X-Inngest-No-Retry":"true"},"body":[{"op":"StepRun","id":"a","data":1}]}')
    assert (found.operations[0].op, found.no_retry) == (Op.STEP_RUN, True)
    assert "reset the connection" in read(201, "    ").error.message
    assert read(201, '{"status":201,"body":{"status":201}}').outcome is Outcome.FAILED


@given(st.integers(100, 599), st.dictionaries(st.sampled_from([*SDK, "x-inngest-no-retry", "retry-after"]), st.text(max_size=12)), st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_nothing_makes_it_raise(status: int, headers: dict[str, str], body: bytes) -> None:
    found = answers.read(status, headers, body, 0)
    assert found.outcome is not Outcome.FAILED or found.error is not None
    json.loads(found.output)
