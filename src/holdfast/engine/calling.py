"""What a call to an application says (protocol section 2.1)."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.base.codec import decode_json
from holdfast.base.ids import ulid_text
from holdfast.core.overrides import input_of
from holdfast.core.progress import progress_of
from holdfast.core.rows import EventRow, StepKind, StepRow, StepState
from holdfast.engine.host import Host
from holdfast.engine.operations import RAW
from holdfast.engine.remote_run import RemoteRun
from holdfast.wire import headers as h
from holdfast.wire.calls import DISCOVERY, CallContext, CallEvent, CallRequest, Stack, encode_call
from holdfast.wire.canonical import canonicalise
from holdfast.wire.endpoints import body_bytes, decode_request
from holdfast.wire.errors import WireError
from holdfast.wire.signatures import sign

MAX_STATE_BYTES = 4 * 1024 * 1024 - 1024
"""More than this in results is fetched by the SDK instead of being sent."""
MAX_BODY_BYTES = 4 * 1024 * 1024
ENVIRONMENT = "local"
_BARE = frozenset({StepKind.SLEEP, StepKind.WAIT_EVENT})
ACCOUNT_ID = "00000000-0000-4000-a000-000000000000"


def call_body(remote: RemoteRun) -> bytes:
    """The body of a call, in canonical form."""
    settled = sorted(
        (step for step in remote.steps if step.state != StepState.PENDING), key=lambda step: step.seq
    )
    memos = {step.key: memo(step) for step in settled}
    memos |= {step.key: given for step in remote.steps if (given := _edited(step)) is not None}
    detached = sum(len(bytes(one)) for one in memos.values()) > MAX_STATE_BYTES
    body = _encode(remote, settled, {} if detached else memos, detached=detached, events=True)
    if len(body) > MAX_BODY_BYTES:
        body = _encode(remote, settled, {}, detached=True, events=False)
    return body


def _encode(
    remote: RemoteRun, settled: list[StepRow], memos: dict[str, msgspec.Raw], *, detached: bool, events: bool
) -> bytes:
    run, item, fn = remote.run, remote.leased.item, remote.fn
    progress = progress_of(run)
    assert remote.event is not None
    all_events = [call_event(event) for event in remote.batch or [remote.event]]
    job = item.id.hex()
    context = CallContext(
        run_id=ulid_text(run.id),
        fn_id=fn.uuid,
        env=ENVIRONMENT,
        step_id=DISCOVERY,
        attempt=item.attempt,
        max_attempts=fn.retries + 1,
        stack=Stack([step.key for step in settled], len(settled)),
        qi_id=job,
        request_id=request_id(remote),
        job_id=job,
        disable_immediate_execution=progress.planning,
        use_api=detached,
    )
    event = all_events[0]
    return encode_call(
        CallRequest(context, event, all_events if events else [], memos, {}, progress.version, detached)
    )


def call_event(event: EventRow) -> CallEvent:
    """An event as functions receive it: with `user` always there."""
    meta: dict[str, Any] = decode_json(event.meta) if event.meta else {}
    return CallEvent(
        event.name,
        msgspec.Raw(event.data),
        event.key or ulid_text(event.id),
        event.ts,
        msgspec.Raw(msgspec.json.encode(meta.get("user") or {})),
        meta.get("v"),
        msgspec.Raw(msgspec.json.encode(meta["meta"])) if meta.get("meta") else msgspec.UNSET,  # type: ignore[arg-type]
    )


def memo(step: StepRow) -> msgspec.Raw:
    """What a call says of a settled step (protocol section 2.3)."""
    data = step.data or b"null"
    if step.state == StepState.FAILED:
        return msgspec.Raw(b'{"error":' + (step.error or b"{}") + b"}")
    if step.kind == StepKind.WAIT_EVENT and data != b"null":
        received = decode_json(data)
        return msgspec.Raw(msgspec.json.encode({"user": {}, **received}))
    if step.kind in _BARE or step.type == RAW or (step.kind == StepKind.WAIT_SIGNAL and data == b"null"):
        return msgspec.Raw(data)
    return msgspec.Raw(b'{"data":' + data + b"}")


def _edited(step: StepRow) -> msgspec.Raw | None:
    """What a step is to be run with instead of its own arguments, after a rerun with edited input."""
    given = input_of(step) if step.state == StepState.PENDING else None
    return None if given is None else msgspec.Raw(b'{"input":' + given + b"}")


def request_id(remote: RemoteRun) -> str:
    """The id of one call: of its item and lease."""
    item = remote.leased.item
    return f"{item.id.hex()}-{item.owner}-{item.epoch}"


def call_headers(host: Host, remote: RemoteRun, body: bytes, *, signing_key: str | None, kind: str) -> dict[str, str]:
    """The headers of a call."""
    headers = {"Content-Type": "application/json", **_about(remote, kind), h.STEP_ID: remote.target}
    if signing_key:
        headers[h.SIGNATURE] = sign(body, signing_key, host.clock.now())
    return headers


def endpoint_call(
    host: Host, remote: RemoteRun, *, signing_key: str | None, kind: str
) -> tuple[str, str, bytes, dict[str, str]]:
    """A call to a durable endpoint: the request that began the run once more (protocol section 1.6).

    Returns:
        Method, address, body and headers.
    """
    assert remote.event is not None
    asked = decode_request(remote.event.data)
    body = body_bytes(asked.body, encoded=bool(remote.fn.document["driver"].get("base64")))
    headers = _about(remote, kind)
    if asked.content_type:
        headers["Content-Type"] = asked.content_type
    if remote.target != DISCOVERY:
        headers[h.STEP_ID] = remote.target
    if progress_of(remote.run).planning:
        headers[h.FORCE_STEP_PLAN] = "true"
    # SDKs tell our calls from those of others by its being there, signed or not
    headers[h.SIGNATURE] = sign(_signed_part(asked.method, body), signing_key, host.clock.now()) if signing_key else ""
    return asked.method, asked.url, body, headers


def _signed_part(method: str, body: bytes) -> bytes:
    """What SDKs check the signature of: the body in canonical form, of methods that have one."""
    if method not in {"POST", "PUT"}:
        return b""
    try:
        return canonicalise(body)
    except WireError:
        return body


def _about(remote: RemoteRun, kind: str) -> dict[str, str]:
    """What every call says in its headers."""
    item = remote.leased.item
    return {
        h.ACCOUNT_ID: ACCOUNT_ID,
        h.RUN_ID: ulid_text(remote.run.id),
        h.REQUEST_ID: request_id(remote),
        h.GENERATION_ID: str(item.epoch),
        h.JOB_ID: item.id.hex(),
        h.REQUEST_VERSION: str(progress_of(remote.run).version),
        h.SERVER_KIND: kind,
        h.SHOWS_LINES: "true",
    }
