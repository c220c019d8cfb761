"""Call requests: a server asks an SDK to move a run forward (protocol section 2.1)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from holdfast.wire import headers as h
from holdfast.wire.canonical import canonicalise, decode
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import StepFailure

DISCOVERY = "step"
"""The `stepId` of a call that may run whatever it finds next. Any other is the hash of the one step to run."""
FIRST_CALL = -1
"""The `version` of a run's first call, when it isn't known yet what its SDK speaks."""

_EMPTY = msgspec.Raw(b"{}")


class CallEvent(msgspec.Struct, omit_defaults=True):
    """An event as functions receive it."""

    name: str
    data: msgspec.Raw = _EMPTY
    id: str = ""
    ts: int = 0
    user: msgspec.Raw = msgspec.UNSET  # type: ignore[assignment]
    v: str | None = None
    meta: msgspec.Raw = msgspec.UNSET  # type: ignore[assignment]


class Stack(msgspec.Struct):
    """The run's finished steps."""

    stack: list[str] | None = None
    """Hashes, in the order in which they finished."""
    current: int = 0
    """How many of them there were when this call was decided on."""


class CallContext(msgspec.Struct, omit_defaults=True):
    """What a call says about its run."""

    run_id: str
    fn_id: str = ""
    env: str = ""
    step_id: str = DISCOVERY
    attempt: int = 0
    """Failed tries before this one, of the step that is targeted or else of the function."""
    max_attempts: int | None = None
    stack: Stack | None = None
    qi_id: str = ""
    request_id: str | None = None
    job_id: str | None = None
    disable_immediate_execution: bool = False
    """Whether steps may be planned only, because others are under way."""
    use_api: bool = False


class CallRequest(msgspec.Struct, omit_defaults=True):
    """The body of a call."""

    ctx: CallContext
    event: CallEvent | None = None
    events: list[CallEvent] | None = None
    steps: dict[str, msgspec.Raw] | None = None
    """Step hash -> memo."""
    defers: dict[str, Any] | None = None
    version: int = FIRST_CALL
    use_api: bool = False
    """Whether steps (and events) were left out for their size, and are to be fetched."""

    @property
    def detached(self) -> bool:
        """Whether steps and events are to be fetched with `use_api`."""
        return self.use_api or self.ctx.use_api


class Memo(msgspec.Struct):
    """What a call says about one step."""

    data: msgspec.Raw | None = None
    """JSON of its result, if it has one."""
    error: StepFailure | None = None
    """Its failure, if it failed for good."""
    input: msgspec.Raw | None = None
    """What it is to be run with instead of its own arguments: it is not finished."""


class _Wrapped(msgspec.Struct):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Any = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def decode_call(body: bytes) -> CallRequest:
    """Read a call.

    Raises:
        WireError: it is not one.
    """
    call: CallRequest = decode(body, CallRequest)
    if not call.ctx.run_id:
        raise WireError("ctx.run_id is empty")
    if call.event is None and not call.events and not call.detached:
        raise WireError("the call has no event")
    return call


def encode_call(call: CallRequest) -> bytes:
    """Write a call in canonical form, ready to be signed. Fields that SDKs insist on are always there."""
    ctx = call.ctx
    document = {
        "event": call.event,
        "events": call.events or [],
        "steps": call.steps or {},
        "defers": call.defers or {},
        "ctx": {
            **msgspec.to_builtins(ctx),
            "fn_id": ctx.fn_id, "env": ctx.env, "step_id": ctx.step_id, "attempt": ctx.attempt, "qi_id": ctx.qi_id,
            "max_attempts": ctx.max_attempts, "stack": ctx.stack or Stack([]), "use_api": call.detached,
            "disable_immediate_execution": ctx.disable_immediate_execution,
        },
        "version": call.version,
        "use_api": call.detached,
    }  # fmt: skip
    return canonicalise(msgspec.json.encode(document))


def call_url(url: str, target: str) -> str:
    """The address of a call: the function's own, with the `stepId` that it is for.

    Args:
        url: Where the function is called, as it was registered.
        target: `DISCOVERY`, or the hash of the step to execute.
    """
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "stepId"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("stepId", target)])))


def call_headers(call: CallRequest, target: str, *, server_kind: str, generation: int) -> dict[str, str]:
    """The headers that go with a call; the signature is added by who has the key.

    Args:
        call: The call.
        target: As for `call_url`.
        server_kind: `dev` or `cloud`.
        generation: How often the queue item has been dispatched, from 1.
    """
    ctx = call.ctx
    headers = {
        "content-type": "application/json",
        h.RUN_ID: ctx.run_id,
        h.STEP_ID: target,
        h.SERVER_KIND: server_kind,
        h.GENERATION_ID: str(generation),
        h.REQUEST_VERSION: str(call.version),
        h.REQUEST_ID: ctx.request_id,
        h.JOB_ID: ctx.job_id,
    }
    return {name: value for name, value in headers.items() if value}


def wrapped_memo(raw: msgspec.Raw) -> Memo:
    """The memo of a step with a result of its own: `{"data": ...}`, `{"error": ...}`, `{"input": ...}`, or the result bare.

    Raises:
        WireError: it is not JSON.
    """
    inner = bytes(raw)
    if not inner.lstrip().startswith(b"{"):
        return Memo(raw)
    found: _Wrapped = decode(inner, _Wrapped)
    if found.error is not msgspec.UNSET and found.error is not None:
        return Memo(error=StepFailure.of(found.error))
    if found.data is not msgspec.UNSET:
        return Memo(found.data)
    if found.input is not msgspec.UNSET:
        return Memo(input=found.input)
    return Memo(raw)


def bare_memo(raw: msgspec.Raw) -> Memo:
    """The memo of a sleep or of a wait for an event: null, or the event as it is."""
    return Memo(raw)
