"""Steps that wait: for a moment, an event, a signal, or the end of another run."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast.base.codec import encode_json
from holdfast.base.errors import Suspended
from holdfast.base.ids import ulid_text
from holdfast.core.expressions import field_equals
from holdfast.core.ingest import Accepted, wait_lookup
from holdfast.core.machine import Record
from holdfast.core.plan import EventsSince, Refused
from holdfast.core.rows import StepKind, StepRow, StepState, WaitRow
from holdfast.core.signals import AwaitSignal, signal_lookup
from holdfast.core.waiting import CHILD_LOOKUP, Register, TimeOut
from holdfast.engine.host import Run
from holdfast.engine.values import value_of
from holdfast.sdk.steps import InvokeCall, SignalCall, SleepCall, WaitCall

_INVOKE_TIMED_OUT: Final = encode_json(
    {
        "name": "InvokeTimeoutError",
        "message": "Timed out waiting for invoked function to complete",
        "chain": ["holdfast.base.errors.InvokeTimeoutError", "holdfast.base.errors.StepError"],
    },
    "error",
)


async def sleep(live: Run, call: SleepCall, row: StepRow | None) -> None:
    """`step.sleep` and `step.sleep_until`."""
    host = live.host
    now = host.clock.now()
    if row is None:
        due = call.until if call.until is not None else now + (call.duration or 0)
        until = encode_json({"until": due}, "sleep")
        row = StepRow(
            live.run.id, call.key, 0, StepState.PENDING, StepKind.SLEEP, now, None, 0, due, until, asked=until
        )  # fmt: skip
        await _register(live, Register(live.lease, row, logs=live.take_logs()))
    due = row.due or 0
    while host.clock.now() < due:
        await live.wait_durably(call.key, due)
    done = msgspec.structs.replace(row, state=StepState.DONE, ended_at=host.clock.now(), due=None, data=b"null")
    await record(live, Record(live.lease, done, live.take_logs(), fresh=False))


async def wait_for_event(live: Run, call: WaitCall[Any], row: StepRow | None) -> Any:
    """`step.wait_for_event`."""
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
    asked = encode_json(described, f"step {call.key!r}")
    step = StepRow(
        run_id, call.key, 0, StepState.PENDING, StepKind.WAIT_EVENT, now, None, 0, expires, asked, asked=asked
    )  # fmt: skip
    context = live.fn.event_json(live.event_row) if expression and "event." in expression else None
    wait = WaitRow(run_id, call.key, lookup, expires, expression, context, now)
    lookback = None
    if call.since is not None:
        since = live.run.queued_at if call.since == "run" else live.step_recorded_at(call.since)
        lookback = EventsSince(call.event, since)
    return step, Register(live.lease, step, wait, lookback=lookback, logs=live.take_logs())


async def wait_for_signal(live: Run, call: SignalCall[Any], row: StepRow | None) -> Any:
    """`step.wait_for_signal`."""
    live.has_waits = True
    if row is None:
        row = await _register_signal(live, call)
    resolved = row if row.state == StepState.FAILED else await _outcome(live, call.key, row, b"null", None)
    return value_of(live, call, resolved)


async def _register_signal(live: Run, call: SignalCall[Any]) -> StepRow:
    host = live.host
    now = host.clock.now()
    expires = now + call.timeout
    described = encode_json({"signal": call.signal, "timeout_at": expires}, f"step {call.key!r}")
    step = StepRow(
        live.run.id, call.key, 0, StepState.PENDING, StepKind.WAIT_SIGNAL, now, None, 0, expires, described,
        asked=described,
    )  # fmt: skip
    wait = WaitRow(live.run.id, call.key, signal_lookup(call.signal), expires, None, None, now)
    plan = AwaitSignal(live.lease, step, wait, replace=call.replace, logs=live.take_logs())
    plan.then = lambda answer: None if isinstance(answer, Refused) else host.accepted(plan.replaced)
    answer: StepRow | Refused = await host.submit(plan)
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended
    if answer.state == StepState.FAILED:
        holder = msgspec.json.decode(answer.error or b"{}")["data"]["run_id"]
        live.note(f"signal {call.signal!r}, for which step {call.key!r} was to wait, is waited for by run {holder}")
        await live.released(answer.seq)
    return answer


async def invoke(live: Run, call: InvokeCall[Any], row: StepRow | None) -> Any:
    """`step.invoke`."""
    live.has_waits = True
    if row is None:
        row = await _register_invoke(live, call)
    resolved = row if row.state == StepState.FAILED else await _outcome(live, call.key, row, None, _INVOKE_TIMED_OUT)
    return value_of(live, call, resolved)


async def _register_invoke(live: Run, call: InvokeCall[Any]) -> StepRow:
    host = live.host
    now = host.clock.now()
    step = StepRow(live.run.id, call.key, 0, StepState.PENDING, StepKind.INVOKE, now)
    target = host.functions.get(call.function)
    if target is None:
        error = {"name": "Error", "message": f"could not find function with ID: {call.function}", "chain": ["Error"]}
        failed = msgspec.structs.replace(
            step, state=StepState.FAILED, ended_at=now, error=encode_json(error, f"step {call.key!r}")
        )
        return await record(live, Record(live.lease, failed, live.take_logs()))
    incoming = host.child(live, call, target)
    child = incoming.matches[0].run_id
    expires = now + call.timeout
    described: dict[str, Any] = {"function": call.function, "run_id": ulid_text(child), "timeout_at": expires}
    if call.cancel_with_parent:
        described["cancel_with_parent"] = True
    step.due = expires
    step.data = step.asked = encode_json(described, f"step {call.key!r}")
    wait = WaitRow(live.run.id, call.key, CHILD_LOOKUP + child.hex(), expires, None, None, now)
    await _register(live, Register(live.lease, step, wait, child=incoming, logs=live.take_logs()))
    return step


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


async def record(live: Run, plan: Record) -> StepRow:
    """Record a result and wait for its turn."""
    answer: StepRow | Refused = await live.host.submit(plan)
    if isinstance(answer, Refused):
        live.lost(answer)
        raise Suspended
    await live.released(answer.seq)
    return answer
