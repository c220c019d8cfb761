"""Runs as trees of spans, in the two forms that the protocol's tools ask for (protocol section 6). Pure.

The legacy form names the calls of a function that brought its end `function success`, `function error` or `execute`; the
preview form calls them `Finalization` and `Execution`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Any

import msgspec

from holdfast.base.ids import ulid_bytes
from holdfast.server.trace_steps import StepInfo, step_info, step_operation, step_type
from holdfast.store.reads import AttemptView, RunDetail, StepView

COMPLETED, FAILED, RUNNING, WAITING, CANCELLED = "COMPLETED", "FAILED", "RUNNING", "WAITING", "CANCELLED"
_WAITING_KINDS = frozenset({"sleep", "wait_event", "wait_signal", "invoke"})
_ROOT_STATUS = {"SKIPPED": "SKIPPED", "WAITING": RUNNING}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the tree. Moments are in ms since 1970."""

    run_id: str
    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    name: str
    status: str
    attempts: int = 0
    """From 0: the number of the latest attempt."""
    is_root: bool = False
    queued_at: int
    started_at: int | None
    ended_at: int | None
    output_id: str | None = None
    step_op: str | None = None
    step_type: str = ""
    step_id: str | None = None
    step_info: StepInfo | None = None
    children_spans: tuple[Span, ...] = ()

    @property
    def duration(self) -> int | None:
        """From start to end, in ms."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at


class Output(msgspec.Struct, frozen=True):
    """What a span brought: one of the two."""

    data: str | None = None
    """JSON."""
    error: Mapping[str, Any] | None = None


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Whose output an output id means."""

    run_id: str
    step: str = ""
    """Its key; "" for the function itself."""
    attempt: int | None = None
    """A failed attempt; None for the result."""


