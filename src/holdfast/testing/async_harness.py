"""Running apps in a test: in memory, on a virtual clock, and able to crash."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from holdfast.base.duration import Duration, duration_ms
from holdfast.base.errors import ConfigurationError, HoldfastError, NotRunningError, RunNotFoundError
from holdfast.base.ids import ulid_bytes
from holdfast.compose import build_engine
from holdfast.engine.crash import kill, reap
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.sdk.app import App, EventLike
from holdfast.sdk.databases import Database, as_database
from holdfast.sdk.events import Event
from holdfast.sdk.functions import Function
from holdfast.sdk.sender import Sent
from holdfast.store.reads import EventView, RunFilter
from holdfast.testing.clock import DEFAULT_PATIENCE, MAX_JUMPS, NotQuietError, VirtualClock
from holdfast.testing.observed import ObservedEvent, ObservedRun, observe_event, observe_run

E = TypeVar("E", bound=Event)
R = TypeVar("R")
T = TypeVar("T")

_NEVER_MS = 200 * 365 * 86_400_000
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a private directory is made below it


def _in_memory(directory: str) -> str:
    return f"sqlite:///{directory}/holdfast.db"


class AsyncHarness:
    """What `async with Harness(...)` gives; see `holdfast.testing.Harness`."""

    new_store: ClassVar[Callable[[str], str]] = staticmethod(_in_memory)
    """The URL of a store that nobody uses, given a directory of the harness's own."""

    def __init__(
        self,
        *apps: App,
        start: datetime | int | None = None,
        schedules: bool = True,
        linger: Duration = 0,
        patience: float = DEFAULT_PATIENCE,
        databases: Sequence[Database | str] = (),
    ) -> None:
        if not apps:
            raise ConfigurationError("a harness needs an app: Harness(app)")
        self.apps = apps
        self.clock = VirtualClock(start, patience=patience)
        """The time of everything that runs here."""
        self.engine: Engine
        """The engine that runs the apps; another one after `restart`."""
        self._schedules = schedules
        self._options = EngineOptions(linger_ms=duration_ms(linger), prune_every_ms=_NEVER_MS, relay_every_ms=_NEVER_MS)
        self._databases = tuple(map(as_database, databases))
        self._store: str
        self._directory: tempfile.TemporaryDirectory[str]
        self._on_boot: Callable[[Engine], None] | None = None
        self._named = 0
        self._survives = False

    # -- life --------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._directory = _directory()
        self._store = type(self).new_store(self._directory.name)
        try:
            await self._boot()
        except BaseException:
            self._directory.cleanup()
            raise
        self.clock.watch(_EngineWatch(self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.engine.running:
                await self.engine.stop(drain_seconds=self.clock.patience)
                await self.engine.reader.close()
            else:
                if self.engine.running:
                    kill(self.engine)
                await reap(self.engine, self.clock.patience)
        finally:
            self._directory.cleanup()

    async def _boot(self) -> None:
        fast = {"synchronous": "OFF"} if self._store.startswith("sqlite:") else {}
        self.engine = build_engine(self.apps, self._store, clock=self.clock, options=self._options, databases=self._databases, **fast)
        await self.engine.boot()
        if not self._schedules:
            self.engine.crons.stop()
        if self._on_boot is not None:
            self._on_boot(self.engine)

    async def restart(self) -> None:
        """Crash, and start again on the same store.

        What was not committed is lost, nobody is told, and step bodies in progress are cut off, as when the process dies.
        The new engine recovers what it finds before this returns; no time passes.

        Raises:
            NotQuietError: a step body, or code in a thread, does not end though it was cut off.
        """
        kill(self.engine)
        await self.clock.quiesce()

    async def _revive(self) -> None:
        try:
            await reap(self.engine, self.clock.patience)
        except TimeoutError:
            raise NotQuietError(
                f"code of a run still goes on {self.clock.patience:g} s after the crash that should have ended it: "
                "a thread can't be stopped from outside; end it, or raise patience="
            ) from None
        await self._boot()

    async def _lasting(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The result of an operation, begun again on a new engine if a planned crash comes between."""
        while True:
            engine = self.engine
            try:
                return await operation()
            except NotRunningError:
                if not self._survives or engine.running:
                    raise
            await self.clock.quiesce()

    # -- work --------------------------------------------------------------------------------------------------------------

    async def run(
        self,
        function: Function[E, R],
        event: E | Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002 - what users call it
    ) -> ObservedRun[R]:
        """Start one function and let time pass until its run has ended.

        Args:
            function: A function of one of the apps.
            event: Its event, or the data of one; nothing for a function with a schedule.
            id: Your id for the event.

        Raises:
            NotQuietError: something keeps moving in real time, or the run can't end.
            EventInvalidError: the event doesn't fit.
        """
        return await self.finish(await self.start(function, event, id=id))

    async def start(
        self,
        function: Function[E, R],
        event: E | Mapping[str, Any] | None = None,
        *,
        id: str | None = None,  # noqa: A002
    ) -> ObservedRun[R]:
        """Start one function and let happen what can happen without time passing. Arguments and errors as for `run`."""
        name = id or self._name()

        async def begin() -> str:
            known = await self._stored(name) if name is not None and self._survives else None
            if known is not None:
                return (await self.engine.reader.event_runs(known.internal_id))[0].id
            if event is None:
                return await self._start_scheduled(function)
            return (await self._app_of(function).start(function, event, id=name)).id

        run_id = await self._lasting(begin)
        await self.clock.quiesce()
        return await self._read(run_id)

    async def _start_scheduled(self, function: Function[Any, Any]) -> str:
        schedule = next((trigger.cron for trigger in function.triggers if trigger.cron is not None), None)
        if schedule is None:
            raise ConfigurationError(f"function {function.id!r} is started by an event: pass one")
        runs, _ = await self.engine.reader.runs(RunFilter(function=function.slug))
        if self._survives and runs:
            return runs[0].id
        return await self.engine.run_cron(function.slug, schedule)

    async def finish(self, run: ObservedRun[R]) -> ObservedRun[R]:
        """Let time pass until a run has ended, whatever else happens meanwhile; the run as it ended.

        Raises:
            NotQuietError: something keeps moving in real time, or the run waits for what doesn't come by itself.
        """
        for _ in range(MAX_JUMPS):
            await self.clock.quiesce()
            view = await self.engine.reader.run_view(run.id)
            if view is None:
                raise RunNotFoundError(f"there is no run {run.id} here")
            if view.ended_at is not None:
                return await self._read(run.id)
            if not await self.clock.step():
                break
        now = await self._read(run.id)
        waiting = ", ".join(f"{step.kind} {step.id!r}" for step in now.steps if step.state == "pending") or "nothing"
        raise NotQuietError(
            f"run {run.id} of {run.function} does not end by itself: it is {now.status} and awaits {waiting}"
        )

    async def send(
        self,
        event: EventLike,
        *,
        id: str | None = None,  # noqa: A002
        ts: datetime | int | None = None,
    ) -> Sent:
        """Send an event and let happen what it causes without time passing. Arguments and errors as for `App.send`."""
        name = id or self._name()

        async def deliver() -> Sent:
            known = await self._stored(name) if name is not None and self._survives else None
            if known is not None:
                return Sent(ulid_bytes(known.internal_id))
            return await self.apps[0].send(event, id=name, ts=ts)

        sent = await self._lasting(deliver)
        await self.clock.quiesce()
        return sent

    async def settle(self, within: Duration | None = None) -> None:
        """Let time pass until nothing happens any more unless something comes from outside.

        Args:
            within: Let everything that is due within this time happen, schedules included, and leave the rest. Without it,
                schedules fire on the way but don't keep time going.

        Raises:
            NotQuietError: something keeps moving in real time, or there is no end of due moments.
        """
        await self.clock.settle(within)

    async def advance(self, duration: Duration) -> None:
        """Let this much time pass, with everything that is due on the way happening at its moment. Errors as for `settle`."""
        await self.clock.advance(duration)

    async def cancel(self, run: ObservedRun[Any]) -> bool:
        """Cancel a run; False when it had ended already."""
        done = await self._lasting(lambda: self.engine.cancel(run.id))
        await self.clock.quiesce()
        return done

    async def redrive(self, run: ObservedRun[R]) -> ObservedRun[R]:
        """Go on with a failed run in a new one, as the dashboard's redrive does; the new run, not ended yet."""
        run_id = await self._lasting(lambda: self.engine.redrive(run.id))
        await self.clock.quiesce()
        return await self._read(run_id)

    # -- what there is -------------------------------------------------------------------------------------------------------

    async def read(self, run: ObservedRun[R]) -> ObservedRun[R]:
        """The same run as it is now."""
        return await self._read(run.id)

    async def runs(
        self, function: Function[Any, R] | None = None, *, status: str | None = None
    ) -> list[ObservedRun[R]]:
        """All runs, oldest first; of one function, or in one status, if given."""
        where = RunFilter(status=() if status is None else (status,), function=function.slug if function else None)
        sent = await self.events()
        found: list[ObservedRun[R]] = []
        cursor: str | None = None
        while True:
            views, cursor = await self.engine.reader.runs(where, limit=1000, cursor=cursor)
            found.extend([await self._read(view.id, sent) for view in views])
            if cursor is None:
                return found[::-1]

    async def events(self, name: str | None = None) -> list[ObservedEvent]:
        """All stored events, oldest first; those with one name if given, else without holdfast's own."""
        return [observe_event(view) for view in await self._event_views(name)]

    async def _event_views(self, name: str | None = None) -> list[EventView]:
        found: list[EventView] = []
        cursor: str | None = None
        while True:
            views, cursor = await self.engine.reader.events(
                name=name, limit=1000, cursor=cursor, internal=name is not None
            )
            found.extend(views)
            if cursor is None:
                return found[::-1]

    async def _read(self, run_id: str, sent: list[ObservedEvent] | None = None) -> ObservedRun[Any]:
        detail = await self.engine.reader.run(run_id)
        if detail is None:
            raise RunNotFoundError(f"there is no run {run_id} here")
        registered = self.engine.functions.get(detail.run.function)
        function = None if registered is None else registered.function
        return observe_run(detail, function, await self.events() if sent is None else sent)

    async def _stored(self, event_id: str) -> EventView | None:
        return next((view for view in await self._event_views() if view.id == event_id), None)

    def _name(self) -> str | None:
        """An id for an event that was given none, where it may have to be sent again after a planned crash."""
        if not self._survives:
            return None
        self._named += 1
        return f"event-{self._named}"

    def _app_of(self, function: Function[Any, Any]) -> App:
        for app in self.apps:
            if app.id == function.app_id:
                return app
        raise ConfigurationError(f"{function!r} belongs to app {function.app_id!r}, which this harness doesn't run")


def _directory() -> tempfile.TemporaryDirectory[str]:
    where = _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) else None  # noqa: PTH112 - no need for a Path
    return tempfile.TemporaryDirectory(prefix="holdfast-test-", dir=where)


class _EngineWatch:
    """What the clock must know of the engine of a harness."""

    def __init__(self, harness: AsyncHarness) -> None:
        self._harness = harness

    @property
    def quiescent(self) -> bool:
        engine = self._harness.engine
        return engine.quiescent or not engine.running

    @property
    def next_due(self) -> int | None:
        return self._harness.engine.next_due

    async def revive(self) -> bool:
        engine = self._harness.engine
        if engine.running:
            try:
                return await engine.relays.flush() > 0
            except HoldfastError:
                if engine.running:
                    raise
                # a planned crash came over it
        await self._harness._revive()
        return True

    def activity(self) -> list[str]:
        engine = self._harness.engine
        found = ["a commit is on its way"] if engine.store.group.busy else []
        for live in engine.live.values():
            found += [f"step {key!r} of {live.function_slug} is executing" for key in live.bodies]
            if not live.bodies and not live.waiting:
                found.append(f"{live.function_slug} is executing, or awaits something, outside its steps")
        return found
