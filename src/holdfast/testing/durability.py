"""Proving that a crash changes nothing: a function executed once for each moment at which its process could die."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar

from holdfast.base.clock import SystemClock, to_ms
from holdfast.base.errors import ConfigurationError
from holdfast.core.claiming import Claim
from holdfast.core.ending import Cancel, End
from holdfast.core.ingest import Ingest
from holdfast.core.machine import FailAttempt, Park, Record, RecordSend
from holdfast.core.plan import Plan
from holdfast.core.relaying import Relay, TakeOutbox
from holdfast.core.rows import StepKind
from holdfast.core.waiting import Register, TimeOut
from holdfast.engine.crash import kill
from holdfast.engine.engine import Engine
from holdfast.sdk.app import App, EventLike
from holdfast.sdk.events import Event
from holdfast.sdk.functions import Function
from holdfast.testing.async_harness import AsyncHarness
from holdfast.testing.clock import DEFAULT_PATIENCE
from holdfast.testing.recording import Recording, difference, record

E = TypeVar("E", bound=Event)
Hook = Callable[[], Awaitable[None] | None]
HarnessHook = Callable[[AsyncHarness], Awaitable[None] | None]

MAX_COMMITS = 5000


class NotDurableError(AssertionError):
    """An execution with a crash in it ended differently; the message says where the crash was and what was different."""


async def assert_durable(
    app: App,
    event: EventLike | None = None,
    *,
    fn: Function[Any, Any] | None = None,
    apps: tuple[App, ...] = (),
    setup: Hook | None = None,
    meanwhile: HarnessHook | None = None,
    check: HarnessHook | None = None,
    varies: Collection[str] = (),
    start: datetime | int | None = None,
    patience: float = DEFAULT_PATIENCE,
) -> int:
    """Execute what an event starts, once for each moment at which the process could die, and compare the results.

    First it is executed twice without a crash. Then again and again, each time with a crash right before or right after
    one of its commits, a restart on the same store, and everything that follows, until no commit is left to crash at.
    Each execution has to end with the same runs, with the same status, output, steps, results and errors, and with the
    same events sent. Ids, moments and numbers of attempts may differ, and so may values in which already the two
    undisturbed executions differ, such as a random token that a step has made.

    A step body that was on its way when the process died is executed again: its side effects may happen twice, and
    `assert_durable` doesn't object. If they must not, say so in `check`.

    Args:
        app: The app to run.
        event: The event to send; may be left out when `fn` has a schedule.
        fn: Start this function with the event, instead of all that the event triggers.
        apps: Further apps to run beside it.
        setup: Called before each execution, async or not, to bring the outside world back to its beginning: empty the
            tables and lists that step bodies write to, reset counters of stand-ins.
        meanwhile: Called with the harness once the event has been accepted, to do what the outside world does: send the
            event that the function waits for, let time pass. What it awaits of the harness survives the crash.
        check: Called with the harness at the end of each execution, to make assertions of your own.
        varies: Keys, at any depth of results, outputs and events, whose values are not compared. For what real time decides,
            such as a measured duration: two undisturbed executions may agree on it by chance.
        start: The first moment of each execution. Default: now.
        patience: Seconds of real time after which something that keeps moving fails the test.

    Returns:
        How many crashes were survived.

    Raises:
        NotDurableError: naming the crash after which something was different, and what.
        NotQuietError: something keeps moving in real time.
    """
    if isinstance(varies, str):
        raise ConfigurationError(f'assert_durable: varies is a collection of keys: varies=["{varies}"]')
    if event is None and fn is None:
        raise ConfigurationError("assert_durable needs an event, or fn= a function with a schedule")
    begin = SystemClock().now() if start is None else start if isinstance(start, int) else to_ms(start)
    case = _Case((app, *apps), event, fn, setup, meanwhile, check, begin, patience)
    expected, other = await case.execute(), await case.execute()
    found = difference(expected, other, other, varies)
    if found is not None:
        raise NotDurableError(_explained("two executions without any crash differ", found, other))
    for crashes in range(2 * MAX_COMMITS):
        crash = Crash(crashes // 2 + 1, after=bool(crashes % 2))
        actual = await case.execute(crash)
        if not crash.happened:
            return crashes
        found = difference(expected, other, actual, varies)
        if found is not None:
            raise NotDurableError(_explained(f"with a crash {crash.where}", found, actual))
    raise NotDurableError(f"after {MAX_COMMITS} commits there is still no end: use an event that leads to less work")


def _explained(when: str, found: str, actual: Recording) -> str:
    remarks = "".join(f"\n  holdfast noted on {note}" for note in actual.notes if note not in found)
    return (
        f"not durable: {when}, {found}.{remarks}\n"
        "  After a crash the function is replayed: code outside steps has to do the same each time, so what can change "
        "(time, chance, globals, files, network) belongs into a step, or `setup` has to reset it. A value that real time "
        "decides may be named in `varies`."
    )


class _Case:
    """One way of executing an app, to be repeated."""

    def __init__(
        self,
        apps: tuple[App, ...],
        event: EventLike | None,
        fn: Function[Any, Any] | None,
        setup: Hook | None,
        meanwhile: HarnessHook | None,
        check: HarnessHook | None,
        begin: int,
        patience: float,
    ) -> None:
        self._apps = apps
        self._event = event
        self._fn = fn
        self._setup = setup
        self._meanwhile = meanwhile
        self._check = check
        self._begin = begin
        self._patience = patience

    async def execute(self, crash: Crash | None = None) -> Recording:
        if self._setup is not None:
            await _maybe(self._setup())
        harness = AsyncHarness(*self._apps, start=self._begin, schedules=False, patience=self._patience)
        harness._survives = True
        harness._on_boot = _Commits(crash).attach
        async with harness:
            await self._start(harness)
            if self._meanwhile is not None:
                await _maybe(self._meanwhile(harness))
            await harness.settle()
            if self._check is not None:
                await _maybe(self._check(harness))
            return record(await harness.runs())

    async def _start(self, harness: AsyncHarness) -> None:
        if self._fn is None:
            assert self._event is not None
            await harness.send(self._event)
        elif self._event is None or isinstance(self._event, Event):
            await harness.start(self._fn, self._event)
        else:
            await harness.start(self._fn, _data_of(self._event))


def _data_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data of an event given as `{"name": ..., "data": {...}}`, or as just its data."""
    data = event.get("data")
    return data if "name" in event and isinstance(data, Mapping) else event


