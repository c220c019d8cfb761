"""Opcodes: what an SDK answers that it has done or wants done (protocol section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError


class Op(StrEnum):
    """The kinds of opcode."""

    STEP_RUN = "StepRun"
    STEP = "Step"
    """Of older SDKs: like StepRun, its data stored as it is."""
    STEP_ERROR = "StepError"
    STEP_FAILED = "StepFailed"
    STEP_PLANNED = "StepPlanned"
    SLEEP = "Sleep"
    WAIT_FOR_EVENT = "WaitForEvent"
    WAIT_FOR_SIGNAL = "WaitForSignal"
    INVOKE_FUNCTION = "InvokeFunction"
    AI_GATEWAY = "AIGateway"
    GATEWAY = "Gateway"
    RUN_COMPLETE = "RunComplete"
    SYNC_RUN_COMPLETE = "SyncRunComplete"
    DISCOVERY_REQUEST = "DiscoveryRequest"
    DEFER_ADD = "DeferAdd"
    DEFER_ABORT = "DeferAbort"
    NONE = "None"

    @property
    def lazy(self) -> bool:
        """Whether it only leaves a note: it does not count as a step of the run."""
        return self in _LAZY

    @property
    def checkpointable(self) -> bool:
        """Whether it may be reported while the function goes on."""
        return self in _CHECKPOINTABLE


_LAZY = frozenset({Op.DEFER_ADD, Op.DEFER_ABORT})
_CHECKPOINTABLE = _LAZY | {
    Op.STEP, Op.STEP_RUN, Op.STEP_PLANNED, Op.RUN_COMPLETE, Op.SYNC_RUN_COMPLETE, Op.STEP_FAILED,
}  # fmt: skip
_NULL = msgspec.Raw(b"null")
EXECUTED = frozenset({Op.STEP, Op.STEP_RUN, Op.STEP_ERROR, Op.STEP_FAILED})
"""What a call may say of a step that it executed."""
SETTLED = frozenset({Op.STEP, Op.STEP_RUN})
"""Steps after which a function just goes on."""
RACE = "race"
"""The `opts.parallelMode` of steps each of whose completions is to be reported to the function at once."""


class StepFailure(msgspec.Struct, omit_defaults=True, rename="camel"):
    """The error of a step or function."""

    name: str = "Error"
    message: str = ""
    stack: str | None = None
    data: Any = None
    """Whatever the SDK adds. holdfast's puts the class chain there: `{"chain": [...]}`."""
    no_retry: bool = False
    cause: Any = None
    code: str | None = None

    @classmethod
    def of(cls, value: Any) -> StepFailure:
        """An error as any SDK writes one; what has no such form becomes the message."""
        if not isinstance(value, dict):
            return cls(message=value if isinstance(value, str) else msgspec.json.encode(value).decode())
        data = value.get("data")
        if data is None and isinstance(value.get("chain"), list):
            data = {name: value[name] for name in ("chain", "step") if name in value}  # as holdfast's own server says it
        return cls(
            name=_text(value.get("name")) or "Error",
            message=_text(value.get("message")) or _text(value.get("error")) or "",
            stack=_text(value.get("stack")) or None,
            data=data,
            no_retry=value.get("noRetry") is True,
            cause=value.get("cause"),
            code=_text(value.get("code")) or None,
        )

    @property
    def chain(self) -> tuple[str, ...]:
        """Qualified names of the error's classes, where the SDK said them."""
        found = self.data.get("chain") if isinstance(self.data, dict) else None
        return tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()


class Userland(msgspec.Struct):
    """A step's id as the function wrote it."""

    id: str
    index: int | None = None
    """Which use of the id it is; None for the first."""


class Opcode(msgspec.Struct, omit_defaults=True, rename={"display_name": "displayName"}):
    """One opcode."""

    op: Op
    id: str = ""
    """The step's hash."""
    name: str | None = None
    opts: dict[str, Any] | None = None
    data: msgspec.Raw = _NULL
    error: StepFailure | None = None
    display_name: str | None = None
    timing: Any = None
    userland: Userland | None = None
    metadata: Any = None

    @property
    def title(self) -> str:
        """How the step is shown."""
        return self.display_name or self.name or self.id

    @property
    def race(self) -> bool:
        """Whether its completion is reported without waiting for the steps beside it."""
        return bool(self.option("parallelMode") == RACE)

    def option(self, name: str) -> Any:
        """One of its opts; None where there is none."""
        return None if self.opts is None else self.opts.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """One of its opts that must be text.

        Raises:
            WireError: it is missing without a default, or something else.
        """
        value = self.option(name)
        value = default if value is None else value
        if not isinstance(value, str) or not value:
            raise WireError(f"{self.op} {self.title!r}: opts.{name} must be text, not {value!r:.60}")
        return value


class _Loose(msgspec.Struct):
    """An opcode before its parts are looked at: SDKs leave out, or write null for, what doesn't apply."""

    op: str
    id: str | None = None
    name: str | None = None
    opts: Any = None
    data: msgspec.Raw = _NULL
    error: Any = None
    displayName: str | None = None  # noqa: N815 - the protocol's spelling
    timing: Any = None
    userland: Any = None
    metadata: Any = None


def encode_opcodes(opcodes: Sequence[Opcode]) -> bytes:
    """The body of an answer of status 206."""
    return msgspec.json.encode(opcodes)


def decode_opcodes(body: bytes) -> list[Opcode]:
    """The opcodes of an answer of status 206: an array, or a single object.

    Raises:
        WireError: the body is neither, or an opcode is of no known kind.
    """
    loose = decode(body, _Loose | list[_Loose] | None)
    if loose is None:
        return []
    return [_strict(one) for one in (loose if isinstance(loose, list) else [loose])]


def _strict(loose: _Loose) -> Opcode:
    try:
        op = Op(loose.op)
    except ValueError:
        raise WireError(f"unknown opcode {loose.op!r:.60}") from None
    if loose.opts is not None and not isinstance(loose.opts, dict):
        raise WireError(f"{op} {loose.id!r:.60}: opts must be an object, not {loose.opts!r:.60}")
    return Opcode(
        op, loose.id or "", loose.name, loose.opts, loose.data,
        None if loose.error is None else StepFailure.of(loose.error),
        loose.displayName, loose.timing, _userland(loose.userland), loose.metadata,
    )  # fmt: skip


def _userland(value: Any) -> Userland | None:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return None
    index = value.get("index")
    return Userland(value["id"], index if isinstance(index, int) else None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
