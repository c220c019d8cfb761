"""What is PostgreSQL's own: its schema, its URL, several nodes in one schema, and a server that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast import ConfigurationError, StoreError, StoreInUseError, StoreUnreachableError, StoreVersionError
from holdfast.base.clock import SystemClock
from holdfast.cli.postgres_checks import postgres_store
from holdfast.base.ids import IdFactory
from holdfast.core.claiming import Claim, Recover
from holdfast.core.ending import Cancel, End, Ending
from holdfast.core.ingest import Incoming, Ingest, Match, wait_lookup
from holdfast.core.machine import Lease, Park, Record
from holdfast.core.plan import STALE
from holdfast.core.rows import EventRow, ItemRow, ItemState, RunRow, RunStatus, StepKind, StepRow, StepState, WaitRow
from holdfast.core.waiting import Register
from holdfast.store.api import Signal
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres.connection import connect, parse_url
from holdfast.store.postgres.reading.pool import PostgresReadPool
from holdfast.store.postgres.migrating import migrate_postgres

pytestmark = pytest.mark.anyio

FUNCTION = 1
clock = SystemClock()
ids = IdFactory()


@asynccontextmanager
async def node(url: str, room: int = 100, functions: frozenset[int] = frozenset({FUNCTION})) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, clock, ("app",))
    store.start(lambda: room, functions)
    try:
        yield store
    finally:
        await store.close()


def incoming(name: str = "a/b", key: str | None = None, data: bytes = b"{}", lookups: tuple[str, ...] = ()) -> Incoming:
    now = clock.now()
    return Incoming(EventRow(ids.new(now), name, now, now, data, key), [Match(ids.new(now + 1), FUNCTION, 1, "1")], (), lookups)


def lease_of(leased: Any) -> Lease:
    return Lease(leased.item.id, leased.run.id, leased.item.owner, leased.item.epoch)


async def started(store: PostgresStore) -> Lease:
    (leased,) = (await store.submit(Ingest([incoming()], 10))).leased
    return lease_of(leased)


def step(run_id: bytes, key: str = "s", data: bytes = b"1") -> StepRow:
    return StepRow(run_id, key, 0, StepState.DONE, StepKind.RUN, 1, 2, 0, None, data)


def waiting(lease: Lease, lookup: str, key: str = "w") -> Register:
    pending = StepRow(lease.run_id, key, 0, StepState.PENDING, StepKind.WAIT_EVENT, 1)
    return Register(lease, pending, WaitRow(lease.run_id, key, lookup, clock.now() + 60_000))


async def read(store: PostgresStore, cls: type, key: Any) -> Any:
    return (await store.read([(cls, key)])).get(cls, key)


# -- URL and schema --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "write postgresql://user@host/database"),
        ("postgresql://host/db?schema=no%20name", "is not a name"),
        ("postgresql://host/db?pooler=session", "the one value is transaction"),
        ("postgresql://host/db?lease_seconds=0", "between 1 and 600"),
    ],
)
def test_a_url_that_is_not_understood_is_a_sentence(url, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_url(url)


def test_the_url_that_is_shown_holds_no_password():
    settings = parse_url("postgresql://me:secret@host:5433/db?schema=other&sslmode=require&password=secret")
    assert settings.shown == "postgresql://me@host:5433/db?schema=other&sslmode=require"
    assert "secret" in settings.conninfo
    assert "schema" not in settings.conninfo


async def test_a_server_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(StoreUnreachableError, match="can't be reached"):
        PostgresStore(f"postgresql://postgres@/postgres?host={tmp_path}", clock)


async def test_a_database_that_is_not_there_says_what_to_check(postgres_url):
    with pytest.raises(StoreError, match="check the user, password and database"):
        PostgresStore(postgres_url.replace("/postgres?", "/nothere?"), clock)


async def test_nodes_that_start_together_migrate_once(postgres_url):
    stores = await asyncio.gather(*(asyncio.to_thread(PostgresStore, postgres_url, clock, ("app",)) for _ in range(5)))
    assert len({store.boot for store in stores}) == 5
    for store in stores:
        await store.abandon()


def test_a_migration_that_was_changed_after_it_was_applied_is_refused(postgres_url):
    settings = parse_url(postgres_url)
    with connect(settings, "test") as conn:
        migrate_postgres(conn, settings, 1)
        conn.execute(f"UPDATE {settings.schema}.migrations SET checksum = 'other' WHERE number = 1")
        with pytest.raises(StoreError, match="migration 1 was applied in another form"):
            migrate_postgres(conn, settings, 1)


def test_a_schema_from_a_newer_version_is_refused(postgres_url):
    settings = parse_url(postgres_url)
    with connect(settings, "test") as conn:
        migrate_postgres(conn, settings, 1)
        conn.execute(f"INSERT INTO {settings.schema}.migrations VALUES (999, 'future', 'x', 0)")
        conn.execute(f"INSERT INTO {settings.schema}.meta VALUES ('compatible_from', '999')")
    with pytest.raises(StoreVersionError, match="newer holdfast"):
        PostgresStore(postgres_url, clock)


async def test_two_schemas_of_one_database_are_two_stores(postgres_url):
    async with node(postgres_url) as one, node(f"{postgres_url}_other") as other:
        lease = await started(one)
        assert await read(other, RunRow, lease.run_id) is None


async def test_the_doctor_reads_a_schema_without_touching_it(postgres_url):
    before = list(postgres_store(postgres_url))
    assert [finding.subject for finding in before] == ["store"]
    async with node(postgres_url):
        text = " ".join(finding.text for finding in postgres_store(postgres_url))
        assert "1 alive; it belongs to app app" in text
    assert "first start makes it" in before[0].text
    (refused,) = postgres_store(postgres_url.replace("/postgres?", "/nothere?"))
    assert "check the user, password and database" in refused.text


# -- several nodes ---------------------------------------------------------------------------------------------------------


async def test_one_event_id_starts_a_function_once_across_nodes(postgres_url):
    async with node(postgres_url) as one, node(postgres_url) as two, node(postgres_url) as three:
        for round_ in range(20):
            answers = await asyncio.gather(
                *(store.submit(Ingest([incoming(key=f"k{round_}")], 10)) for store in (one, two, three) for _ in range(3))
            )
            assert sum(len(answer.leased) for answer in answers) == 1
            assert len({answer.runs[0] for answer in answers}) == 1


async def test_items_are_claimed_by_one_node_each(postgres_url):
    async with node(postgres_url, room=0) as sender:
        accepted = [await sender.submit(Ingest([incoming() for _ in range(20)], 10)) for _ in range(5)]
    wanted = {run for answer in accepted for run in answer.runs}
    async with node(postgres_url) as one, node(postgres_url) as two, node(postgres_url) as three:
        claimed: list[bytes] = []
        for _ in range(100):
            answers = await asyncio.gather(
                *(store.submit(Claim(7, frozenset({FUNCTION}), suspect=True)) for store in (one, two, three))
            )
            claimed += [leased.run.id for answer in answers for leased in answer]
            if len(claimed) >= len(wanted):
                break
        assert sorted(claimed) == sorted(wanted)


async def test_a_result_from_another_node_takes_a_sequence_number_that_the_owner_does_not_use_again(postgres_url):
    async with node(postgres_url) as owner, node(postgres_url, room=0, functions=frozenset()) as other:
        lease = await started(owner)
        assert (await owner.submit(Record(lease, step(lease.run_id, "a")))).seq == 1
        await owner.submit(waiting(lease, "later/event"))
        await other.submit(Ingest([incoming("later/event")], 10))
        assert (await owner.submit(Record(lease, step(lease.run_id, "b")))).seq == 3
        resolved = await read(owner, StepRow, (lease.run_id, "w"))
        assert (resolved.seq, resolved.state) == (2, StepState.DONE)
        # the owner has not seen it yet, and can't let go
        assert await owner.submit(Park(lease, None, seen=0)) is False
        assert await owner.submit(Park(lease, None, seen=1)) is True


async def test_an_event_finds_a_wait_by_a_path_that_its_node_has_never_heard_of(postgres_url):
    async with node(postgres_url) as owner, node(postgres_url, room=0, functions=frozenset()) as other:
        lease = await started(owner)
        await owner.submit(waiting(lease, wait_lookup("order/paid", "order.id", 7)))
        assert not other.wait_paths("order/paid")
        await other.submit(Ingest([incoming("order/paid", data=b'{"order": {"id": 8}}')], 10))
        assert (await read(owner, StepRow, (lease.run_id, "w"))).state == StepState.PENDING
        accepted = await other.submit(Ingest([incoming("order/paid", data=b'{"order": {"id": 7}}')], 10))
        assert [one.run_id for one in accepted.resolved] == [lease.run_id]
        assert (await read(owner, StepRow, (lease.run_id, "w"))).state == StepState.DONE


async def test_two_events_for_one_wait_at_once_resolve_it_once(postgres_url):
    async with node(postgres_url) as one, node(postgres_url) as two:
        for n in range(20):
            lease = await started(one)
            await one.submit(waiting(lease, f"go/{n}"))
            answers = await asyncio.gather(
                *(store.submit(Ingest([incoming(f"go/{n}", lookups=(f"go/{n}",))], 10)) for store in (one, two))
            )
            assert sum(len(answer.resolved) for answer in answers) == 1
            assert (await read(one, ItemRow, lease.run_id)).woken == 1


async def test_cancelling_on_one_node_and_ending_on_another_agree(postgres_url):
    async with node(postgres_url) as one, node(postgres_url) as two:
        for _ in range(20):
            lease = await started(one)
            ended, cancelled = await asyncio.gather(
                one.submit(End(lease, Ending(RunStatus.COMPLETED, b"1"))), two.submit(Cancel(lease.run_id))
            )
            status = (await read(two, RunRow, lease.run_id)).status
            assert (status == RunStatus.COMPLETED) == (ended is not STALE) == (cancelled is None)


def deadlocks(store: PostgresStore) -> Any:
    with connect(store.settings, "test") as conn:
        return conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()


async def test_groups_of_many_nodes_over_the_same_runs_do_not_deadlock(postgres_url):
    async with node(postgres_url) as one, node(postgres_url) as two, node(postgres_url) as three:
        before = deadlocks(one)
        leases = [await started(one) for _ in range(30)]
        for n, lease in enumerate(leases):
            await one.submit(waiting(lease, f"go/{n % 5}"))
        plans = []
        for n in range(60):
            store = (one, two, three)[n % 3]
            plans.append(store.submit(Ingest([incoming(f"go/{n % 5}", lookups=(f"go/{n % 5}",))], 10)))
            if n < 30:
                plans.append(one.submit(Record(leases[29 - n], step(leases[29 - n].run_id, "s"))))
            if n % 6 == 0:
                plans.append(store.submit(Cancel(leases[n // 2].run_id)))
        async with asyncio.timeout(20):
            await asyncio.gather(*plans)
        assert deadlocks(one) == before


# -- nodes that die --------------------------------------------------------------------------------------------------------


def expire(store: PostgresStore) -> None:
    """Let a node's lease run out, as if it had been stopped for long."""
    with connect(store.settings, "test") as conn:
        conn.execute(f"UPDATE {store.settings.schema}.node_leases SET expires = now() - interval '1 s' WHERE node_id = %s", [store.boot])
        conn.execute(f"UPDATE {store.settings.schema}.duties SET expires = now() - interval '1 s' WHERE node_id = %s", [store.boot])


