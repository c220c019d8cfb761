"""From what an application reported to what is to be recorded and begun (protocol section 2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.base.ids import derived_id, ulid_text
from holdfast.base.limits import MAX_INVOKE_MS, MAX_WAIT_MS
from holdfast.base.masks import hide_credentials
from holdfast.core.expressions import compile_expression, compiler_said
from holdfast.core.ingest import Incoming, event_json, wait_lookup
from holdfast.core.matching import same_field
from holdfast.core.remote import TIMED_KINDS, Operation
from holdfast.core.rows import AttemptRow, EventRow, ItemRow, RunRow, StepKind, StepRow, StepState, WaitRow
from holdfast.core.signals import signal_lookup
from holdfast.core.waiting import CHILD_LOOKUP
from holdfast.engine.host import Host
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import Op, Opcode, StepFailure
from holdfast.wire.times import moment_ms

_HASH_LENGTH = 40
RAW = "raw"
"""The type of a result that is its own memo, without `{"data": ...}` around it."""


class RunFailure(Exception):  # noqa: N818 - not an error of this program: what the run fails with
    """The run fails for good, with this output (protocol section 2.6)."""

    def __init__(self, name: str, message: str, output: dict[str, Any]) -> None:
        super().__init__(message)
        self.name = name
        self.message = message
        self.output = output


class Translator:
    """Works out the operations of one answer.

    Args:
        host: The node.
        fn: The function that was called.
        run: Its run.
        item: The item the call was for.
        event: The run's event.
        began: When the call was made.
        no_retry: Whether the answer says that retrying can't help.
        retry_after: The delay it asks for, in ms.
    """

    def __init__(
        self,
        host: Host,
        fn: RemoteFunction,
        run: RunRow,
        item: ItemRow,
        event: EventRow,
        *,
        began: int,
        no_retry: bool,
        retry_after: int | None,
    ) -> None:
        self._host = host
        self._fn = fn
        self._run = run
        self._item = item
        self._event = event
        self._began = began
        self._now = host.clock.now()
        self._no_retry = no_retry
        self._retry_after = retry_after

    def translate(self, opcode: Opcode) -> Operation | None:
        """One operation; None for what only leaves a note.

        Raises:
            WireError: it can't be understood.
            RunFailure: the run can't go on with it.
        """
        handler = _HANDLERS.get(opcode.op)
        if handler is None:
            return None
        if len(opcode.id) != _HASH_LENGTH or set(opcode.id) - set("0123456789abcdef"):
            raise WireError(f"{opcode.op} has the id {opcode.id!r:.60}; a step's id is 40 hexadecimal digits")
        operation: Operation = handler(self, opcode)
        operation.racing = opcode.race
        return operation

    # -- executed by the application -----------------------------------------------------------------------------------

    def _done(self, opcode: Opcode) -> Operation:
        step = self._step(opcode, StepState.DONE, StepKind.RUN, data=bytes(opcode.data) or b"null")
        if opcode.op is Op.STEP:
            step.type = RAW
        return Operation(step)

    def _error(self, opcode: Opcode) -> Operation:
        failure = opcode.error or StepFailure(message="the step failed without saying why")
        error = error_json(failure)
        attempt = self._item.attempt
        final = opcode.op is Op.STEP_FAILED or self._no_retry or failure.no_retry or attempt >= self._fn.retries
        due = None if final else self._now + self._delay(attempt)
        failed = AttemptRow(self._run.id, opcode.id, attempt, self._began, self._now, due, error)
        if final:
            return Operation(self._step(opcode, StepState.FAILED, StepKind.RUN, error=error), attempt=failed)
        step = self._step(opcode, StepState.PENDING, StepKind.RUN, due=due)
        step.attempt = attempt + 1
        return Operation(step, attempt=failed)

    def _delay(self, attempt: int) -> int:
        if self._retry_after is not None:
            return self._retry_after
        return self._host.retry_delay_ms(self._fn.backoff, attempt)

    def _planned(self, opcode: Opcode) -> Operation:
        return Operation(self._step(opcode, StepState.PENDING, StepKind.RUN))

    def _request(self, opcode: Opcode) -> Operation:
        kind = StepKind.AI if opcode.op is Op.AI_GATEWAY else StepKind.FETCH
        return Operation(self._step(opcode, StepState.PENDING, kind, data=msgspec.json.encode(opcode.opts or {})))

    # -- waited for ------------------------------------------------------------------------------------------------------

    def _sleep(self, opcode: Opcode) -> Operation:
        text = opcode.option("duration") or opcode.name
        # SDKs write in seconds what people write in milliseconds: less than one is nothing at all
        due = self._now if text == "" else self._moment(text, opcode)
        data = msgspec.json.encode({"until": due})
        return Operation(self._step(opcode, StepState.PENDING, StepKind.SLEEP, due=due, data=data))

    def _wait(self, opcode: Opcode) -> Operation:
        name = opcode.text("event", opcode.name)
        expires = self._moment(opcode.option("timeout"), opcode)
        expression = opcode.option("if")
        lookup, context = name, None
        if expression is not None and not isinstance(expression, str):
            raise WireError(f"{opcode.op} {opcode.title!r}: opts.if must be text, not {expression!r:.60}")
        if expression:
            _check_expression(expression)
            same = same_field(expression)
            value = self._at(same.left) if same is not None else None
            if same is not None and (value is None or isinstance(value, str | int | float | bool)):
                never = same.present and value is None
                lookup, expression = wait_lookup(name, same.right, value), "false" if never else None
            elif "event." in expression:
                context = event_json(self._event)
        self._host.store.expect(lookup)
        described = {"event": name, "where": {}, "if": opcode.option("if"), "timeout_at": expires}
        step = self._step(
            opcode, StepState.PENDING, StepKind.WAIT_EVENT, due=expires, data=msgspec.json.encode(described)
        )
        wait = WaitRow(self._run.id, opcode.id, lookup, expires, expression or None, context, self._now)
        return Operation(step, wait=wait)

    def _at(self, path: str) -> Any:
        value = msgspec.json.decode(self._event.data)
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def _signal(self, opcode: Opcode) -> Operation:
        name = opcode.text("signal")
        expires = self._moment(opcode.option("timeout"), opcode)
        described = {"signal": name, "timeout_at": expires}
        data = msgspec.json.encode(described)
        step = self._step(opcode, StepState.PENDING, StepKind.WAIT_SIGNAL, due=expires, data=data)
        lookup = signal_lookup(name)
        self._host.store.expect(lookup)
        wait = WaitRow(self._run.id, opcode.id, lookup, expires, None, None, self._now)
        return Operation(step, wait=wait, replaces=opcode.option("conflict") == "replace")

    def _invoke(self, opcode: Opcode) -> Operation:
        slug = opcode.text("function_id")
        timeout = opcode.option("timeout")
        expires = self._now + MAX_INVOKE_MS if not timeout else self._moment(timeout, opcode)
        child = self._child(opcode, slug, expires)
        if child is None:
            message = f"could not find function with ID: {slug}"
            error = msgspec.json.encode({"error": message, "name": "Error", "message": message})
            return Operation(self._step(opcode, StepState.FAILED, StepKind.INVOKE, error=error))
        run_id = child.matches[0].run_id
        described = {"function": slug, "run_id": ulid_text(run_id), "timeout_at": expires}
        data = msgspec.json.encode(described)
        step = self._step(opcode, StepState.PENDING, StepKind.INVOKE, due=expires, data=data)
        lookup = CHILD_LOOKUP + run_id.hex()
        self._host.store.expect(lookup)
        return Operation(step, wait=WaitRow(self._run.id, opcode.id, lookup, expires, None, None, self._now), child=child)

    def _child(self, opcode: Opcode, slug: str, expires: int) -> Incoming | None:
        host, now = self._host, self._now
        target: Any = host.applications.by_slug.get(slug) or host.functions.get(slug)
        if target is None:
            return None
        payload = opcode.option("payload")
        data = dict(payload.get("data") or {}) if isinstance(payload, dict) else {}
        data["_inngest"] = {
            "fn_id": slug, "source_app_id": self._fn.app, "source_fn_id": self._fn.slug,
            "source_fn_v": self._fn.version, "correlation_id": f"{ulid_text(self._run.id)}.{opcode.id}",
            "expire": expires, "gid": ulid_text(self._run.id), "name": opcode.title,
        }  # fmt: skip
        raw = msgspec.json.encode(data)
        row = EventRow(host.ids.new(now), "inngest/function.invoked", now, now, raw, None, None, self._run.id)
        run_id = derived_id(now + 1, self._run.id, opcode.id)
        match = host.intake.match(
            row, run_id, target.id, target.version, origin=1, parent_id=self._run.id, parent_step=opcode.id
        )
        return Incoming(row, [match])

    # -- plumbing ----------------------------------------------------------------------------------------------------------

    def _moment(self, text: Any, opcode: Opcode) -> int:
        if not isinstance(text, str):
            raise WireError(f"{opcode.op} {opcode.title!r}: a duration or date is needed, not {text!r:.60}")
        moment = moment_ms(text, self._now)
        if moment - self._now > MAX_WAIT_MS:
            message = f"{opcode.title}: {text} is longer than 366 days"
            raise RunFailure("InngestErrTimeoutTooLong", message, {"error": {
                "error": f"InngestErrTimeoutTooLong: {message}", "name": "InngestErrTimeoutTooLong", "message": message,
            }})  # fmt: skip
        return moment

    def _step(
        self, opcode: Opcode, state: StepState, kind: StepKind, *, due: int | None = None, data: bytes | None = None,
        error: bytes | None = None,
    ) -> StepRow:  # fmt: skip
        ended = None if state == StepState.PENDING else self._now
        asked = data if kind in TIMED_KINDS and ended is None else None
        return StepRow(
            self._run.id, opcode.id, 0, state, kind, self._began, ended, self._item.attempt, due, data, error, None,
            opcode.title, asked,
        )  # fmt: skip


_HANDLERS: dict[Op, Callable[[Translator, Opcode], Operation]] = {
    Op.STEP_RUN: Translator._done,
    Op.STEP: Translator._done,
    Op.STEP_ERROR: Translator._error,
    Op.STEP_FAILED: Translator._error,
    Op.STEP_PLANNED: Translator._planned,
    Op.SLEEP: Translator._sleep,
    Op.WAIT_FOR_EVENT: Translator._wait,
    Op.WAIT_FOR_SIGNAL: Translator._signal,
    Op.INVOKE_FUNCTION: Translator._invoke,
    Op.GATEWAY: Translator._request,
    Op.AI_GATEWAY: Translator._request,
}


def error_json(failure: StepFailure) -> bytes:
    """An application's error as it is recorded."""
    return msgspec.json.encode(
        {
            name: value
            for name, value in {
                "name": failure.name, "message": hide_credentials(failure.message or ""),
                "stack": hide_credentials(failure.stack) if failure.stack else failure.stack, "data": failure.data,
                "noRetry": failure.no_retry or None, "cause": failure.cause, "code": failure.code,
                "chain": list(failure.chain) or None,
            }.items()
            if value is not None
        }
    )  # fmt: skip


def _check_expression(expression: str) -> None:
    try:
        compile_expression(expression)
    except ConfigurationError as error:
        message = "Wait for event If expression failed to compile"
        raise RunFailure(
            "InvalidExpression",
            message,
            {
                "error": {
                    "error": f"InvalidExpression: {message}",
                    "name": "InvalidExpression",
                    "message": message,
                    "stack": f"error compiling expression: {compiler_said(error)}",
                }
            },
        ) from error
