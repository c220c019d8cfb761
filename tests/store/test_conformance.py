"""What every store must do, whatever its database. Parametrised over the stores there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast import StoreInUseError
from holdfast.base.clock import SystemClock
from holdfast.base.ids import IdFactory
from holdfast.core.ending import Cancel, End, Ending
from holdfast.core.ingest import Incoming, Ingest, Match
from holdfast.core.machine import FailAttempt, Lease, Park, Record
from holdfast.core.plan import DUPLICATE, STALE, Plan, Refused
from holdfast.core.claiming import Claim, Recover
from holdfast.core.restart import Restart, Write
from holdfast.core.rows import AttemptRow, EventRow, ItemRow, ItemState, LogRow, RunRow, RunStatus, StepKind, StepRow, StepState
from holdfast.store.postgres import PostgresStore
from holdfast.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

FUNCTION = 1
ids = IdFactory(7)
clock = SystemClock()

Open = Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Makes the store of this test."""
    if request.param == "sqlite":
        return lambda apps=("app",): SqliteStore(f"sqlite:///{tmp_path / 'store.db'}", clock, apps)
    url = request.getfixturevalue("postgres_url")
    return lambda apps=("app",): PostgresStore(url, clock, apps)


@pytest.fixture
def opened(make: Open) -> Open:
    """Opens the store of this test; again after a close, it is the same one."""

    @asynccontextmanager
    async def open_store(room: int = 100, functions: frozenset[int] = frozenset({FUNCTION})) -> AsyncIterator[Any]:
        store = make()
        left = [room]
        store.start(lambda: left[0], functions)
        try:
            yield store
        finally:
            await store.close()

    return open_store


def event(name: str = "a/b", key: str | None = None, ts: int | None = None) -> EventRow:
    now = clock.now()
    return EventRow(ids.new(now), name, ts or now, now, b"{}", key)


def incoming(row: EventRow, function: int = FUNCTION) -> Incoming:
    return Incoming(row, [Match(ids.new(clock.now() + 1), function, 1, str(function))])


async def started(store: Any, **options: Any) -> tuple[RunRow, Lease]:
    accepted = await store.submit(Ingest([incoming(event(**options))], 10))
    (leased,) = accepted.leased
    return leased.run, Lease(leased.item.id, leased.run.id, leased.item.owner, leased.item.epoch)


def step(run: RunRow, key: str = "s", data: bytes = b"1", state: StepState = StepState.DONE) -> StepRow:
    return StepRow(run.id, key, 0, state, StepKind.RUN, 1, 2, 0, None, data)


async def read(store: Any, cls: type, key: Any) -> Any:
    return (await store.read([(cls, key)])).get(cls, key)


async def test_the_insert_is_the_claim_where_there_is_room(opened):
    async with opened() as store:
        run, lease = await started(store)
        assert run.status == RunStatus.RUNNING
        assert (lease.epoch, lease.owner) == (1, store.boot)
        assert (await read(store, ItemRow, run.id)).state == ItemState.LEASED


async def test_without_room_an_item_waits_in_its_lane_and_is_claimed_later(opened):
    async with opened(room=0) as store:
        accepted = await store.submit(Ingest([incoming(event()) for _ in range(3)], 10))
        assert accepted.leased == []
        assert [lane.lane for lane in store.lanes] == ["1"]
    async with opened(room=2) as store:
        leased = await store.submit(Claim(10, frozenset({FUNCTION}), suspect=True))
        assert [one.run.id for one in leased] == accepted.runs[:2]
        assert all(one.run.status == RunStatus.RUNNING and one.item.epoch == 1 for one in leased)
        assert [lane.lane for lane in store.lanes] == ["1"]


async def test_items_of_functions_that_are_not_here_are_left_alone(opened):
    async with opened(functions=frozenset({FUNCTION})) as store:
        accepted = await store.submit(Ingest([incoming(event(), function=99)], 10))
        assert accepted.leased == []
        assert await store.submit(Claim(10, frozenset({FUNCTION}), suspect=True)) == []
        assert not store.backlog()