async def test_a_node_whose_lease_ran_out_loses_its_items_and_its_late_report_is_refused(postgres_url):
    async with node(postgres_url) as stopped:
        lease = await started(stopped)
        expire(stopped)
        async with node(postgres_url) as other:
            (left,) = await other.left_behind()
            assert left.run_id == lease.run_id
            assert await other.submit(Recover([left])) == 1
            (leased,) = await other.submit(Claim(10, frozenset({FUNCTION}), suspect=True))
            assert (leased.item.crashes, leased.item.epoch, leased.item.owner) == (1, lease.epoch + 1, other.boot)
            before = stopped.boot
            # it wakes up: what it did meanwhile is not recorded, and it goes on as a new node
            assert await stopped.submit(Record(lease, step(lease.run_id))) is STALE
            assert stopped.boot > before
            assert (await started(stopped)).owner == stopped.boot
            assert isinstance(await other.submit(Record(lease_of(leased), step(lease.run_id))), StepRow)


async def test_recovering_twice_counts_one_crash(postgres_url):
    async with node(postgres_url) as stopped, node(postgres_url, room=0) as one, node(postgres_url, room=0) as two:
        lease = await started(stopped)
        expire(stopped)
        with connect(one.settings, "test") as conn:
            one.membership.look(conn)
            two.membership.look(conn)
        left = [await one.left_behind(), await two.left_behind()]
        recovered = await asyncio.gather(one.submit(Recover(left[0])), two.submit(Recover(left[1])))
        assert sorted(recovered) == [0, 1]
        item = await read(one, ItemRow, lease.run_id)
        assert (item.crashes, item.state) == (1, ItemState.READY)


