"""What a read may take and do: time, threads, the file, and its neighbours the writers."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from reader_rows import NOW, Put, SetClock, shelf, text

from holdfast.base.clock import monotonic
from holdfast.base.errors import StoreError
from holdfast.core.rows import RunStatus
from holdfast.store.reads import Reader, RunFilter
from holdfast.store.sqlite.reader import SqliteReader
from holdfast.store.sqlite.reading import pool as pools
from holdfast.store.sqlite.reading.pool import ReadPool

pytestmark = pytest.mark.anyio

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def anyio_backend():
    return "asyncio"


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("holdfast-reader")]


def test_it_is_the_reader_that_others_are_promised():
    def accept(reader: Reader) -> Reader:
        return reader

    assert accept(SqliteReader.__new__(SqliteReader))
    asked = {name for name in vars(Reader) if not name.startswith("_")}
    assert asked <= set(dir(SqliteReader))


async def test_a_long_read_is_given_up_with_a_sentence_and_the_next_one_works(tmp_path):
    async with shelf(tmp_path) as one:
        pool = ReadPool(one.path, connections=1, time_limit=0.3)
        began = monotonic()
        with pytest.raises(StoreError, match=r"longer than 0\.3 s and was given up; ask for less") as failure:
            await pool.run(lambda conn: conn.execute(ENDLESS).fetchone())
        assert 0.25 < monotonic() - began < 3
        assert str(one.path) in str(failure.value)
        assert await pool.run(lambda conn: conn.execute("SELECT 1").fetchone()) == (1,)
        pool.close()


async def test_a_query_of_the_reader_is_cut_off_in_the_middle(tmp_path, monkeypatch):
    async with shelf(tmp_path) as one:
        event = one.event()
        # more runs than can be walked between two looks at the time
        await one.write(event, *(one.run(event, error="ValueError") for _ in range(20_000)))
        with monkeypatch.context() as patch:
            looks = []
            patch.setattr(pools, "monotonic", lambda: looks.append(0) or (0.0 if len(looks) <= 2 else 1e9))
            with pytest.raises(StoreError, match="took longer than 5 s"):
                await one.reader.runs(RunFilter(error="nothing has it"))
            assert len(looks) == 3, "when it was asked, when it began, and on the way"
        assert await one.reader.runs(RunFilter(error="nothing has it")) == ([], None)


async def test_waiting_for_a_thread_counts_and_is_said(tmp_path):
    async with shelf(tmp_path) as one:
        pool = ReadPool(one.path, connections=1, time_limit=0.2)
        gate = threading.Event()
        first = asyncio.ensure_future(pool.run(lambda conn: gate.wait()))
        second = asyncio.ensure_future(pool.run(lambda conn: conn.execute("SELECT 1").fetchone()))
        results = await asyncio.gather(first, second, return_exceptions=True)
        # the thread hangs in something that is no statement: both are let go all the same
        assert [type(result) for result in results] == [StoreError, StoreError]
        assert "took longer than 0.2 s" in str(results[0])
        assert "no thread was free" in str(results[1])
        gate.set()
        assert await pool.run(lambda conn: "free again") == "free again"
        pool.close()


async def test_too_many_waiting_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "MAX_WAITING", 3)
    async with shelf(tmp_path) as one:
        pool = ReadPool(one.path, connections=1, time_limit=5)
        gate = threading.Event()
        waiting = [asyncio.ensure_future(pool.run(lambda conn: gate.wait())) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="3 reads .* wait already"):
            await pool.run(lambda conn: None)
        gate.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert await pool.run(lambda conn: "free again") == "free again"
        pool.close()


async def test_a_read_nobody_waits_for_any_more_is_abandoned(tmp_path):
    async with shelf(tmp_path) as one:
        pool = ReadPool(one.path, connections=1, time_limit=60)
        started = threading.Event()

        def read(conn):
            started.set()
            return conn.execute(ENDLESS).fetchone()

        task = asyncio.ensure_future(pool.run(read))
        await asyncio.to_thread(started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # the one thread is free long before the limit
        assert await asyncio.wait_for(pool.run(lambda conn: conn.execute("SELECT 1").fetchone()), 10) == (1,)
        pool.close()


async def test_the_threads_are_few_named_and_gone_after_close(tmp_path):
    before = set(reader_threads())
    async with shelf(tmp_path) as one:
        reader = SqliteReader(one.path, one.clock, connections=2)
        await asyncio.gather(*(reader.count_runs(RunFilter()) for _ in range(20)))
        mine = set(reader_threads()) - before
        assert 1 <= len(mine) <= 2
        await reader.close()
        assert not any(thread.is_alive() for thread in mine)
        with pytest.raises(StoreError, match="closed"):
            await reader.functions()
        await reader.close()


async def test_a_reader_cannot_write(tmp_path):
    async with shelf(tmp_path) as one:
        pool = ReadPool(one.path, connections=1, time_limit=5)
        with pytest.raises(StoreError, match="readonly"):
            await pool.run(lambda conn: conn.execute("DELETE FROM runs"))
        pool.close()


async def test_a_missing_file_is_an_error_and_is_not_made(tmp_path):
    path = tmp_path / "gone?#%20.db"
    reader = SqliteReader(path, SetClock())
    with pytest.raises(StoreError, match="can't be read"):
        await reader.functions()
    await reader.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_path_with_signs_that_mean_something_in_a_url_is_read(tmp_path):
    folder = tmp_path / "50% off? #1"
    folder.mkdir()
    async with shelf(folder) as one:
        event = one.event()
        await one.write(event)
        assert (await one.reader.event(text(event.id))).name == event.name


async def test_a_file_that_is_no_database_is_an_error(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes " * 500)
    reader = SqliteReader(path, SetClock())
    with pytest.raises(StoreError, match="can't be read: file is not a database"):
        await reader.functions()
    await reader.close()


async def test_committed_rows_are_seen_at_once_while_the_writer_writes(tmp_path):
    """Each plan writes an event and two runs: a read sees what was answered before it, and never half of a plan."""
    async with shelf(tmp_path) as one:
        one.function(1, "shop-fulfil")
        answered = 0
        done = False

        async def write():
            nonlocal answered, done
            for _ in range(300):
                event = one.event()
                runs = [one.run(event, status=RunStatus.COMPLETED) for _ in range(2)]
                await one.store.submit(Put(event, *runs))
                answered += 1
                if answered % 10 == 0:
                    assert len(await one.reader.event_runs(text(event.id))) == 2
            done = True

        async def read():
            seen = []
            while not done:
                floor = answered
                view = await one.reader.overview(since=NOW - 1000, now=NOW, slices=1)
                assert view.events >= floor
                assert view.completed == 2 * view.events
                [stats] = await one.reader.stats(since=NOW - 1000)
                assert stats.completed >= view.completed
                seen.append(view.events)
            return seen

        _, *seen = await asyncio.gather(write(), read(), read())
        assert len({count for part in seen for count in part}) > 5, "the reads did not fall between the writes"
        assert (await one.reader.overview(since=NOW - 1000, now=NOW, slices=1)).events == 300


async def test_an_open_read_does_not_hold_the_writer_up(tmp_path):
    async with shelf(tmp_path) as one:
        pool = ReadPool(one.path, connections=1, time_limit=30)
        inside, gate = threading.Event(), threading.Event()

        def read(conn: sqlite3.Connection):
            before = conn.execute("SELECT count(*) FROM events").fetchone()[0]
            inside.set()
            gate.wait()
            return before, conn.execute("SELECT count(*) FROM events").fetchone()[0]

        reading = asyncio.ensure_future(pool.run(read))
        await asyncio.to_thread(inside.wait)
        await one.write(*(one.event() for _ in range(10)))
        assert len((await one.reader.events())[0]) == 10
        gate.set()
        assert await reading == (0, 0), "one read sees one commit"
        pool.close()
