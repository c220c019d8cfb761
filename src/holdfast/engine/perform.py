"""Bringing one step of a live run to its result: by its record, by executing it, or by waiting for it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from holdfast.base.codec import encode_json
from holdfast.base.errors import (
    NonRetriableError,
    NotRunningError,
    StepError,
    StepTimeoutError,
    StepUsageError,
    StoreError,
    Suspended,
)
from holdfast.base.ids import ulid_text
from holdfast.core.machine import FailAttempt, Record, RecordSend
from holdfast.core.overrides import input_of
from holdfast.core.plan import Refused
from holdfast.core.rows import AttemptRow, StepKind, StepRow, StepState
from holdfast.core.signals import Given, GiveSignal, RecordSignal
from holdfast.engine import failures, waits
from holdfast.engine.host import Run
from holdfast.engine.notices import Notice
from holdfast.engine.tasks import current_step
from holdfast.engine.values import value_of
from holdfast.sdk import inputs
from holdfast.sdk.steps import (
    InvokeCall,
    NowCall,
    RaceCall,
    RunCall,
    SendCall,
    SendSignalCall,
    SignalCall,
    SleepCall,
    StepCall,
    WaitCall,
)

_log = logging.getLogger("holdfast")

_KINDS: dict[type[StepCall[Any]], StepKind] = {
    RunCall: StepKind.RUN,
    SleepCall: StepKind.SLEEP,
    WaitCall: StepKind.WAIT_EVENT,
    SignalCall: StepKind.WAIT_SIGNAL,
    InvokeCall: StepKind.INVOKE,
    SendCall: StepKind.SEND,
    SendSignalCall: StepKind.SEND_SIGNAL,
    RaceCall: StepKind.RACE,
    NowCall: StepKind.NOW,
}
_MACHINE_TROUBLE = (StoreError, NotRunningError)
_PLAIN = frozenset({str, int, bool, float, type(None)})


async def perform(live: Run, call: StepCall[Any]) -> Any:
    """The result of a step call, recorded."""
    if live.unwinding or live.abandoned:
        raise Suspended
    counts = type(call) is not RaceCall
    live.calls += counts
    task: asyncio.Task[Any] | None = None
    if live.multi or live.bridge is not None:
        task = asyncio.current_task()
        if task is not None:
            live.enter_step(task, call.key)
    try:
        if live.host.draining and counts:
            await live.wait_durably(f"$drain:{call.key}", live.host.clock.now())
        row = live.recorded.pop(call.key, None) if live.recorded else None
        if row is None:
            if live.recorded:
                _note_new(live, call)
            result = await _HANDLERS[type(call)](live, call, None)
        else:
            result = await _recorded(live, call, row)
    except StepError:
        live.finish_call(call)  # failed for good, and on record: the id may be used again as after a result
        raise
    except _MACHINE_TROUBLE as error:
        # not the function's to handle: it ends here without hearing of it, and goes on from its records elsewhere
        live.cut_off(error)
        raise Suspended from error
    finally:
        live.calls -= counts
        if task is not None:
            live.leave_step(task)
    live.finish_call(call)
    if live.host.notices.followed:
        _tell_followers(live)
    return result


def _tell_followers(live: Run) -> None:
    """A step has its result: whoever follows the run may look."""
    if live.run_id in live.host.notices.followed:
        live.host.notices.publish(Notice("progress", live.run_id, live.fn.id))


def _note_new(live: Run, call: StepCall[Any]) -> None:
    if not live.multi and live.replaying:
        behind = min((row for row in live.recorded.values() if row.state != StepState.PENDING), key=lambda row: row.seq)
        live.note(
            f"step {call.key!r} is new or comes earlier than before: on replay it was called while recorded step {behind.key!r} "
            "was still to come; the code changed, or code outside steps behaves differently on replay"
        )


async def _recorded(live: Run, call: StepCall[Any], row: StepRow) -> Any:
    kind = _KINDS[type(call)]
    if row.kind != kind:
        raise StepUsageError(
            f"step {call.key!r} was recorded as {StepKind(row.kind).name.lower()} and is now {kind.name.lower()}: "
            "the function's code changed under a run in progress; give the new step an id of its own"
        )
    if row.state == StepState.PENDING:
        return await _HANDLERS[type(call)](live, call, row)
    await live.released(row.seq)
    return value_of(live, call, row)


# -- step.run ------------------------------------------------------------------------------------------------------


async def _run(live: Run, call: RunCall[Any], row: StepRow | None) -> Any:
    host = live.host
    key = call.key
    attempt = 0
    edited = None
    if row is not None:
        attempt = row.attempt
        edited = input_of(row)
        if row.due is not None and row.due > host.clock.now():
            await live.wait_durably(key, row.due)
    info = host.callables.of(call.fn)
    while True:
        if live.places is not None:
            await live.places.enter()
        started = host.clock.now()
        live.bodies[key] = started
        try:
            if edited is not None:
                call.args, call.kwargs = inputs.bound(call.fn, edited, key)
            value = await _body(live, call, info)
            data, tag = info.codec.encode(value, f"step {key!r}")
            host.check_size(data, key)
        except Exception as error:
            failed: Exception | None = error
        except (KeyboardInterrupt, SystemExit) as error:
            failed = NonRetriableError(f"step {key!r} raised {type(error).__name__}")
        except asyncio.CancelledError:
            failed = _cancelled(live, key)
        else:
            failed = None
        finally:
            live.bodies.pop(key, None)
            if live.places is not None:
                live.places.leave()
        if live.abandoned:
            raise Suspended
        now = host.clock.now()
        if failed is None:
            done = StepRow(
                live.run.id, key, 0, StepState.DONE, StepKind.RUN, started, now, attempt, None, data, None, tag
            )
            answer = await host.submit(Record(live.lease, done, live.take_logs(), fresh=row is None))
            if isinstance(answer, Refused):
                live.lost(answer)
                raise Suspended
            live.recorded_at[key] = now
            if live.multi:
                await live.released(answer.seq)
            return value if type(value) in _PLAIN else info.codec.decode(data, tag)
        row = await _attempt_failed(live, call, row, failed, attempt, started, now)
        if live.bridge is not None and live.bridge.held:
            await _change_thread(live, row.due or now)
            raise Suspended
        if row.state == StepState.FAILED:
            await live.released(row.seq)
            raise failures.step_error(key, row.error or b"{}")
        attempt += 1
        await live.wait_durably(key, row.due)


async def _change_thread(live: Run, due: int) -> None:
    """A body that ran out of time still holds the function's thread: the run goes on from its records, in another one."""
    await live.hand_back(due)
    live.host.timers.arm(due)
    live.abandon()