async def _maybe(result: Awaitable[None] | None) -> None:
    if inspect.isawaitable(result):
        await result


class Crash:
    """The death of the process at one commit."""

    def __init__(self, commit: int, *, after: bool) -> None:
        self.commit = commit
        """Which, counted from 1."""
        self.after = after
        """Right after it, before anybody learns of it; else right before it."""
        self.happened = False
        self.where = ""
        """In words, once it has happened."""


class _Commits:
    """Commits plan by plan, counts them, and crashes at one of them."""

    def __init__(self, crash: Crash | None) -> None:
        self._crash = crash
        self._count = 0

    def attach(self, engine: Engine) -> None:
        """Take a booted engine's commits in hand; after the crash, only keep them single."""
        group = engine.store.group
        group.max_group = 1
        crash = self._crash
        if crash is None or crash.happened:
            return

        def before() -> None:
            plan = group.committing[0]
            if _changes_something(plan):
                self._count += 1
                if self._count == crash.commit and not crash.after:
                    self._die(engine, plan, crash)

        def after() -> None:
            plan = group.committing[0]
            if self._count == crash.commit and _changes_something(plan):
                self._die(engine, plan, crash)

        group.before_commit = before
        group.after_commit = after

    def _die(self, engine: Engine, plan: Plan[Any], crash: Crash) -> None:
        crash.happened = True
        crash.where = f"right {'after' if crash.after else 'before'} commit {crash.commit}, {_words(engine, plan)}"
        kill(engine)


def _changes_something(plan: Plan[Any]) -> bool:
    return not isinstance(plan, Claim) or bool(plan.answer)


_KINDS = {
    StepKind.SLEEP: "sleep",
    StepKind.WAIT_EVENT: "wait",
    StepKind.INVOKE: "invocation",
    StepKind.RACE: "race",
    StepKind.NOW: "moment",
}


def _words(engine: Engine, plan: Plan[Any]) -> str:
    """What a plan commits."""
    match plan:
        case Ingest():
            names = ", ".join(dict.fromkeys(repr(one.event.name) for one in plan.incoming))
            return f"the acceptance of event {names}"
        case Relay() | TakeOutbox():
            names = ", ".join(dict.fromkeys(repr(one.event.name) for one in plan.incoming))
            return f"the acceptance of event {names} from an outbox"
        case RecordSend():
            return f"the events sent by step {plan.record.step.key!r} of {_function(engine, plan.record.lease.run_id)}"
        case Record() | TimeOut():
            kind = _KINDS.get(StepKind(plan.step.kind), "step")
            what = "time-out" if isinstance(plan, TimeOut) else "result"
            return f"the {what} of {kind} {plan.step.key!r} of {_function(engine, plan.lease.run_id)}"
        case Register():
            kind = _KINDS.get(StepKind(plan.step.kind), "step")
            return f"the beginning of {kind} {plan.step.key!r} of {_function(engine, plan.lease.run_id)}"
        case FailAttempt():
            what = f"step {plan.step.key!r} of " if plan.step is not None else ""
            return f"a failed attempt of {what}{_function(engine, plan.lease.run_id)}"
        case Park():
            return f"the moment in which {_function(engine, plan.lease.run_id)} leaves memory to wait"
        case End():
            return f"the end of {_function(engine, plan.lease.run_id)}"
        case Cancel():
            return f"the cancellation of {_function(engine, plan.run_id)}"
        case Claim():
            return "the claim of a run that is due"
        case _:
            return type(plan).__name__


def _function(engine: Engine, run_id: bytes) -> str:
    live = engine.live.get(run_id)
    return "a run" if live is None else live.function_slug