async def test_one_node_leads_and_another_takes_over(postgres_url):
    async with node(postgres_url) as one, node(postgres_url) as two:
        assert (one.leads, two.leads) == (True, False)
        expire(one)
        with connect(two.settings, "test") as conn:
            two.membership.look(conn)
        assert two.leads
    async with node(postgres_url) as third:
        assert third.leads


# -- a server that goes away -----------------------------------------------------------------------------------------------


async def test_a_connection_that_is_ended_between_groups_is_opened_again(postgres_url):
    async with node(postgres_url) as store:
        lease = await started(store)
        kill_connections(store)
        # what a run reports waits for the server; what a client asks is refused, and it may ask again
        assert isinstance(await store.submit(Record(lease, step(lease.run_id))), StepRow)
        assert store.problem is None


def kill_connections(store: PostgresStore) -> None:
    with connect(store.settings, "test") as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'holdfast %%' AND pid <> %s",
            [conn.info.backend_pid],
        )


async def test_what_could_not_be_told_over_a_broken_connection_is_told_over_the_next(postgres_url):
    heard: asyncio.Queue[Signal] = asyncio.Queue()
    async with node(postgres_url) as one, node(postgres_url) as two, asyncio.timeout(60):
        two.follow(heard.put_nowait, None)
        pid = await lease_connection(one)
        while one.membership.others == 0:  # it tells nobody while it believes to be alone
            one.membership.look_soon()
            await asyncio.sleep(0.02)
        one.membership.tell(Signal(woken={1001}))
        while 1001 not in (await heard.get()).woken:
            pass
        with connect(two.settings, "test") as conn:
            conn.execute("SELECT pg_terminate_backend(%s)", [pid])
        one.membership.tell(Signal(woken={1002}))
        while 1002 not in (await heard.get()).woken:
            pass
        assert await lease_connection(one) != pid


