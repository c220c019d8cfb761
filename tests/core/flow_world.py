"""A world in which plans of the core meet a real store: groups of any size, crashes, time that is moved, and a log of what happened.

The seam is that of the group commit (`store/group.py`): `begin`, `load`, `complete`, `decide`, `write`, `COMMIT`, `committed`
on a real SQLite file, with its lanes and counts in memory. What the engine does between commits is done here in a few lines:
launching what is leased, claiming, ringing alarms. What is expected is told apart from it: `places` and `Model`s of the tests
read the events that were sent and the log, and share nothing with the core.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.base.ids import IdFactory
from holdfast.core.completion import complete
from holdfast.core.ending import Cancel, End, Ending
from holdfast.core.flow import GateKind
from holdfast.core.flow_config import FlowReader
from holdfast.core.gathering import FireGather
from holdfast.core.ingest import Accepted, Ingest
from holdfast.core.machine import Lease, Narrow, Park, Record, Widen
from holdfast.core.plan import DUPLICATE, Refused
from holdfast.core.claiming import Claim, OpenLanes, Recover
from holdfast.core.queue import Leased
from holdfast.core.rows import AlarmKind, EventRow, RunRow, RunStatus, StepKind, StepRow, StepState, WaitRow
from holdfast.core.waiting import Register
from holdfast.engine.intake import Intake
from holdfast.sdk.sender import Outgoing
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite.registry import Registration, set_state

START = 1_900_000_000_000
ROUNDS = 400
"""Groups in which everything that is due must be done."""
RUNNING = frozenset({RunStatus.QUEUED, RunStatus.RUNNING})

JOB, STOP, WAKE = "t/job", "t/stop", "t/wake"
_template: bytes | None = None


def at_once(coroutine):
    """The result of a coroutine that never waits, as those of the SQLite store."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class Clock:
    """Moved by the test."""

    def __init__(self) -> None:
        self.ms = START

    def now(self) -> int:
        return self.ms


@dataclass(eq=False)
class Sent:
    """An event that was sent, and what became of it."""

    n: int
    name: str
    data: dict[str, Any]
    ts: int
    key: str | None
    raw: bytes = b""
    at: int = -1
    """When it was committed."""
    order: int = -1
    begun: int = 0
    """How many runs had begun by then."""


@dataclass(eq=False)
class Body:
    """A run in memory."""

    run: RunRow
    lease: Lease
    places: int = 1
    woken: int = 0


@dataclass
class Life:
    """A run as the log has it."""

    run: bytes
    function: str
    event: Sent
    queued: int
    started: int | None = None
    ended: int | None = None
    status: int | None = None


