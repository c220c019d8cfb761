"""The engine of one node: it accepts events, executes functions, and answers for their runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import msgspec
from prometheus_client import CollectorRegistry

from holdfast.base.clock import Clock, SystemClock
from holdfast.base.codec import ResultCodec
from holdfast.base.errors import (
    HoldfastError,
    NotRunningError,
    NotSerializableError,
    OverloadedError,
)
from holdfast.base.ids import IdFactory, derived_id, ulid_text
from holdfast.base.limits import MAX_RUN_STATE_BYTES, MAX_STEP_OUTPUT_BYTES, MAX_STEPS_PER_RUN
from holdfast.base.retry import RetryPolicy
from holdfast.core.claiming import Recover
from holdfast.core.ending import Ending
from holdfast.core.flow import UNCHANGED, FunctionState
from holdfast.core.ingest import Accepted, Incoming, Ingest
from holdfast.core.machine import Lease
from holdfast.core.plan import Plan, Refused
from holdfast.core.queue import Leased
from holdfast.core.rows import EventRow, RunRow, RunStatus
from holdfast.core.signals import Given, GiveSignal
from holdfast.engine.absent import Absent
from holdfast.engine.alarms import Alarms
from holdfast.engine.alerting import Alerting
from holdfast.engine.applications import Applications
from holdfast.engine.bulk import Bulks
from holdfast.engine.children import Children
from holdfast.engine.cluster import Cluster
from holdfast.engine.control import RunControl
from holdfast.engine.crons import Crons
from holdfast.engine.dispatch import Dispatch
from holdfast.engine.endpoints import Endpoints
from holdfast.engine.flow_control import FlowControl
from holdfast.engine.functions import Registered
from holdfast.engine.host import Run
from holdfast.engine.http_driver import HttpDriver
from holdfast.engine.intake import Intake
from holdfast.engine.interpreter import Interpreter
from holdfast.engine.lifecycle import Lifecycle, invoked_data
from holdfast.engine.live import LiveRun
from holdfast.engine.metrics import Metrics
from holdfast.engine.mirroring import Mirror
from holdfast.engine.notices import Notice, Notices
from holdfast.engine.outbound import EVERYTHING, Outbound, PrivateNetworks
from holdfast.engine.relays import Relays
from holdfast.engine.reported import Reported
from holdfast.engine.tasks import TaskFactory
from holdfast.engine.threads import Threads
from holdfast.engine.timers import Timers
from holdfast.engine.watch import LoopWatch, RunWatch, refuse_after_fork
from holdfast.sdk.app import App
from holdfast.sdk.callables import Callables
from holdfast.sdk.databases import Database
from holdfast.sdk.sender import Outgoing, Sent
from holdfast.sdk.steps import InvokeCall
from holdfast.store.api import Store
from holdfast.store.reads import Reader
from holdfast.store.sqlite.registry import Registration

_log = logging.getLogger("holdfast")
A = TypeVar("A")


@dataclass(slots=True)
class EngineOptions:
    """How an engine behaves."""

    capacity: int = 1000
    """Runs held in memory at once; more wait in the store."""
    claim_batch: int = 200
    """Runs claimed from the store at once."""
    linger_ms: int = 5000
    """How long a waiting run stays in memory before it leaves until its timer or event."""
    function_threads: int = 64
    """Threads for plain `def` functions."""
    step_threads: int = 32
    """Threads for plain `def` step bodies of async functions."""
    max_crashes: int = 5
    """How often a run may take the process down, alone and without progress, before it fails for good."""
    drain_seconds: float = 20.0
    """How long stopping waits for step bodies in progress."""
    keep_runs_ms: int = 7 * 86_400_000
    """Retention: how long a run is kept after its end."""
    keep_dead_letters_ms: int = 90 * 86_400_000
    prune_every_ms: int = 60_000
    tune_interpreter: bool = True
    """Whether the interpreter's cycle collector looks less often while the engine runs, and its threads change places sooner
    once something else computes beside it."""
    keep_inputs: bool = True
    """Whether what a step's body was called with is kept when it fails, to be looked at and edited; at most 64 KiB."""
    retry_interval_ms: int | None = None
    """A constant delay between the attempts of functions that are called over HTTP, instead of their backoff."""
    private_networks: PrivateNetworks | None = None
    """What of private networks may be called for applications: everything unless given. In production the server's settings say."""
    alert_every_ms: int = 1000
    """How often functions that have thresholds are looked at, while something moves."""
    relay_every_ms: int = 2_000
    """How often outboxes are looked into where nobody says that something was committed."""
    max_unsent: int = 20_000
    """Sends waiting for their commit before more are refused."""


