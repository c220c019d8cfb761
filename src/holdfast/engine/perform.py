"""Bringing one step of a live run to its result: by its record, by executing it, or by waiting for it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from holdfast.base.codec import decode_json, encode_json
from holdfast.base.errors import (
    NonRetriableError,
    NotRunningError,
    StepTimeoutError,
    StepUsageError,
    StoreError,
    Suspended,
)
from holdfast.base.ids import ulid_text
from holdfast.core.expressions import field_equals
from holdfast.core.ingest import Accepted, wait_lookup
from holdfast.core.machine import FailAttempt, Record, RecordSend
from holdfast.core.plan import EventsSince, Refused
from holdfast.core.rows import AttemptRow, StepKind, StepRow, StepState, WaitRow
from holdfast.core.waiting import CHILD_LOOKUP, Register, TimeOut
from holdfast.engine import failures
from holdfast.engine.host import Run
from holdfast.engine.tasks import current_step
from holdfast.sdk.steps import InvokeCall, NowCall, RaceCall, RunCall, SendCall, SleepCall, StepCall, WaitCall

_log = logging.getLogger("holdfast")

_KINDS: dict[type[StepCall[Any]], StepKind] = {
    RunCall: StepKind.RUN,
    SleepCall: StepKind.SLEEP,
    WaitCall: StepKind.WAIT_EVENT,
    InvokeCall: StepKind.INVOKE,
    SendCall: StepKind.SEND,
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
            live.in_step[task] = call.key
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
    except _MACHINE_TROUBLE as error:
        # not the function's to handle: it ends here without hearing of it, and goes on from its records elsewhere
        live.cut_off(error)
        raise Suspended from error
    finally:
        live.calls -= counts
        if task is not None:
            live.in_step.pop(task, None)
            live.check()
    live.finish_call(call)
    return result


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


def value_of(live: Run, call: StepCall[Any], row: StepRow) -> Any:
    """What the function gets for a recorded step."""
    if row.state == StepState.FAILED:
        raise failures.step_error(call.key, row.error or b"{}")
    data = row.data
    if type(call) is RunCall:
        return live.host.callables.of(call.fn).codec.decode(data or b"null", row.type)
    if type(call) is WaitCall:
        return None if data is None or data == b"null" else live.fn.received_json(data, call.model)
    if type(call) is InvokeCall:
        return live.host.codec(call.result).decode(data or b"null", row.type)
    return None if data is None else decode_json(data)


# -- step.run ------------------------------------------------------------------------------------------------------


async def _run(live: Run, call: RunCall[Any], row: StepRow | None) -> Any:
    host = live.host
    key = call.key
    attempt = 0
    if row is not None:
        attempt = row.attempt
        if row.due is not None and row.due > host.clock.now():
            await live.wait_durably(key, row.due)
    info = host.callables.of(call.fn)
    while True:
        if live.places is not None:
            await live.places.enter()
        started = host.clock.now()
        live.bodies[key] = started
        try:
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
    if live.bridge is not None:
        return await live.bridge.execute(partial(call.fn, *call.args, **call.kwargs))
    value = await live.host.threads.run(call.fn, *call.args, **call.kwargs)
    return await value if inspect.isawaitable(value) else value


async def _attempt_failed(
    live: Run, call: RunCall[Any], row: StepRow | None, error: Exception, attempt: int, started: int, now: int
) -> StepRow:
    """Record a failed attempt: with the next one due, or as the step's failure."""
    options = live.fn.function.options
    retries = options.retries if call.options.retries is None else call.options.retries
    recorded = failures.record(error)
    run_id, key = live.run.id, call.key
    fresh = row is None
    logs: list[Any] = live.take_logs()
    answer: Any
    if attempt >= retries or failures.is_final(error):
        logs.append(AttemptRow(run_id, key, attempt, started, now, None, recorded))
        step = StepRow(run_id, key, 0, StepState.FAILED, StepKind.RUN, started, now, attempt, None, None, recorded)
        answer = await live.host.submit(Record(live.lease, step, logs, fresh=fresh))
    else:
        delay = failures.retry_after_ms(error, now)
        if delay is None:
            delay = (call.options.backoff or options.backoff).delay_ms(attempt)
        due = now + delay
        first = started if row is None else row.started_at
        step = StepRow(run_id, key, 0, StepState.PENDING, StepKind.RUN, first, None, attempt + 1, due)
        failed = AttemptRow(run_id, key, attempt, started, now, due, recorded)
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


# -- timers, waits, calls to other functions -----------------------------------------------------------------------


async def _sleep(live: Run, call: SleepCall, row: StepRow | None) -> None:
    host = live.host
    now = host.clock.now()
    if row is None:
        due = call.until if call.until is not None else now + (call.duration or 0)
        row = StepRow(
            live.run.id,
            call.key,
            0,
            StepState.PENDING,
            StepKind.SLEEP,
            now,
            None,
            0,
            due,
            encode_json({"until": due}, "sleep"),
        )
        await _register(live, Register(live.lease, row, logs=live.take_logs()))
    due = row.due or 0
    while host.clock.now() < due:
        await live.wait_durably(call.key, due)
    done = msgspec.structs.replace(row, state=StepState.DONE, ended_at=host.clock.now(), due=None, data=b"null")
    await _record(live, Record(live.lease, done, live.take_logs(), fresh=False))