async def _body(live: Run, call: RunCall[Any], info: Any) -> Any:
    token = current_step.set(call.key)
    try:
        if live.fn.step_wrappers:
            inner: Callable[[], Awaitable[Any]] = partial(_plain_body, live, call, info)
            for wrapper in reversed(live.fn.step_wrappers):
                inner = partial(wrapper.around_step, live, call.key, inner)
            return await inner()
        if info.is_async and call.options.timeout_ms is None:
            return await call.fn(*call.args, **call.kwargs)
        return await _plain_body(live, call, info)
    finally:
        current_step.reset(token)


def _cancelled(live: Run, key: str) -> Exception:
    """A body was cancelled: by the watch over long steps, which makes it a failed attempt, or with its run."""
    limit = live.timed_out.pop(key, None)
    task = asyncio.current_task()
    if limit is None or live.abandoned or task is None:
        raise  # noqa: PLE0704 - called from the except block that caught it
    task.uncancel()
    return StepTimeoutError(f"step {key!r} took longer than the function's step_timeout of {limit / 1000:g} s")


async def _plain_body(live: Run, call: RunCall[Any], info: Any) -> Any:
    timeout_ms = call.options.timeout_ms
    if timeout_ms is None:
        return await _execute(live, call, info)
    try:
        async with asyncio.timeout(timeout_ms / 1000) as scope:
            return await _execute(live, call, info)
    except TimeoutError:
        if scope.expired():
            raise StepTimeoutError(
                f"step {call.key!r} took longer than its timeout of {timeout_ms / 1000:g} s"
            ) from None
        raise


async def _execute(live: Run, call: RunCall[Any], info: Any) -> Any:
    if info.is_async:
        return await call.fn(*call.args, **call.kwargs)
    execute = live.host.threads.run if live.bridge is None else live.bridge.execute
    body = partial(call.fn, *call.args, **call.kwargs)
    limit_ms = call.options.timeout_ms or live.fn.function.options.step_timeout_ms
    value = await live.host.threads.pace.run(call.fn, body, execute, limit_ms)
    return await value if inspect.isawaitable(value) else value