async def test_two_results_are_never_recorded_for_one_step(opened):
    async with opened() as store:
        run, lease = await started(store)
        first = await store.submit(Record(lease, step(run, data=b"1")))
        assert first.seq == 1
        again, other = await asyncio.gather(
            store.submit(Record(lease, step(run, data=b"2"))), store.submit(Record(lease, step(run, "t")))
        )
        assert again == DUPLICATE
        assert isinstance(other, StepRow)
        assert (await read(store, StepRow, (run.id, "s"))).data == b"1"


async def test_a_report_under_an_old_epoch_is_refused(opened):
    async with opened() as store:
        run, lease = await started(store)
        assert await store.submit(Park(lease, clock.now(), 0)) is True
        (leased,) = await store.submit(Claim(10, frozenset({FUNCTION}), suspect=True))
        assert leased.item.epoch == 2
        new = Lease(lease.item_id, lease.run_id, lease.owner, 2)
        for late in (
            Record(lease, step(run)),
            FailAttempt(lease, AttemptRow(run.id, "s", 0, 1, 2, None, b"{}"), None),
            Park(lease, None, 0),
            End(lease, Ending(RunStatus.COMPLETED)),
        ):
            assert await store.submit(late) is STALE
        assert isinstance(await store.submit(Record(new, step(run))), StepRow)


async def test_nothing_is_recorded_after_cancellation_and_it_happens_once(opened):
    async with opened() as store:
        run, lease = await started(store)
        answers = await asyncio.gather(*(store.submit(Cancel(run.id)) for _ in range(3)))
        assert sum(answer is not None for answer in answers) == 1
        assert await store.submit(Record(lease, step(run))) is STALE
        assert (await read(store, RunRow, run.id)).status == RunStatus.CANCELLED
        assert await read(store, ItemRow, run.id) is None


async def test_of_cancel_and_end_in_one_group_the_first_decides(opened):
    async with opened() as store:
        run, lease = await started(store)
        ended, cancelled = await asyncio.gather(
            store.submit(End(lease, Ending(RunStatus.COMPLETED, b"5"))), store.submit(Cancel(run.id))
        )
        assert not isinstance(ended, Refused)
        assert cancelled is None
        assert (await read(store, RunRow, run.id)).status == RunStatus.COMPLETED


async def test_park_is_refused_when_something_woke_the_run_meanwhile(opened):
    async with opened() as store:
        run, lease = await started(store)
        assert await store.submit(Park(lease, None, seen=1)) is False
        assert (await read(store, ItemRow, run.id)).state == ItemState.LEASED


async def test_sequence_numbers_go_on_after_a_restart(opened):
    async with opened() as store:
        run, lease = await started(store)
        for key in "abc":
            await store.submit(Record(lease, step(run, key)))
        await store.submit(Park(lease, clock.now(), 0))
    async with opened() as store:
        (leased,) = await store.submit(Claim(10, frozenset({FUNCTION}), suspect=True))
        lease = Lease(leased.item.id, run.id, leased.item.owner, leased.item.epoch)
        assert (await store.submit(Record(lease, step(run, "d")))).seq == 4


async def test_one_event_id_starts_a_function_once_in_one_group_and_across_groups(opened):
    async with opened() as store:
        answers = await asyncio.gather(*(store.submit(Ingest([incoming(event(key="k"))], 10)) for _ in range(100)))
        answers.append(await store.submit(Ingest([incoming(event(key="k"))], 10)))
        assert sum(len(answer.leased) for answer in answers) == 1
        assert len({answer.runs[0] for answer in answers}) == 1
        assert sum(answer.duplicates == [False] for answer in answers) == 1


async def test_a_plan_that_cannot_decide_fails_alone(opened):
    class Broken(Plan[None]):
        def reads(self):
            return ()

        def decide(self, tx):
            tx.put(LogRow(b"r" * 16, 1, 1, 1, "never"))
            raise LookupError("broken")

    async with opened() as store:
        answers = await asyncio.gather(
            *(store.submit(plan) for plan in (Ingest([incoming(event())], 10), Broken(), Ingest([incoming(event())], 10))),
            return_exceptions=True,
        )
        assert isinstance(answers[1], LookupError)
        assert [len(answers[n].leased) for n in (0, 2)] == [1, 1]
        assert await read(store, LogRow, (b"r" * 16, 1)) is None