async def _wait(live: Run, call: WaitCall[Any], row: StepRow | None) -> Any:
    host = live.host
    live.has_waits = True
    now = host.clock.now()
    if row is None:
        row, plan = _wait_plan(live, call, now)
        if plan.wait is not None:
            host.store.expect(plan.wait.lookup)
        await _register(live, plan)
    resolved = await _outcome(live, call.key, row, b"null", None)
    return value_of(live, call, resolved)


def _wait_plan(live: Run, call: WaitCall[Any], now: int) -> tuple[StepRow, Register]:
    run_id = live.run.id
    expires = now + call.timeout
    where = list(call.where.items())
    expression = call.expression
    lookup = call.event
    if where:
        path, value = where[0]
        lookup = wait_lookup(call.event, path, value)
        rest = [field_equals("async.data", path, value) for path, value in where[1:]]
        if rest:
            expression = " && ".join([*rest, f"({expression})"] if expression else rest)
    described = {"event": call.event, "where": call.where, "if": call.expression, "timeout_at": expires}
    step = StepRow(
        run_id,
        call.key,
        0,
        StepState.PENDING,
        StepKind.WAIT_EVENT,
        now,
        None,
        0,
        expires,
        encode_json(described, f"step {call.key!r}"),
    )
    context = live.fn.event_json(live.event_row) if expression and "event." in expression else None
    wait = WaitRow(run_id, call.key, lookup, expires, expression, context, now)
    lookback = None
    if call.since is not None:
        since = live.run.queued_at if call.since == "run" else live.step_recorded_at(call.since)
        lookback = EventsSince(call.event, since)
    return step, Register(live.lease, step, wait, lookback=lookback, logs=live.take_logs())


async def _invoke(live: Run, call: InvokeCall[Any], row: StepRow | None) -> Any:
    host = live.host
    live.has_waits = True
    now = host.clock.now()
    run_id = live.run.id
    if row is None:
        target = host.functions.get(call.function)
        if target is None:
            raise failures.step_error(
                call.key,
                encode_json({"name": "Error", "message": f"could not find function with ID: {call.function}"}, "error"),
            )
        incoming = host.child(live, call, target)
        child = incoming.matches[0].run_id
        expires = now + call.timeout
        described = {"function": call.function, "run_id": ulid_text(child), "timeout_at": expires}
        row = StepRow(
            run_id,
            call.key,
            0,
            StepState.PENDING,
            StepKind.INVOKE,
            now,
            None,
            0,
            expires,
            encode_json(described, "invoke"),
        )
        wait = WaitRow(run_id, call.key, CHILD_LOOKUP + child.hex(), expires, None, None, now)
        await _register(live, Register(live.lease, row, wait, child=incoming, logs=live.take_logs()))
    timed_out = encode_json(
        {
            "name": "InvokeTimeoutError",
            "message": "Timed out waiting for invoked function to complete",
            "chain": ["holdfast.base.errors.InvokeTimeoutError", "holdfast.base.errors.StepError"],
        },
        "error",
    )
    return value_of(live, call, await _outcome(live, call.key, row, None, timed_out))


async def _outcome(live: Run, key: str, row: StepRow, data: bytes | None, error: bytes | None) -> StepRow:
    """Wait until a registered step is resolved, or record that its time ran out."""
    early = live.recorded.pop(key, None)
    if early is not None:
        await live.released(early.seq)
        return early
    due = row.due or 0
    while True:
        resolved = await live.wait_durably(key, due)
        if resolved is not None:
            await live.released(resolved.seq)
            return resolved
        if live.host.clock.now() >= due:
            break
    state = StepState.DONE if error is None else StepState.FAILED
    timed_out = msgspec.structs.replace(
        row, state=state, ended_at=live.host.clock.now(), due=None, data=data, error=error
    )
    answer = await live.host.submit(TimeOut(live.lease, timed_out))
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended
    if answer is timed_out:
        live.taken_in.add(key)
    await live.released(answer.seq)
    return answer


async def _register(live: Run, plan: Register) -> None:
    plan.then = live.host.accepted
    answer: Accepted | Refused = await live.host.submit(plan)
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended


async def _record(live: Run, plan: Record) -> StepRow:
    answer: StepRow | Refused = await live.host.submit(plan)
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended
    await live.released(answer.seq)
    return answer


# -- the rest ------------------------------------------------------------------------------------------------------


async def _send(live: Run, call: SendCall, row: StepRow | None) -> list[str]:
    host = live.host
    now = host.clock.now()
    outgoing = [live.fn.app.outgoing(event) for event in call.events]
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
        await _record(live, Record(live.lease, step, live.take_logs()))
    finally:
        live.calls -= 1
    return winner


async def _now(live: Run, call: NowCall, row: StepRow | None) -> int:
    now = live.host.clock.now()
    step = StepRow(live.run.id, call.key, 0, StepState.DONE, StepKind.NOW, now, now, 0, None, str(now).encode())
    await _record(live, Record(live.lease, step, live.take_logs()))
    return now


_HANDLERS: dict[type[StepCall[Any]], Callable[[Run, Any, StepRow | None], Awaitable[Any]]] = {
    RunCall: _run,
    SleepCall: _sleep,
    WaitCall: _wait,
    InvokeCall: _invoke,
    SendCall: _send,
    RaceCall: _race,
    NowCall: _now,
}