@dataclass
class World:
    """Functions, their rules, and the store that keeps their runs."""

    functions: dict[str, dict[str, Any]]
    capacity: int = 50
    claim_batch: int = 20
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="holdfast-world-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.path = self.directory / "world.db"
        self._use_template()
        self.sent: dict[bytes, Sent] = {}
        self.order: list[Sent] = []
        self.lives: dict[bytes, Life] = {}
        self.starts: list[tuple[int, Life]] = []
        self.crashes = self.steps = 0
        self.limits: dict[str, dict[str, int]] = defaultdict(dict)
        self.held: set[str] = set()
        self.ids = IdFactory(7)
        self.pending: list[Any] = []
        self._open()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()
        shutil.rmtree(self.directory)

    # -- boots -------------------------------------------------------------------------------------------------------

    def _use_template(self) -> None:
        """A migrated database is made once."""
        global _template
        if _template is None:
            store = SqliteStore(f"sqlite:///{self.path}", self.clock, synchronous="OFF")
            store._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            store._committed.close()
            store._conn.close()
            store._ownership.release()
            _template = self.path.read_bytes()
        self.path.write_bytes(_template)

    def _open(self) -> None:
        self.store = SqliteStore(f"sqlite:///{self.path}", self.clock, synchronous="OFF")
        self.intake = Intake(self.clock, self.ids, self.store)
        registrations = [
            Registration("t", slug, slug, json.dumps(config, sort_keys=True).encode())
            for slug, config in self.functions.items()
        ]
        known = self.store.register(registrations)
        self.id_of = {slug: known[slug][0] for slug in self.functions}
        self.slug_of = self.store.slugs()
        for slug, config in self.functions.items():
            function_id, version = known[slug]
            self.intake.router.add(JOB, function_id, version, config.get("on"))
            flow = FlowReader(config, function_id).read()
            if not flow.empty:
                self.intake.control(flow, lambda row: json.loads(row.data))
        self.store.flows = self.intake.flows
        self.store._room = lambda: self.capacity - len(self.live)
        self.live: dict[bytes, Body] = {}
        self.busy: Counter[Any] = Counter()
        self.suspects: set[bytes] = set()
        self.pending = []
        for function_id, (paused, limits) in self.store.function_states().items():
            self._put_in_force(function_id, paused, limits)
        self._executable()
        left = self.store.leased_by_others()
        if left:
            self.pending = [Recover(left)]
            self.commit(engine=False)

    def _close(self) -> None:
        self.store._committed.close()
        self.store._conn.close()
        self.store._ownership.release()

    def crash(self, *, torn: bool, functions: dict[str, dict[str, Any]] | None = None) -> None:
        """The process dies, in the middle of a group or between two, and comes back, perhaps with other code."""
        if torn and self.pending:
            self._decide(self.pending)
            self.store.rollback()
        self._close()
        self.crashes += 1
        self.functions = functions or self.functions
        self._open()

    # -- groups ------------------------------------------------------------------------------------------------------

    def _decide(self, group: list[Any]) -> Any:
        store = self.store
        tx = store.begin()
        store.load(tx, [read for plan in group for read in plan.reads()])
        tx.size = sum(plan.parts for plan in group) + 64
        complete(tx, store.load)
        for plan in group:
            plan.answer = plan.decide(tx)
        return tx

    def commit(self, *, engine: bool = True) -> bool:
        """One group: what waits to be decided, and what the engine would submit now. Whether there was anything."""
        group, self.pending = self.pending, []
        if engine:
            group += self._due()
        if not group:
            return False
        tx = self._decide(group)
        if not self.store.write(tx):
            self.store.rollback()
            if len(group) == 1:
                group[0].answer = DUPLICATE
                return True
            for plan in group:
                self.pending = [plan]
                self.commit(engine=False)
            return True
        self.store._conn.execute("COMMIT")
        self.store.committed(tx)
        for plan in group:
            if plan.then is not None:
                plan.then(plan.answer)
        return True

    def settle(self) -> None:
        """Let everything be decided that can be now."""
        for _ in range(ROUNDS):
            if not self.commit():
                self.check_rest()
                return
        raise AssertionError(f"after {ROUNDS} groups the world still isn't at rest: {self.describe()}")

    def _due(self) -> list[Any]:
        """What the engine submits by itself."""
        now, store = self.clock.now(), self.store
        plans: list[Any] = []
        for alarm in at_once(store.due_alarms(now, 500)):
            plans.append(self._canceller(alarm.run_id, AlarmKind(alarm.kind)))
        for gather in at_once(store.due_gathers(now, 500)):
            plans.append(self._firing(gather))
        timer = store.next_timer()
        room = store._room()
        if room > 0 and (self._servable() or (timer is not None and timer <= now)):
            claim = Claim(min(room, self.claim_batch), store.functions, suspect=not self.suspects)
            claim.then = self._began
            plans.append(claim)
        return plans

    def _servable(self) -> bool:
        suspect = self.store.lanes.get("!suspect")
        return self.store.backlog() or (suspect is not None and not suspect.blocked and not self.suspects and not self._absent())

    def _absent(self) -> bool:
        """Whether the suspects at hand are all of functions that are held now."""
        rows = self.rows("SELECT r.function_id FROM queue q JOIN runs r ON r.id = q.run_id WHERE q.lane = '!suspect' AND q.state = 0")
        return bool(rows) and all(function_id not in self.store.functions for (function_id,) in rows)

    def _firing(self, gather: Any, *, flush: bool = False) -> FireGather:
        event = self.store.fetch([(EventRow, gather.event_id)]).get(EventRow, gather.event_id)
        assert event is not None, "the event of a gather is gone"
        match = self.intake.match(event, gather.run_id, gather.function_id, 1)
        plan = FireGather(gather, event, match, flush=flush)
        plan.then = self._accepted
        return plan

    # -- what is done to it --------------------------------------------------------------------------------------------

    def send(self, name: str = JOB, *, delay: int = 0, key: str | None = None, **data: Any) -> Sent:
        """Send an event with the next group."""
        ts = self.clock.now() + delay
        body = json.dumps({**data, "n": len(self.order)}).encode()
        (incoming,) = self.intake.prepare([Outgoing(name, body, key, ts)])
        sent = Sent(-1, name, data, ts, key, incoming.event.id)
        plan = Ingest([incoming], len(body))

        def then(answer: Any) -> None:
            assert not isinstance(answer, Refused), answer
            sent.at, sent.order, sent.n = self.clock.now(), len(self.order), len(self.order)
            sent.begun = len(self.starts)
            self.sent[sent.raw] = sent
            self.order.append(sent)
            self._accepted(answer)

        plan.then = then
        self.pending.append(plan)
        return sent

    def body(self, index: int) -> Body | None:
        """One of the runs in memory."""
        bodies = list(self.live.values())
        return bodies[index % len(bodies)] if bodies else None

    def end(self, body: Body, *, failed: bool = False) -> None:
        """A run in memory ends."""
        ending = Ending(RunStatus.FAILED, error=b'{"name":"E","message":"m"}') if failed else Ending(RunStatus.COMPLETED, b"1")
        plan = End(body.lease, ending, waits=True)
        self._leaving(body, plan, lambda answer: self._accepted(answer))

    def park(self, body: Body, ms: int | None) -> None:
        """A run leaves memory until a moment, or until a t/wake of its tenant."""
        if ms is None:
            self.steps += 1
            key = f"w{self.steps}"
            now = self.clock.now()
            tenant = self.lives[body.run.id].event.data.get("tenant")
            lookup = f'{WAKE}\0tenant\0"{tenant}"'
            self.store.expect(lookup)
            step = StepRow(body.run.id, key, 0, StepState.PENDING, StepKind.WAIT_EVENT, now)
            register = Register(body.lease, step, WaitRow(body.run.id, key, lookup, None, created_at=now))
            self.pending.append(register)
        plan = Park(body.lease, None if ms is None else self.clock.now() + ms, body.woken)
        self._leaving(body, plan, lambda answer: None)

    def record(self, body: Body) -> None:
        """A run in memory has done a step."""
        self.steps += 1
        now = self.clock.now()
        step = StepRow(body.run.id, f"s{self.steps}", 0, StepState.DONE, StepKind.RUN, now, now, data=b"1")
        self.pending.append(Record(body.lease, step))

    def widen(self, body: Body) -> None:
        """A second body of a run wants to begin."""
        gates = self._lease_gates(body)
        if not gates:
            return
        plan = Widen(body.lease, gates)

        def then(answer: Any) -> None:
            if answer is True:
                assert self.live.get(body.run.id) is body
                body.places += 1
                self._take(body)

        plan.then = then
        self.pending.append(plan)

    def narrow(self, body: Body) -> None:
        """The bodies beside the first are done."""
        if body.places == 1:
            return
        count, body.places = body.places - 1, 1
        plan = Narrow(body.lease, self._lease_gates(body), count)

        def then(answer: Any) -> None:
            for _ in range(count):
                if not isinstance(answer, Refused):
                    self._give_back(body)

        plan.then = then
        self.pending.append(plan)

    def cancel(self, index: int) -> bytes | None:
        """Somebody cancels a run that hasn't ended."""
        lives = [life for life in self.lives.values() if life.ended is None]
        if not lives:
            return None
        life = lives[index % len(lives)]
        self.pending.append(self._canceller(life.run, None))
        return life.run

    def flush(self) -> None:
        """Somebody doesn't want to wait for debounces and batches."""
        for function_id in self.id_of.values():
            self.pending += [self._firing(gather, flush=True) for gather in at_once(self.store.gathers_of(function_id))]

    def pause(self, slug: str, how: str | None) -> None:
        """Pause a function, or resume it."""
        limits = self.limits[slug]
        set_state(self.store._conn, self.id_of[slug], how, limits)
        self._put_in_force(self.id_of[slug], how, limits)
        self._executable()
        self._open_lanes(slug)

    def limit(self, slug: str, rule: str, limit: int) -> None:
        """Change a limit while it runs."""
        self.limits[slug][rule] = limit
        how = self.store.paused.get(self.id_of[slug])
        set_state(self.store._conn, self.id_of[slug], how, self.limits[slug])
        self._put_in_force(self.id_of[slug], how, self.limits[slug])
        self._open_lanes(slug)

    def _open_lanes(self, slug: str) -> None:
        self.pending.append(OpenLanes(tuple(self.store.lanes.blocked_of(self.id_of[slug]))))

    def _put_in_force(self, function_id: int, paused: str | None, limits: Any) -> None:
        self.store.paused.pop(function_id, None)
        if paused is not None:
            self.store.paused[function_id] = paused
        flow = self.intake.flows.get(function_id)
        if flow is not None:
            flow.change_limits(limits)

    def _executable(self) -> None:
        held = {function for function, how in self.store.paused.items() if how == "hold"}
        self.store.functions = frozenset(self.id_of.values()) - held
        self.held = {self.slug_of[function] for function in held}

    def _lease_gates(self, body: Body) -> list[Any]:
        flow = self.intake.flows.get(body.run.function_id)
        gates = () if flow is None else flow.gates(body.run.lane, started=True)
        return [gate for gate in gates if gate.kind == GateKind.LEASE]

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def _canceller(self, run_id: bytes, alarm: AlarmKind | None) -> Cancel:
        plan = Cancel(run_id, alarm=alarm)

        def then(answer: Accepted | None) -> None:
            if answer is None:
                return
            body = self.live.pop(run_id, None)
            if body is not None:
                self.suspects.discard(run_id)
                for _ in range(body.places):
                    self._give_back(body)
            self._look(run_id)
            self._accepted(answer)

        plan.then = then
        return plan

    def _leaving(self, body: Body, plan: Any, after: Any) -> None:
        def then(answer: Any) -> None:
            if isinstance(answer, Refused):
                return
            if answer is False:  # woken before it had left
                return
            if self.live.get(body.run.id) is body:
                del self.live[body.run.id]
                self.suspects.discard(body.run.id)
                for _ in range(body.places):
                    self._give_back(body)
            self._look(body.run.id)
            after(answer)

        plan.then = then
        self.pending.append(plan)

    def _accepted(self, answer: Any) -> None:
        if isinstance(answer, Refused):
            return
        for run_id in answer.runs:
            self._look(run_id)
        for resolved in answer.resolved:
            body = self.live.get(resolved.run_id)
            assert body is not None, "a result for a run that isn't in memory"
            body.woken += 1
        self._began(answer.leased)

    def _began(self, leased: list[Leased]) -> None:
        for one in leased:
            run, item = one.run, one.item
            assert run.id not in self.live, f"run {run.id.hex()} is leased twice at once"
            slug = self.slug_of[run.function_id]
            assert slug not in self.held, f"{slug} is held and starts a run"
            life = self._look(run.id)
            assert life is not None
            body = self.live[run.id] = Body(run, Lease(item.id, run.id, item.owner, item.epoch))
            if item.crashes:
                self.suspects.add(run.id)
            if life.started is None:
                life.started = self.clock.now()
                self.starts.append((self.clock.now(), life))
                for gate in self.run_places(life):
                    self.busy[gate] = sum(
                        gate in self.run_places(other) for other in self.lives.values() if other.started is not None and other.ended is None
                    )
                    assert self.busy[gate] <= self._limit(gate), f"{gate} has {self.busy[gate]} runs"
            rules = self.functions[slug]
            if "batchEvents" not in rules and "timeout" not in rules.get("debounce", {}):  # these don't wait for an event's own time
                assert life.event.ts <= self.clock.now(), "a run starts before its event is due"
            self._take(body)

    def _take(self, body: Body) -> None:
        for gate in self.places(self.lives[body.run.id]):
            self.busy[gate] += 1
            assert self.busy[gate] <= self._limit(gate), f"{gate} has {self.busy[gate]} places taken: {self.describe()}"

    def _give_back(self, body: Body) -> None:
        for gate in self.places(self.lives[body.run.id]):
            self.busy[gate] -= 1

    def _look(self, run_id: bytes) -> Life | None:
        """What is on record of a run now."""
        row = self.rows("SELECT function_id, event_id, queued_at, ended_at, status FROM runs WHERE id = ?", run_id)
        if not row:
            return None  # a debounce or batch that waits
        ((function_id, event_id, queued, ended, status),) = row
        life = self.lives.get(run_id)
        if life is None:
            sent = self.sent.get(event_id)
            assert sent is not None, "a run of an event that was never acknowledged"
            life = self.lives[run_id] = Life(run_id, self.slug_of[function_id], sent, queued)
        life.ended, life.status = ended, status
        return life

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask the database with plain SQL."""
        return self.store._committed.execute(statement, parameters).fetchall()

    # -- what must hold ------------------------------------------------------------------------------------------------

    def places(self, life: Life) -> list[tuple[Any, ...]]:
        """The places that an executing body of a run takes, by the functions' documents alone: (holder, rule, key, limit)."""
        config = self.functions[life.function].get("concurrency")
        steps = config.get("step", []) if isinstance(config, dict) else config or []
        out = []
        for number, cap in enumerate(steps):
            scope = cap.get("scope", "fn")
            holder = life.function if scope == "fn" else scope
            name = ("concurrency", "concurrency-2")[number] if scope == "fn" else ""
            out.append((holder, name, cap.get("key"), model_key(cap.get("key"), life.event)))
        return out

    def run_places(self, life: Life) -> list[tuple[Any, ...]]:
        """The place that a run takes from its start to its end."""
        config = self.functions[life.function].get("concurrency")
        runs = config.get("fn", []) if isinstance(config, dict) else []
        return [(life.function, "run-concurrency", cap.get("key"), model_key(cap.get("key"), life.event)) for cap in runs]

    def _limit(self, gate: tuple[Any, ...], function: str | None = None) -> int:
        """The limit of a gate: of those who share it the highest, or the one of a function."""
        limits = []
        for slug, config in self.functions.items():
            if function not in (None, slug):
                continue
            given = config.get("concurrency")
            groups = given if isinstance(given, dict) else {"step": given or []}
            for number, cap in enumerate(groups.get("step", [])):
                name = ("concurrency", "concurrency-2")[number]
                scope = cap.get("scope", "fn")
                mine = (slug if scope == "fn" else scope, name if scope == "fn" else "", cap.get("key"))
                if mine == gate[:3]:
                    limits.append(self.limits[slug].get(name, cap["limit"]))
            for cap in groups.get("fn", []):
                if (slug, "run-concurrency", cap.get("key")) == gate[:3]:
                    limits.append(self.limits[slug].get("run-concurrency", cap["limit"]))
        return max(limits)

    def check_rest(self) -> None:
        """At rest: nothing waits at an open gate, and what the store counts is what is there."""
        counted = sum(self.store.lease_counts.values())
        executing = sum(body.places * len(self.places(self.lives[body.run.id])) for body in self.live.values())
        assert counted == executing, f"{counted} places are counted, {executing} are taken: {self.describe()}"
        now = self.clock.now()
        assert not self.rows("SELECT 1 FROM gathers WHERE due <= ?", now), "a debounce or batch is late"
        assert not self.rows("SELECT 1 FROM alarms WHERE at <= ?", now), f"an alarm is late: {self.rows('SELECT * FROM alarms')}"
        timed = self.rows("SELECT run_id FROM queue WHERE state = 1 AND due <= ?", now)
        if self.store._room() <= 0:
            return
        assert not timed, "a timer is late"
        for run_id, crashes in self.rows("SELECT run_id, crashes FROM queue WHERE state = 0"):
            life = self.lives[run_id]
            if life.function in self.held or (crashes and self._suspect_waits()):
                continue
            if life.started is None and not self.throttle_open(life):
                continue
            gates = self.places(life) + (self.run_places(life) if life.started is None else [])
            assert any(self.full(gate, life) for gate in gates), (
                f"run {life.run.hex()} of {life.function} (event {life.event.n} {life.event.data}) waits and nothing holds it up: {self.describe()}"
            )

    def _suspect_waits(self) -> bool:
        """Whether suspects have to wait for the one that is executed, or for the place of the first in their row."""
        lane = self.store.lanes.get("!suspect")
        return bool(self.suspects) or (lane is not None and lane.blocked > 0) or self._absent()

    def full(self, gate: tuple[Any, ...], life: Life) -> bool:
        """Whether a gate lets no more of this function's runs pass."""
        if gate[1] == "run-concurrency":
            used = sum(
                gate in self.run_places(other) for other in self.lives.values() if other.started is not None and other.ended is None
            )
            return used >= self._limit(gate, life.function)
        return self.busy[gate] >= self._limit(gate, life.function)

    def throttle_open(self, life: Life) -> bool:
        """Whether a throttle would let a run start now, by the starts there were."""
        rule = self.functions[life.function].get("throttle")
        if rule is None:
            return True
        limit = self.limits[life.function].get("throttle", rule["limit"])
        interval = duration(rule["period"]) / limit
        key = model_key(rule.get("key"), life.event)
        arrival = 0.0
        for at, other in self.starts:
            if other.function == life.function and model_key(rule.get("key"), other.event) == key:
                arrival = max(arrival, at) + interval
        return self.clock.now() >= arrival - interval * rule.get("burst", 0) + 1

    def drain(self) -> None:
        """Resume everything, let time pass and runs end, until nothing is left; it must come to that."""
        for slug in self.functions:
            self.pause(slug, None)
        for _ in range(600):
            self.settle()
            for body in list(self.live.values()):
                self.end(body)
            if self.pending:
                continue
            waiting = self.rows("SELECT DISTINCT r.id FROM waits w JOIN runs r ON r.id = w.run_id WHERE substr(w.key, 1, 1) <> char(1)")
            moments = [at for at in (self.store.next_timer(), self.store.next_alarm()) if at is not None]
            if moments:
                self.clock.ms = max(self.clock.ms + 1, min(moments))
            elif waiting:
                for tenant in "abc":
                    self.send(WAKE, tenant=tenant)
            elif self.rows("SELECT 1 FROM queue"):
                raise AssertionError(f"items wait for nothing: {self.describe()}")
            else:
                break
        else:
            raise AssertionError(f"it doesn't come to an end: {self.describe()}")
        self.check_empty()

    def check_empty(self) -> None:
        """After the end: nothing is held, and each event is accounted for, once for each function."""
        for table in ("queue", "waits", "alarms", "gathers", "run_counts"):
            left = self.rows(f"SELECT * FROM {table}")
            assert not left, f"{table} still has {left}"
        assert not list(self.store.lanes), list(self.store.lanes)
        assert self.store.lease_counts == {}
        for sent in self.order:
            if sent.name != JOB:
                continue
            for slug, function_id in self.id_of.items():
                runs = self.rows("SELECT id, status FROM runs WHERE event_id = ? AND function_id = ?", sent.raw, function_id)
                batched = self.rows(
                    "SELECT b.run_id FROM batch_events b JOIN runs r ON r.id = b.run_id WHERE b.event_id = ? AND r.function_id = ?",
                    sent.raw, function_id,
                )  # fmt: skip
                skips = self.rows("SELECT reason FROM skips WHERE event_id = ? AND function_id = ?", sent.raw, function_id)
                places = {run for run, _ in runs} | {run for (run,) in batched}
                real = [run for run, status in runs if status != RunStatus.SKIPPED]
                if skips:
                    assert not real and not batched, f"event {sent.n} was skipped ({skips}) by {slug}, and has runs"
                else:
                    assert len(places) == 1, f"event {sent.n} {sent.data} has {len(places)} runs of {slug} and no reason"

    def skips(self, sent: Sent, slug: str) -> str | None:
        """Why an event started no run of a function."""
        rows = self.rows("SELECT reason FROM skips WHERE event_id = ? AND function_id = ?", sent.raw, self.id_of[slug])
        return rows[0][0] if rows else None

    def lives_of(self, slug: str) -> list[Life]:
        """The runs of a function, from first to last."""
        return [life for life in self.lives.values() if life.function == slug]

    def describe(self) -> str:
        """What is there, in words."""
        queue = [
            (run.hex()[-6:], ("ready", "timed", "leased", "parked")[state], lane, held.replace("\n", " "))
            for run, state, lane, held in self.rows("SELECT run_id, state, lane, held FROM queue")
        ]
        lanes = [(row.lane, row.turn - START, row.blocked, row.gate) for row in self.store.lanes]
        return f"time +{self.clock.ms - START}, queue {queue}, lanes {lanes}, counts {self.store.lease_counts}, live {len(self.live)}"


def model_key(expression: str | None, sent: Sent) -> Any:
    """The value of a key, for the expressions that the tests use."""
    if expression is None:
        return None
    field_name = expression.removeprefix("event.data.")
    assert field_name.isidentifier(), expression
    return sent.data.get(field_name)


def duration(text: str) -> int:
    """Milliseconds of `5s`, `500ms`, `1m`, `1h`."""
    for unit, ms in (("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * ms
    raise AssertionError(text)