async def lease_connection(store: PostgresStore) -> int:
    """The server's process for the connection over which a node tells."""
    while store.membership._conn is None:
        store.membership.look_soon()
        await asyncio.sleep(0.02)
    return store.membership._conn.info.backend_pid


@pytest.mark.parametrize("committed", [True, False])
async def test_a_connection_lost_over_a_commit_is_resolved_exactly(postgres_url, committed, monkeypatch):
    """The commit is sent and the answer never comes: whether it happened is asked of the server."""
    async with node(postgres_url) as store:
        lease = await started(store)
        thread = store._groups
        real, cut = thread.commit, []

        def commit(xid: str) -> BaseException | None:
            if not cut:
                cut.append(xid)
                conn = thread.connection()
                if committed:
                    conn.execute("COMMIT")
                with connect(store.settings, "test") as other:
                    other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
            return real(xid)

        monkeypatch.setattr(thread, "commit", commit)
        answer = await store.submit(Record(lease, step(lease.run_id)))
        assert cut
        assert isinstance(answer, StepRow)  # recorded once, whether the first commit had happened or the second did
        assert (await read(store, StepRow, (lease.run_id, "s"))).seq == answer.seq
        assert store.group.hindered is None


async def test_a_second_application_names_the_remedy(postgres_url):
    async with node(postgres_url):
        with pytest.raises(StoreInUseError, match=r"\?schema=name"):
            PostgresStore(postgres_url, clock, ("other",))


async def test_behind_a_pooler_nothing_of_a_session_is_relied_on(postgres_url):
    async with node(f"{postgres_url}&pooler=transaction") as store:
        lease = await started(store)
        for key in "abcdefgh":
            await store.submit(Record(lease, step(lease.run_id, key)))
        assert store._groups.connection().execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
        assert not store._listener._thread.is_alive()


async def test_a_long_read_is_given_up_with_a_sentence_and_the_next_one_works(postgres_url):
    async with node(postgres_url) as store:
        pool = PostgresReadPool(store.settings, connections=1, time_limit=0.3)
        with pytest.raises(StoreError, match=r"took longer than 0.3 s and was given up; ask for less"):
            await pool.run(lambda conn: conn.execute("SELECT pg_sleep(5)").fetchone())
        assert await pool.run(lambda conn: conn.execute("SELECT 1").fetchone()) == (1,)
        with pytest.raises(StoreError, match="read-only"):
            await pool.run(lambda conn: conn.execute("DELETE FROM runs"))
        kill_connections(store)
        assert await pool.run(lambda conn: conn.execute("SELECT 2").fetchone()) == (2,)
        await asyncio.to_thread(pool.close)