class Engine:
    """One node. Made by `holdfast.compose`; it belongs to the loop it was started on."""

    def __init__(
        self,
        apps: Sequence[App],
        store: Store,
        reader: Reader,
        *,
        clock: Clock | None = None,
        options: EngineOptions | None = None,
        app_errors: Sequence[str] = (),
        databases: Sequence[Database] = (),
    ) -> None:
        self.apps = {app.id: app for app in apps}
        self.store = store
        self.reader = reader
        self.clock = clock or SystemClock()
        self.options = options or EngineOptions()
        self.app_errors = list(app_errors)
        """Why apps could not be loaded, for the dashboard."""
        self.ids = IdFactory()
        self.intake = Intake(self.clock, self.ids, store)
        self.lifecycle = Lifecycle(self)
        self.notices = Notices()
        self.metrics = Metrics(self)
        self.registry = CollectorRegistry()
        self.registry.register(self.metrics)
        self.callables = Callables()
        self.threads = Threads(self.options.step_threads, "holdfast-step")
        self.function_threads = Threads(self.options.function_threads, "holdfast-function")
        self.functions: dict[str, Registered] = {}
        self.draining = False
        self.running = False
        self.began_at = 0
        """When it began, in milliseconds since 1970."""
        self.loop: asyncio.AbstractEventLoop
        self.linger_ms = self.options.linger_ms
        self.capacity = self.options.capacity
        self.keep_inputs = self.options.keep_inputs
        self._slugs: dict[int, str] = {}
        self.executable: frozenset[int] = frozenset()
        """Functions whose runs may be executed here now: those of this node that are not held."""
        self._states: dict[int, FunctionState] = {}
        self.dispatch = Dispatch(
            self, self.metrics, claim_batch=self.options.claim_batch, max_crashes=self.options.max_crashes
        )
        self.live = self.dispatch.live
        self.launch = self.dispatch.launch
        self.claim = self.dispatch.claim
        self.resume = self.dispatch.resume
        self.left = self.dispatch.left
        self._by_id = self.dispatch.functions
        self.control = RunControl(self)
        self.children = Children(self)
        self.start = self.control.start
        self.result = self.control.result
        self.run_info = self.control.run_info
        self.list_runs = self.control.list_runs
        self.watch_run = self.control.watch_run
        self.cancel = self.control.cancel
        self.flow_control = FlowControl(self)
        self.applications = Applications(self)
        self.absent = Absent(self.intake)
        self.outbound = Outbound(self.options.private_networks or EVERYTHING)
        self.driver = HttpDriver(self)
        self.endpoints = Endpoints(self, self.applications, self.driver)
        self.step_limits: dict[int, int] = {}
        """Steps that a run of a function may have, where that was changed."""
        self.state_limits: dict[int, int] = {}
        """Bytes of results that a run may keep, where that was changed."""
        self._following: asyncio.Task[None] | None = None
        self.alerting = Alerting(self, self.metrics, self.options.alert_every_ms)
        self.rerun = self.control.rerun
        self.redrive = self.control.redrive
        self.discard = self.control.discard
        self.run_cron = self.control.run_cron
        self.audit = self.control.audit
        self.mirrors = [Mirror(self, app.id, sink) for app in apps for sink in app.sinks]
        self.relays = Relays.of_node(
            self, [*databases, *(database for app in apps for database in app.databases)], self.options.relay_every_ms
        )
        self.bulks = Bulks(self, self.control)
        self.reported = Reported(self)
        self.bulk_info = self.bulks.info
        self.cancel_bulk = self.bulks.cancel
        self._unsent = 0
        self._lifespans: list[Any] = []
        self._shared: list[tuple[App, Any]] = []
        self._interpreter = Interpreter()
        self._pruning: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Register the functions, recover what an earlier boot left, and begin.

        Raises:
            ConfigurationError: functions clash, or an app's lifespan fails to start.
            StoreError: the database can't be used.
        """
        self.loop = asyncio.get_running_loop()
        self._factory = TaskFactory(self.loop)
        try:
            self.relays.check(self.store.url)
            await self._register()
        except BaseException:
            await self._leave()
            await self.reader.close()
            await self.store.abandon()
            raise
        self.timers = Timers(self.clock, self.claim)
        self.store.start(self.room, self.executable)
        self.store.on_lanes = self.lanes_changed
        self.alarms = Alarms(self)
        shared = self.store.shared
        self.cluster = (
            None
            if shared is None
            else Cluster(self, shared, self.live, self.control, self.alarms, self._take_up, self._follow_functions)
        )
        self.store.on_alarm = self.alarms.arm
        self._factory.install()
        if self.options.tune_interpreter:
            self._interpreter.relax_collector()
            self.store.group.on_contention = self._interpreter.switch_sooner
        self.running = True
        self.began_at = self.clock.now()
        left = self.store.leased_by_others()
        if left:
            _log.warning("recovering %d runs that were being executed when the process died", len(left))
            await self.submit(Recover(left))
        await self.children.finish_cancelling()
        self.crons = Crons(self)
        await self.crons.start()
        for app in self.apps.values():
            app.bind(self)
        self.timers.arm(self.store.next_timer())
        self.alarms.start()
        if self.cluster is not None:
            self.cluster.start()
        self.alerting.start(self._by_id)
        for mirror in self.mirrors:
            self.notices.attach(mirror)
            mirror.start()
        self._retention = Timers(self.clock, self._prune)
        self._retention.arm(self.clock.now() + self.options.prune_every_ms)
        self._watches = (LoopWatch(self.loop), RunWatch(self.loop, self.clock.now, lambda: list(self.live.values())))
        for watch in self._watches:
            watch.start()
        refuse_after_fork(self.store.group)
        self.bulks.boot()
        await self.relays.start(self.apps.values())
        self.claim()

    async def _register(self) -> None:
        registrations, sources = [], []
        for app in self.apps.values():
            for function in dict.fromkeys(app.functions.values()):
                aliases = tuple(f"{app.id}-{alias}" for alias in function.options.aliases)
                config = msgspec.json.encode(function.config())
                registrations.append(Registration(app.id, function.slug, function.name, config, aliases))
                sources.append((app, function))
        known = self.store.register(registrations) if registrations else {}
        resources = {app.id: await self._enter(app) for app in self.apps.values()}
        for app, function in sources:
            function_id, version = known[function.slug]
            fn = Registered(app, function, function_id, version, resources[app.id])
            self.functions[function.slug] = fn
            self._by_id[function_id] = fn
            for trigger in function.triggers:
                if trigger.event is not None:
                    self.intake.router.add(trigger.event, function_id, version, trigger.expression)
            if fn.flow is not None:
                self.intake.control(fn.flow, fn.model_of)
        if self.driver.workers is not None and self.driver.workers.take_new:
            self.intake.remote.update(self._by_id)
        self._slugs = self.store.slugs()
        self.applications.restore()
        if self.app_errors or self.store.shared is not None:
            self.absent.follow(self.store.current_functions(), self._here)
        self._refresh_executable()
        self._restore_states()

    @property
    def _here(self) -> list[int]:
        """Functions that this node executes, or calls, itself."""
        return [*self._by_id, *self.applications.functions]

    async def _follow_functions(self) -> None:
        """Take up what was registered, changed or forgotten at other nodes."""
        shared = self.store.shared
        assert shared is not None
        records, functions = await shared.registered_now()
        called = self.applications.follow(records, functions)
        elsewhere = self.absent.follow(functions, self._here)
        if called or elsewhere:
            self.functions_changed()

    async def _take_up(self) -> None:
        """Go on with what a node has begun that is gone: cancellations to be followed, and bulk operations."""
        store = self.store
        parents, bulks = await asyncio.to_thread(lambda: (store.cancelled_with_children(), store.running_bulks()))
        await self.children.follow_all(parents)
        self.bulks.take_up(bulks)

    def _restore_states(self) -> None:
        """Functions that were paused, and limits that were changed, are so still."""
        self.store.flows = self.intake.flows
        states = self.store.function_states()
        for function_id in {*states, *self._states}:
            self.set_state(function_id, *states.get(function_id, UNCHANGED))

    def _refresh_executable(self) -> None:
        held = {function for function, how in self.store.paused.items() if how == "hold"}
        self.executable = self.store.functions = frozenset({*self._by_id, *self.applications.functions}) - held

    def functions_changed(self) -> None:
        """Applications have registered other functions."""
        self._slugs = self.store.slugs()
        self._refresh_executable()
        self._restore_states()
        self._following = self.loop.create_task(
            self.crons.follow_applications(list(self.applications.functions.values()))
        )
        self.claim()

    def set_state(self, function_id: int, paused: str | None, limits: Mapping[str, int]) -> None:
        """Put a function's pause and changed limits into force on this node."""
        self._states[function_id] = (paused, dict(limits))
        self.store.paused.pop(function_id, None)
        if paused is not None:
            self.store.paused[function_id] = paused
        self._refresh_executable()
        flow = self.intake.flows.get(function_id)
        if flow is not None:
            flow.change_limits(limits)

    def take_states(self, states: Mapping[int, FunctionState]) -> list[int]:
        """Put what is on record of all functions into force; those in which something changed by it."""
        changed = [
            function_id
            for function_id in {*states, *self._states}
            if states.get(function_id, UNCHANGED) != self._states.get(function_id, UNCHANGED)
        ]
        for function_id in changed:
            self.set_state(function_id, *states.get(function_id, UNCHANGED))
        return changed

    async def _enter(self, app: App) -> Any:
        if app.lifespan is None:
            return None
        manager = app.lifespan(app)
        value = await manager.__aenter__()
        self._lifespans.append(manager)
        app._share(value)
        self._shared.append((app, value))
        return value

    async def _leave(self) -> None:
        for app, value in self._shared:
            app._unshare(value)
        for manager in reversed(self._lifespans):
            await manager.__aexit__(None, None, None)

    async def stop(self, *, drain_seconds: float | None = None) -> None:
        """Take no more work, let step bodies finish and be recorded, hand the rest back, close the store."""
        if not self.running:
            return
        self.draining = True
        for app in self.apps.values():
            app.unbind(self)
        await self.relays.stop(self.apps.values())
        self.crons.stop()
        self.alarms.stop()
        if self.cluster is not None:
            self.cluster.stop()
        self.alerting.stop()
        self.timers.cancel()
        await self.bulks.stop()
        for watch in self._watches:
            watch.stop()
        if self._pruning is not None:
            await self._pruning
        self._retention.cancel()
        for live in list(self.live.values()):
            live.check()
        await self._drained(self.options.drain_seconds if drain_seconds is None else drain_seconds)
        for mirror in self.mirrors:
            await mirror.stop()
        self.running = False
        self._factory.remove()
        self._interpreter.restore()
        self.threads.close()
        self.function_threads.close()
        await self.reader.close()
        await self.store.close()
        await self._leave()
        self.notices.tell_all()
        self.control.close(NotRunningError("the engine stopped; the run goes on when it is started again"))

    async def _drained(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.driver.stop(seconds)
                await self.dispatch.emptied()
        except TimeoutError:
            late = list(self.live.values())
            _log.warning(
                "%d runs did not reach a recorded point in %g s; their steps in progress will run again",
                len(late),
                seconds,
            )
            await asyncio.gather(*(live.hand_back(self.clock.now()) for live in late), return_exceptions=True)
            for live in late:
                live.abandon()
            await self.driver.stop(0)
        await self.store.group.drain()

    async def __aenter__(self) -> Self:
        await self.boot()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def _prune(self) -> None:
        self._pruning = self.loop.create_task(self._prune_slices())

    async def _prune_slices(self) -> None:
        try:
            while await self.store.prune(self.options.keep_runs_ms, self.options.keep_dead_letters_ms):
                await asyncio.sleep(0)
            await self.relays.forget_steps(self, self.options.keep_runs_ms)
        except HoldfastError as error:
            _log.warning("retention: %s", error)
        finally:
            self._retention.arm(self.clock.now() + self.options.prune_every_ms)

    # -- what the node is --------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Runs in memory or on their way there, and calls to applications under way."""
        return len(self.live) + self.dispatch.loading + self.driver.in_flight

    def room(self) -> int:
        """How many more runs can be executed now."""
        return 0 if self.draining else self.capacity - self.in_flight

    def retry_delay_ms(self, backoff: RetryPolicy, attempt: int) -> int:
        """How long an application is given before it is called again."""
        interval = self.options.retry_interval_ms
        return backoff.delay_ms(attempt) if interval is None else interval

    def step_limit(self, function_id: int) -> int:
        """Steps that a run of a function may have (protocol section 1.10)."""
        return self.step_limits.get(function_id, MAX_STEPS_PER_RUN)

    def state_limit(self, function_id: int) -> int:
        """Bytes of results that a run of a function may keep (protocol section 1.10)."""
        return self.state_limits.get(function_id, MAX_RUN_STATE_BYTES)

    def call_out(self, leased: Sequence[Leased]) -> None:
        """Call applications for runs that are leased to this node."""
        self.driver.launch(leased)

    def call_ended(self) -> None:
        """A call to an application is over: there is room for another."""
        if self.running and not self.draining and self.dispatch.wanted:
            self.claim()
        self.dispatch.tell_if_empty()

    def remote_ended(self, run: RunRow, ending: Ending, accepted: Accepted | Refused) -> None:
        """After the commit of the end of a run that is executed elsewhere."""
        if not isinstance(accepted, Refused):
            self.accepted(accepted)
            self.ended(run, ending.status)

    @property
    def problem(self) -> str | None:
        """Why nothing is accepted, if nothing is."""
        closed = self.store.group.closed
        return str(closed) if closed is not None else None

    def status(self) -> dict[str, Any]:
        """What the health page shows."""
        return {
            "node": self.store.boot,
            "in_flight": self.in_flight,
            "capacity": self.capacity,
            "waiting_in_memory": sum(1 for live in self.live.values() if not live.bodies),
            "groups": self.store.group.groups,
            "accepting": self.running and not self.draining and self.problem is None,
            "problem": self.problem or self.store.problem,
            "app_errors": list(self.app_errors),
            "alerts": self.alerting.described(),
            "store_url": self.store.url,
        }

    def function_by_id(self, function_id: int) -> Registered | None:
        """A function that this node executes."""
        return self._by_id.get(function_id)

    def slug_of(self, function_id: int) -> str:
        """The slug of any function."""
        return self._slugs.get(function_id, str(function_id))

    @property
    def slugs(self) -> Mapping[int, str]:
        """The slug of every function, by its id."""
        return self._slugs

    def version_of(self, function_id: int) -> int:
        """The version of a function's configuration that is in force."""
        fn = self._by_id.get(function_id)
        return 1 if fn is None else fn.version

    def codec(self, annotation: Any) -> ResultCodec:
        """The codec of a return annotation."""
        return ResultCodec.of(annotation)

    def check_size(self, data: bytes, key: str) -> None:
        """Refuse a step result that is too large.

        Raises:
            NotSerializableError: naming the step and the sizes.
        """
        if len(data) > MAX_STEP_OUTPUT_BYTES:
            raise NotSerializableError(
                f"step {key!r} returned {len(data)} bytes of JSON, {MAX_STEP_OUTPUT_BYTES} are allowed; "
                "store it elsewhere and return a reference"
            )

    # -- accepting events --------------------------------------------------------------------------------------------

    def submit(self, plan: Plan[A]) -> asyncio.Future[A | Refused]:
        """Queue a plan for the next group commit."""
        return self.store.group.submit(plan)

    async def send(self, events: Sequence[Outgoing]) -> list[Sent]:
        """See `Sender.send`."""
        if self.draining or not self.running:
            raise NotRunningError("the engine is stopping and takes no more events; send again once it is back")
        if self._unsent >= self.options.max_unsent:
            raise OverloadedError(f"{self._unsent} sends wait for the disk; try again in a second")
        incoming = self.intake.prepare(events)
        if not incoming:
            return []
        plan = Ingest(incoming, sum(len(event.data) for event in events) + 256 * len(events))
        plan.then = self.accepted
        self._unsent += 1
        try:
            accepted = await self.submit(plan)
        finally:
            self._unsent -= 1
        if isinstance(accepted, Refused):
            # a client's retry with a seed whose first try is already here, or two of them in one group
            return [Sent(one.event.id, duplicate=True) for one in incoming]
        self.came_in([one.event.id for one in incoming])
        return [Sent(one.event.id, duplicate) for one, duplicate in zip(incoming, accepted.duplicates, strict=True)]

    def came_in(self, event_ids: Sequence[bytes]) -> None:
        """After the commit of events from outside."""
        self.metrics.events += len(event_ids)
        if self.notices.wanted:
            for event_id in event_ids:
                self.notices.publish(Notice("event", ulid_text(event_id)))

    def outbox_changed(self) -> None:
        """A transaction of the application's has sent events through the store's own outbox."""
        self.relays.store_changed()

    def send_threadsafe(self, events: Sequence[Outgoing]) -> list[Sent]:
        """See `Sender.send_threadsafe`."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            raise NotRunningError("send_sync would block the loop it waits for; use `await app.send(...)` here")
        return asyncio.run_coroutine_threadsafe(self.send(events), self.loop).result()

    async def bulk(self, action: str, where: Mapping[str, Any], *, rate: str | None = None) -> str:
        """See `Control.bulk`."""
        return ulid_text((await self.bulks.start(action, where, rate=rate)).id)

    def accepted(self, accepted: Accepted | Refused) -> None:
        """After the commit: start what was leased, tell runs in memory what was resolved."""
        if isinstance(accepted, Refused):
            return
        for mirror in self.mirrors:
            mirror.note(map(ulid_text, accepted.runs))
        if accepted.leased:
            self.launch(accepted.leased)
        if accepted.due is not None:
            self.timers.arm(accepted.due)
        for resolved in accepted.resolved:
            live = self.live.get(resolved.run_id)
            # a later lease has read the step with its other records
            if live is not None and live.lease.epoch == resolved.epoch:
                live.resolved(resolved.step, resolved.woken)

    def lanes_changed(self) -> None:
        """After a commit that changed lanes: claim what is ready, or wake up when something will be."""
        if not self.running:
            return
        if self.room() > 0 and self.store.backlog():
            self.claim()
        self.timers.arm(self.store.lanes.next_until())
        self.alerting.touched()

    async def send_signal(self, name: str, data: bytes) -> str | None:
        """See `Sender.send_signal`."""
        if self.draining or not self.running:
            raise NotRunningError("the engine is stopping and takes no more signals; give it again once it is back")
        plan = GiveSignal(name, data)
        plan.then = self.signalled
        given = await self.submit(plan)
        return None if isinstance(given, Refused) or given.run_id is None else ulid_text(given.run_id)

    def signalled(self, given: Given | Refused) -> None:
        """After the commit of a signal: the run it resumed goes on."""
        if not isinstance(given, Refused):
            self.accepted(given.accepted)

    # -- executing ---------------------------------------------------------------------------------------------------

    def may_linger(self, now: int, due: int | None, *, threaded: bool) -> bool:
        """Whether a run that only waits may stay in memory for now."""
        if len(self.live) * 2 > self.capacity or self.store.backlog():
            return False
        limit = min(self.linger_ms, 1000) if threaded else self.linger_ms
        return due is None and limit > 0 if due is None else due - now <= limit

    def woken(self, lease: Lease) -> int:
        """How many wake-ups the store has counted for a lease."""
        item = self.store.cached_item(lease.item_id)
        return 0 if item is None else item.woken

    def retried(self, live: Run) -> None:
        """An attempt failed and another follows."""
        self.metrics.of(live.fn.id).retried += 1
        if self.notices.wanted:
            self.notices.publish(Notice("run", live.run_id, live.fn.id))

    def run_ended(self, run: Run, ending: Ending, accepted: Accepted | Refused) -> None:
        """After the commit of a run's end."""
        if not isinstance(accepted, Refused):
            self.accepted(accepted)
            self.ended(run.run, ending.status)

    def run_cancelled(self, run: RunRow | None, accepted: Accepted | None) -> None:
        """After the commit of a cancellation: its code ends, and whoever waits for it hears of it."""
        if accepted is None:
            return
        live = None if run is None or run.ended_at is not None else self.live.get(run.id)
        if live is not None:
            live.abandon()
        self.accepted(accepted)
        if run is not None and run.ended_at is None:
            self.ended(run, RunStatus.CANCELLED)

    def ended(self, run: RunRow, status: int) -> None:
        """Count an end and tell those who wait for it."""
        duration = self.clock.now() - (run.started_at or run.queued_at)
        self.metrics.of(run.function_id).end(_ENDED[RunStatus(status)], duration)
        self.control.announce(run.id)
        self.alerting.touched()
        if status == RunStatus.CANCELLED:
            self.children.parent_cancelled(run.id)
        if self.notices.wanted:
            self.notices.publish(Notice("run", ulid_text(run.id), run.function_id))
            if status == RunStatus.FAILED:
                self.notices.publish(Notice("dead", ulid_text(run.id), run.function_id))

    def end_events(self, run: RunRow, event: EventRow | None, ending: Ending) -> list[Incoming]:
        """The lifecycle events of an end."""
        return self.lifecycle.of(run, event, ending)

    def run_in_memory(self, run_id: bytes) -> LiveRun | None:
        """A run that this node holds."""
        return self.live.get(run_id)

    def child(self, live: Run, call: InvokeCall[Any], target: Registered) -> Incoming:
        """The event and run of an invoked function; the run's id is derived from parent and step."""
        now = self.clock.now()
        data = invoked_data(live, call, target, now + call.timeout)
        row = EventRow(self.ids.new(now), "inngest/function.invoked", now, now, data, None, None, live.run.id)
        run_id = derived_id(now + 1, live.run.id, call.key)
        match = self.intake.match(
            row, run_id, target.id, target.version, origin=1, parent_id=live.run.id, parent_step=call.key
        )
        return Incoming(row, [match])

    @property
    def quiescent(self) -> bool:
        """Whether nothing moves until time passes or something comes from outside: no body, thread, commit or other code."""
        return (
            not self.store.group.busy
            and not self.driver.in_flight
            and not self.dispatch.claiming
            and not self.dispatch.loading
            and not self.bulks.busy
            and not self.alarms.ringing
            and not self.alerting.looking
            and not self.relays.looking
            and not any(mirror.writing for mirror in self.mirrors)
            and (self._pruning is None or self._pruning.done())
            and all(live.waiting for live in self.live.values())
        )

    @property
    def next_due(self) -> int | None:
        """When the first run goes on by itself, as the store has it. Schedules and housekeeping are not counted."""
        moments = [live.next_due for live in self.live.values()]
        stored = (self.store.next_timer(), self.store.next_alarm(), self.bulks.next_due)
        return min((due for due in (*stored, *moments) if due is not None), default=None)

    async def idle(self) -> None:
        """Wait until no run is in memory and nothing is being written; for tests and scripts."""
        while self.in_flight or self.store.group.busy or self.dispatch.claiming:
            await self.dispatch.emptied()
            await self.store.group.drain()
            await asyncio.sleep(0)


_ENDED = {RunStatus.COMPLETED: "completed", RunStatus.FAILED: "failed", RunStatus.CANCELLED: "cancelled"}