async def _attempt_failed(
    live: Run, call: RunCall[Any], row: StepRow | None, error: Exception, attempt: int, started: int, now: int
) -> StepRow:
    """Record a failed attempt: with the next one due, or as the step's failure."""
    options = live.fn.function.options
    retries = options.retries if call.options.retries is None else call.options.retries
    recorded = failures.record(error, live.hidden)
    run_id, key = live.run.id, call.key
    fresh = row is None
    given = inputs.recorded(call.args, call.kwargs) if live.host.keep_inputs else None
    first, kept = (started, None) if row is None else (row.started_at, row.data)
    logs: list[Any] = live.take_logs()
    answer: Any
    policy = call.options.policy(options.backoff)
    delay = failures.next_delay_ms(error, policy, attempt, now) if attempt < retries else None
    if delay is None:
        logs.append(AttemptRow(run_id, key, attempt, started, now, None, recorded, given))
        step = StepRow(run_id, key, 0, StepState.FAILED, StepKind.RUN, started, now, attempt, None, kept, recorded)
        answer = await live.host.submit(Record(live.lease, step, logs, fresh=fresh))
    else:
        due = now + delay
        step = StepRow(run_id, key, 0, StepState.PENDING, StepKind.RUN, first, None, attempt + 1, due, kept)
        failed = AttemptRow(run_id, key, attempt, started, now, due, recorded, given)
        live.report(
            logging.WARNING,
            f"step {key!r}, attempt {attempt + 1}, failed and is tried again in {delay / 1000:g} s",
            error,
        )
        answer = await live.host.submit(FailAttempt(live.lease, failed, step, logs, fresh=fresh))
        live.host.retried(live)
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended
    return step


# -- the rest ------------------------------------------------------------------------------------------------------


async def _send(live: Run, call: SendCall, row: StepRow | None) -> list[str]:
    host = live.host
    now = host.clock.now()
    outgoing = [live.fn.app.outgoing(event, call.event_id) for event in call.events]
    incoming = host.intake.prepare(outgoing, source=live.run.id)
    ids = [ulid_text(one.event.id) for one in incoming]
    step = StepRow(
        live.run.id,
        call.key,
        0,
        StepState.DONE,
        StepKind.SEND,
        now,
        now,
        0,
        None,
        encode_json(ids, f"step {call.key!r}"),
    )
    plan = RecordSend(Record(live.lease, step, live.take_logs()), incoming)
    plan.then = host.accepted
    answer = await host.submit(plan)
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended
    await live.released(step.seq)
    return ids


async def _send_signal(live: Run, call: SendSignalCall, row: StepRow | None) -> str | None:
    host = live.host
    now = host.clock.now()
    step = StepRow(live.run.id, call.key, 0, StepState.DONE, StepKind.SEND_SIGNAL, now, now, 0, None, b"null")
    plan = RecordSignal(Record(live.lease, step, live.take_logs()), GiveSignal(call.signal, call.data))
    plan.then = host.signalled
    answer: Given | Refused = await host.submit(plan)
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended
    await live.released(step.seq)
    return None if answer.run_id is None else ulid_text(answer.run_id)


async def _race(live: Run, call: RaceCall, row: StepRow | None) -> int:
    tasks = call.tasks
    if not tasks:
        raise StepUsageError(f"race {call.id!r} needs at least one step")
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if live.unwinding or live.abandoned:
        raise Suspended
    winner = next(index for index, task in enumerate(tasks) if task.done())
    now = live.host.clock.now()
    step = StepRow(live.run.id, call.key, 0, StepState.DONE, StepKind.RACE, now, now, 0, None, str(winner).encode())
    live.calls += 1
    try:
        await waits.record(live, Record(live.lease, step, live.take_logs()))
    finally:
        live.calls -= 1
    return winner


async def _now(live: Run, call: NowCall, row: StepRow | None) -> int:
    now = live.host.clock.now()
    step = StepRow(live.run.id, call.key, 0, StepState.DONE, StepKind.NOW, now, now, 0, None, str(now).encode())
    await waits.record(live, Record(live.lease, step, live.take_logs()))
    return now


_HANDLERS: dict[type[StepCall[Any]], Callable[[Run, Any, StepRow | None], Awaitable[Any]]] = {
    RunCall: _run,
    SleepCall: waits.sleep,
    WaitCall: waits.wait_for_event,
    SignalCall: waits.wait_for_signal,
    InvokeCall: waits.invoke,
    SendCall: _send,
    SendSignalCall: _send_signal,
    RaceCall: _race,
    NowCall: _now,
}
