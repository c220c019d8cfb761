"""Errors as they are recorded: bounded, JSON, and with the class chain that `StepError.matches` compares."""

from __future__ import annotations

import concurrent.futures
import hashlib
import re
import traceback
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from holdfast.base.clock import to_ms
from holdfast.base.errors import (
    InvokeCancelledError,
    InvokeTimeoutError,
    NonRetriableError,
    RetryAfterError,
    SignalConflictError,
    StepError,
    StepUsageError,
    qualified_name,
)
from holdfast.base.limits import MAX_RETRY_AFTER_MS, MIN_RETRY_AFTER_MS
from holdfast.base.masks import hide, hide_credentials
from holdfast.base.retry import RetryPolicy, transient_delay

_KINDS = {qualified_name(cls): cls for cls in (InvokeTimeoutError, InvokeCancelledError, SignalConflictError)}
MAX_MESSAGE = 10_000
MAX_STACK = 40_000
_PLUMBING = (str(Path(__file__).parents[1]), str(Path(concurrent.futures.__file__).parent))
_NUMBERS = re.compile(r"\d+|0x[0-9a-f]+|'[^']*'|\"[^\"]*\"", re.IGNORECASE)


def record(error: BaseException, hidden: frozenset[str] = frozenset()) -> bytes:
    """JSON {name, message, stack, chain} of an error; of a StepError, that of the step with the step's id.

    Args:
        error: The error.
        hidden: Marked values of the run, which its record is not to show.
    """
    chain = [qualified_name(cls) for cls in type(error).__mro__ if cls not in {object, BaseException}]
    body: dict[str, Any] = {
        "name": type(error).__name__,
        "message": message_of(error),
        "stack": stack_of(error),
        "chain": chain,
    }
    if isinstance(error, StepError):
        body |= {
            "name": error.name,
            "message": _cut(error.message, MAX_MESSAGE),
            "chain": list(error.chain),
            "stack": error.stack or body["stack"],
            "step": error.step_id,
        }
    if hidden:
        body |= {"message": hide(body["message"], hidden), "stack": hide(body["stack"], hidden)}
    return msgspec.json.encode(body)


def message_of(error: BaseException) -> str:
    """The error's text, whatever its `__str__` does."""
    try:
        text = str(error)
        text.encode()
    except Exception as broken:  # a message that can't be made is reported as such
        text = f"<the message of this {type(error).__name__} could not be made: {type(broken).__name__}>"
    return hide_credentials(_cut(text, MAX_MESSAGE))


def stack_of(error: BaseException) -> str:
    """The traceback with causes, from the user's code on, bounded."""
    try:
        lines = traceback.TracebackException(
            type(error), error, _from_user_code(error), limit=-30, compact=True
        ).format()
        text = "".join(_cut(line, MAX_MESSAGE) for line in lines)
        text.encode()
    except Exception:  # the same broken __str__ as in message_of
        text = f"{type(error).__name__}: {message_of(error)}"
    text = hide_credentials(text)
    return text if len(text) <= MAX_STACK else text[: MAX_STACK // 2] + "\n...\n" + text[-MAX_STACK // 2 :]


def _from_user_code(error: BaseException) -> TracebackType | None:
    """The traceback without the frames of holdfast and its threads that it begins with; all of it, where there are no others."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PLUMBING):
        frames = frames.tb_next
    return frames or error.__traceback__


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def fingerprint(error: bytes) -> str:
    """The same for errors of the same kind: name and message without numbers and quoted parts."""
    decoded = msgspec.json.decode(error)
    kind = _NUMBERS.sub("#", f"{decoded.get('name')}: {str(decoded.get('message', ''))[:300]}")
    return hashlib.sha256(kind.encode(errors="replace")).hexdigest()[:16]


def step_error(key: str, raw: bytes) -> StepError:
    """The error a function sees for a recorded failure."""
    body = msgspec.json.decode(raw)
    chain = tuple(body.get("chain", ()))
    # with a step in it, it is what another run failed by: the caller's own step was not cut short or refused
    cls = _KINDS.get(chain[0], StepError) if chain and "step" not in body else StepError
    return cls(
        key,
        str(body.get("name", "Error")),
        str(body.get("message", "")),
        chain=chain,
        stack=body.get("stack"),
        data=body.get("data"),
    )


def is_final(error: BaseException) -> bool:
    """Whether retrying can't help: said so, or a step's retries are used up, or the code itself is wrong."""
    return isinstance(error, NonRetriableError | StepError | StepUsageError)


def next_delay_ms(error: BaseException, policy: RetryPolicy, attempt: int, now: int) -> int | None:
    """After how long a failed attempt is followed by another; None when it is the last, however many are left.

    A RetryAfterError has its own way. Otherwise the policy decides, and one that is for transient errors lets no other
    be tried again.

    Args:
        error: What it raised.
        policy: The delays, and what is tried again.
        attempt: The attempt, from 0.
        now: Milliseconds since 1970.
    """
    if is_final(error):
        return None
    asked = retry_after_ms(error, now)
    if asked is not None:
        return asked
    if not policy.transient_only:
        return policy.delay_ms(attempt)
    again = transient_delay(error, policy, attempt, now) if isinstance(error, Exception) else None
    return None if again is None else again[1]


def retry_after_ms(error: BaseException, now: int) -> int | None:
    """The delay an error asks for, clipped to 1 s - 24 h; None when it asks for none."""
    if not isinstance(error, RetryAfterError):
        return None
    wanted = error.retry_after
    if isinstance(wanted, datetime):
        ms = to_ms(wanted) - now
    elif isinstance(wanted, timedelta):
        ms = round(wanted.total_seconds() * 1000)
    else:
        ms = round(wanted * 1000)
    return max(MIN_RETRY_AFTER_MS, min(ms, MAX_RETRY_AFTER_MS))