async def test_items_of_an_earlier_boot_become_suspect_and_run_one_at_a_time(opened, tmp_path):
    async with opened() as store:
        runs = [(await started(store))[0] for _ in range(3)]
    async with opened() as store:
        left = store.leased_by_others()
        assert {item.run_id for item in left} == {run.id for run in runs}
        assert await store.submit(Recover(left)) == 3
        first = await store.submit(Claim(10, frozenset({FUNCTION}), suspect=True))
        assert len(first) == 1
        assert first[0].item.crashes == 1
        assert await store.submit(Claim(10, frozenset({FUNCTION}), suspect=False)) == []
        # a fresh run is not held up by suspects
        assert len((await store.submit(Ingest([incoming(event())], 10))).leased) == 1


async def test_progress_clears_the_suspicion(opened):
    async with opened() as store:
        await started(store)
    async with opened() as store:
        await store.submit(Recover(store.leased_by_others()))
        (leased,) = await store.submit(Claim(1, frozenset({FUNCTION}), suspect=True))
        lease = Lease(leased.item.id, leased.run.id, leased.item.owner, leased.item.epoch)
        await store.submit(Record(lease, step(leased.run)))
        assert (await read(store, ItemRow, leased.run.id)).crashes == 0


async def test_lanes_are_served_in_turn(opened):
    functions = frozenset({1, 2})
    async with opened(room=0, functions=functions) as store:
        for _ in range(50):
            await store.submit(Ingest([incoming(event(), function=1)], 10))
        await store.submit(Ingest([incoming(event(), function=2)], 10))
    async with opened(room=4, functions=functions) as store:
        leased = await store.submit(Claim(4, functions, suspect=True))
        assert 2 in {one.run.function_id for one in leased}


async def test_a_lane_without_items_goes_with_the_next_claim(opened):
    async with opened(room=0) as store:
        await store.submit(Ingest([incoming(event()) for _ in range(2)], 10))
    async with opened(room=2) as store:
        # as many as were asked for: there may be more
        assert len(await store.submit(Claim(1, frozenset({FUNCTION}), suspect=True))) == 2
        assert [lane.lane for lane in store.lanes] == ["1"]
        assert await store.submit(Claim(1, frozenset({FUNCTION}), suspect=True)) == []
        assert not store.lanes


async def test_a_timer_is_claimed_when_due_and_not_before(opened):
    async with opened() as store:
        run, lease = await started(store)
        await store.submit(Park(lease, clock.now() + 3_600_000, 0))
        assert await store.submit(Claim(10, frozenset({FUNCTION}), suspect=True)) == []
        assert store.next_timer() > clock.now()


async def test_redriving_twice_in_one_group_makes_one_run_with_the_finished_steps(opened):
    async with opened() as store:
        run, lease = await started(store)
        await store.submit(Record(lease, step(run, "done")))
        await store.submit(Record(lease, step(run, "failed", state=StepState.FAILED)))
        error = b'{"name": "E", "message": "m"}'
        await store.submit(End(lease, Ending(RunStatus.FAILED, error=error, fingerprint="f")))
        answers = await asyncio.gather(
            *(
                store.submit(Restart(run.id, Match(ids.new(clock.now()), FUNCTION, 1, "1", origin=3, parent_id=run.id), redrive=True))
                for _ in range(4)
            )
        )
        (new,) = {answer[0] for answer in answers}
        assert sum(len(answer[1].leased) for answer in answers) == 1
        assert (await read(store, StepRow, (new, "done"))).data == b"1"
        assert await read(store, StepRow, (new, "failed")) is None


async def test_a_second_application_is_refused_with_both_names(opened, make):
    async with opened():
        pass
    with pytest.raises(StoreInUseError, match="belongs to app app, not to other"):
        make(("other",))


async def test_plans_beyond_a_groups_bound_are_committed_in_order(opened):
    async with opened() as store:
        store.group.max_group = 7
        run, lease = await started(store)
        answers = await asyncio.gather(*(store.submit(Record(lease, step(run, f"s{n}"))) for n in range(50)))
        assert [answer.seq for answer in answers] == list(range(1, 51))
        assert store.group.groups >= 8


async def test_rows_survive_a_reopening_to_the_byte(opened):
    row = LogRow(b"x" * 16, 1, clock.now(), 20, "snow ☃ \x00 \U0001f9e8", "step")
    async with opened() as store:
        await store.submit(Write([row]))
    async with opened() as store:
        assert await read(store, LogRow, (b"x" * 16, 1)) == row