def output_id(place: Place) -> str:
    """The id under which an output is asked for."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(text: str) -> Place:
    """Whose output this id means.

    Raises:
        ValueError: it is no output id.
    """
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=Place)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ValueError(f"{text[:60]!r} is no output id; `outputID` of a trace span is one") from error


def output_of(detail: RunDetail, place: Place) -> Output | None:
    """The output at a place; None when there is none, or not yet."""
    if not place.step:
        return _of_function(detail, place.attempt)
    step = next((one for one in detail.steps if one.key == place.step and one.kind != "end"), None)
    if step is None:
        return None
    if place.attempt is not None:
        failed = next((one for one in step.attempts if one.attempt == place.attempt), None)
        return None if failed is None else Output(error=failed.error)
    if step.error is not None:
        return Output(error=step.error)
    return Output(_text(step.data)) if step.state == "done" else None


def _of_function(detail: RunDetail, attempt: int | None) -> Output | None:
    if attempt is not None:
        failed = next((one for one in detail.function_attempts if one.attempt == attempt), None)
        return None if failed is None else Output(error=failed.error)
    if detail.error is not None:
        return Output(error=detail.error)
    return Output(_text(detail.output)) if detail.run.status == COMPLETED else None


def run_output(detail: RunDetail) -> str | None:
    """The output of a run as its JSON text: what it returned, or what it failed with (protocol section 2.6)."""
    if detail.error is not None:
        given = detail.error.get("output")
        if given is not None:
            return msgspec.json.encode(given).decode()
        return msgspec.json.encode({key: detail.error.get(key) for key in ("name", "message", "stack")}).decode()
    return _text(detail.output) if detail.run.status == COMPLETED else None


def _text(data: bytes | None) -> str:
    return (data or b"null").decode()


def legacy_tree(detail: RunDetail) -> Span:
    """The tree in its legacy form."""
    return _Tree(detail).root(detail.run.function_name, preview=False)


def preview_tree(detail: RunDetail) -> Span:
    """The tree in its preview form."""
    return _Tree(detail).root("Run", preview=True)


class _Tree:
    def __init__(self, detail: RunDetail) -> None:
        self.detail = detail
        self.run = detail.run
        self.trace_id = ulid_bytes(detail.run.id).hex()
        self.root_id = self._span_id("root", None)

    def _span_id(self, key: str, attempt: int | None) -> str:
        return sha1(f"{self.run.id} {key} {attempt}".encode(), usedforsecurity=False).hexdigest()[:16]

    def root(self, name: str, *, preview: bool) -> Span:
        run = self.run
        steps = sorted((one for one in self.detail.steps if one.kind != "end"), key=lambda one: one.started_at)
        owned, rest = _share_out(self.detail.function_attempts, steps)
        children = [self._step(step, owned.get(step.key, []), preview=preview) for step in steps]
        call = self._call(steps, rest, preview=preview)
        if call is not None:
            children.append(call)
        return Span(
            run_id=run.id, trace_id=self.trace_id, span_id=self.root_id, name=name,
            status=_ROOT_STATUS.get(run.status, run.status), is_root=True, attempts=run.attempt,
            queued_at=run.queued_at, started_at=run.started_at, ended_at=run.ended_at,
            output_id=output_id(Place(run.id)) if run.status in {COMPLETED, FAILED} else None,
            children_spans=tuple(children),
        )  # fmt: skip

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _step(self, step: StepView, owned: Sequence[AttemptView], *, preview: bool) -> Span:
        span_id = self._span_id(step.key, None)
        status = self._step_status(step)
        attempts = [
            *(self._attempt(span_id, Place(self.run.id, "", one.attempt), n, one) for n, one in enumerate(owned)),
            *(
                self._attempt(span_id, Place(self.run.id, step.key, one.attempt), n, one)
                for n, one in enumerate(step.attempts, len(owned))
            ),
        ]
        failed = len(attempts)
        if attempts and step.state == "done":
            began = step.started_at if not step.attempts else step.attempts[-1].retry_at or step.started_at
            attempts.append(self._last(span_id, Place(self.run.id, step.key), failed, began, step.ended_at, COMPLETED))
        # what failed before a wait was the function; the wait itself was not tried twice
        count = 0 if step.kind in _WAITING_KINDS else failed if step.state == "done" else max(failed - 1, 0)
        operation = step_operation(step)
        return Span(
            run_id=self.run.id, trace_id=self.trace_id, span_id=span_id, parent_span_id=self.root_id, name=step.name,
            status=status, attempts=count, queued_at=step.started_at, started_at=step.started_at, ended_at=step.ended_at,
            output_id=self._step_output(step), step_op=operation, step_id=step.key,
            step_type=(step_type(step) or operation) if preview else "",
            step_info=step_info(self.detail, step), children_spans=tuple(attempts),
        )  # fmt: skip

    def _step_status(self, step: StepView) -> str:
        if step.state == "done":
            return COMPLETED
        if step.state == "failed":
            return FAILED
        if self.run.ended_at is not None:
            return CANCELLED
        return WAITING if step.kind in _WAITING_KINDS else RUNNING

    def _step_output(self, step: StepView) -> str | None:
        if step.state == "pending" or step.kind == "sleep":
            return None
        return output_id(Place(self.run.id, step.key))

    # -- attempts ------------------------------------------------------------------------------------------------------

    def _attempt(self, parent: str, place: Place, number: int, view: AttemptView) -> Span:
        return Span(
            run_id=self.run.id, trace_id=self.trace_id, span_id=self._span_id(place.step, place.attempt),
            parent_span_id=parent, name=f"Attempt {number}", status=FAILED, attempts=number,
            queued_at=view.started_at, started_at=view.started_at, ended_at=view.ended_at, output_id=output_id(place),
        )  # fmt: skip

    def _last(self, parent: str, place: Place, number: int, began: int | None, ended: int | None, status: str) -> Span:
        return Span(
            run_id=self.run.id, trace_id=self.trace_id, span_id=self._span_id(place.step, number), parent_span_id=parent,
            name=f"Attempt {number}", status=status, attempts=number, queued_at=began or self.run.queued_at,
            started_at=began, ended_at=ended, output_id=output_id(place),
        )  # fmt: skip

    # -- the function's own call ---------------------------------------------------------------------------------------

    def _call(self, steps: Sequence[StepView], failed: Sequence[AttemptView], *, preview: bool) -> Span | None:
        """The call that ended the run, with the failed ones before it; while it lives, the failed ones."""
        run = self.run
        ended = run.status in {COMPLETED, FAILED}
        if not ended and not failed:
            return None
        attempts = [self._attempt(self.root_id, Place(run.id, "", one.attempt), n, one) for n, one in enumerate(failed)]
        began = max((one.ended_at or one.started_at for one in steps), default=run.started_at)
        recorded = bool(failed) and failed[-1].retry_at is None
        if run.status == FAILED and not recorded:
            attempts.append(self._last(self.root_id, Place(run.id), len(failed), began, run.ended_at, FAILED))
        elif run.status == COMPLETED and attempts:
            attempts.append(self._last(self.root_id, Place(run.id), len(failed), began, run.ended_at, COMPLETED))
        name, count = self._call_words(len(attempts), with_steps=bool(steps), preview=preview)
        began = attempts[0].started_at if attempts else began
        return Span(
            run_id=run.id, trace_id=self.trace_id, span_id=self._span_id("", None), parent_span_id=self.root_id, name=name,
            status=run.status if ended else CANCELLED if run.ended_at is not None else RUNNING,
            attempts=count, queued_at=began or run.queued_at, started_at=began, ended_at=run.ended_at,
            output_id=output_id(Place(run.id)) if ended else None,
            step_type="FINALIZATION" if preview and ended else "", children_spans=tuple(attempts),
        )  # fmt: skip

    def _call_words(self, attempts: int, *, with_steps: bool, preview: bool) -> tuple[str, int]:
        """Its name and its `attempts`."""
        status, latest = self.run.status, max(attempts - 1, 0)
        ended = status in {COMPLETED, FAILED}
        if preview:
            return ("Finalization" if ended else "Execution"), latest
        if not ended:
            return "execute", latest
        if status == COMPLETED:
            return "function success", latest
        if with_steps or attempts == 1:
            return "function error", latest
        return "execute", attempts  # of a function that failed every time, tools expect how often it was tried


def _share_out(
    failed: Sequence[AttemptView], steps: Sequence[StepView]
) -> tuple[dict[str, list[AttemptView]], list[AttemptView]]:
    """Failed calls of the function belong to the first step that began after them; those after the last are returned apart."""
    owned: dict[str, list[AttemptView]] = {}
    rest: list[AttemptView] = []
    for one in failed:
        owner = next((step for step in steps if step.started_at >= one.ended_at), None)
        if owner is None or one.retry_at is None:
            rest.append(one)
        else:
            owned.setdefault(owner.key, []).append(one)
    return owned, rest
