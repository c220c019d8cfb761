"""P8, D5: the status sink: statuses of runs in a real Redis, right also after crashes, outages and writes out of order."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from holdfast import App, Backoff, Concurrency, Context, Event, NonRetriableError
from holdfast.base.errors import ConfigurationError
from holdfast.sinks import JobStatus, KeyTemplate, Mirrored, RedisStatus
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio

KEY = "job:v1:{event.data.clientId}:{function}"


class Recompute(Event, name="t/recompute"):
    client_id: str = "c1"
    failures: int = 0
    nap: int = 0

    model_config = {"alias_generator": lambda name: "clientId" if name == "client_id" else name}


class Watched(RedisStatus):
    """The sink, with what it was given; and it can be out of order."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.seen: list[tuple[str, int, str | None]] = []
        self.down = False

    async def open(self) -> Mirrored:
        self._check()
        return await super().open()

    async def write(self, statuses: Sequence[JobStatus]) -> None:
        self._check()
        await super().write(statuses)
        self.seen += [(status.status, status.attempt, status.last_error) for status in statuses]

    def _check(self) -> None:
        if self.down:
            raise redis.ConnectionError("out of order")


def build(url: str, **settings: Any) -> tuple[App, Watched, Any]:
    sink = Watched(url, key=KEY, **settings)
    app = App("t", sinks=[sink])
    tries: dict[str, int] = {}

    @app.function(Recompute, retries=3, backoff=Backoff.constant("10s"))
    async def recompute(ctx: Context[Recompute]) -> None:
        wanted = ctx.event.data
        if wanted.nap:
            await ctx.step.sleep("nap", timedelta(seconds=wanted.nap))
        await ctx.step.run("work", work, ctx.run_id, wanted.failures)

    def work(run_id: str, failures: int) -> None:
        tries[run_id] = tries.get(run_id, 0) + 1
        if tries[run_id] <= failures:
            raise ConnectionError(f"forced {tries[run_id]}")

    return app, sink, recompute


def blob(store: redis.Redis, key: str = "job:v1:c1:recompute") -> dict[str, Any]:
    text = store.get(key)
    assert text is not None
    return json.loads(text)


def start() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def test_start_retries_and_success(redis_url, store):
    app, sink, recompute = build(redis_url)
    began = start()
    async with Harness(app, start=began) as h:
        run = await h.start(recompute, Recompute(failures=2))
        assert blob(store) == {
            "status": "retrying", "startedAt": began.isoformat(timespec="milliseconds").replace("+00:00", "Z"), "finishedAt": None,
            "durationMs": None, "attempt": 2, "lastError": "forced 1",
        }  # fmt: skip
        assert store.ttl("job:v1:c1:recompute") == -1
        await h.advance("10s")
        assert (blob(store)["status"], blob(store)["attempt"], blob(store)["lastError"]) == ("retrying", 3, "forced 2")
        await h.finish(run)
        ended = blob(store)
        assert ended == {
            "status": "completed", "startedAt": began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "finishedAt": (began + timedelta(seconds=20)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "durationMs": 20_000, "attempt": 3, "lastError": "forced 2",
        }  # fmt: skip
        assert 7 * 86_400 - 60 < store.ttl("job:v1:c1:recompute") <= 7 * 86_400 + 20
        assert store.smembers("holdfast:status:unfinished") == set()


async def test_running_is_written_at_the_start(redis_url, store):
    app, sink, recompute = build(redis_url)
    async with Harness(app, start=start()) as h:
        await h.start(recompute, Recompute(nap=60))
        assert (blob(store)["status"], blob(store)["attempt"]) == ("running", 1)
        assert blob(store)["startedAt"] is not None


async def test_final_failure_and_cancellation(redis_url, store):
    app, sink, recompute = build(redis_url)
    async with Harness(app, start=start()) as h:
        await h.run(recompute, Recompute(failures=9))
        failed = blob(store)
        assert (failed["status"], failed["attempt"]) == ("failed", 4)
        assert "forced 4" in failed["lastError"]
        assert failed["finishedAt"] is not None
        run = await h.start(recompute, Recompute(client_id="c2", nap=60))
        await h.cancel(run)
        cancelled = blob(store, "job:v1:c2:recompute")
        assert (cancelled["status"], cancelled["lastError"]) == ("cancelled", None)


async def test_a_function_that_fails_outside_its_steps(redis_url, store):
    sink = Watched(redis_url, key=KEY)
    app = App("t", sinks=[sink])
    calls = 0

    @app.function(Recompute, retries=2, backoff=Backoff.constant("10s"))
    async def recompute(ctx: Context[Recompute]) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ValueError(f"no {calls}")

    async with Harness(app, start=start()) as h:
        run = await h.start(recompute, Recompute())
        assert (blob(store)["status"], blob(store)["attempt"], blob(store)["lastError"]) == ("retrying", 2, "no 1")
        await h.finish(run)
        assert (blob(store)["status"], blob(store)["attempt"], blob(store)["lastError"]) == ("completed", 3, "no 2")


async def test_a_run_that_waits_shows_as_queued_only_where_none_is_under_way(redis_url, store):
    sink = Watched(redis_url, key=KEY)
    app = App("t", sinks=[sink])
    gate = asyncio.Event()

    @app.function(Recompute, concurrency=Concurrency(1))
    async def recompute(ctx: Context[Recompute]) -> None:
        await ctx.step.run("work", gate.wait)

    async def becomes(status: str, key: str) -> None:
        deadline = time.monotonic() + 60
        while not store.exists(key) or blob(store, key)["status"] != status:
            assert time.monotonic() < deadline, sink.seen
            await asyncio.sleep(0.01)

    async with app.running(store="sqlite://"):
        for client in ("c1", "c1", "c2"):
            await app.send(Recompute(client_id=client))
        await becomes("queued", "job:v1:c2:recompute")
        await becomes("running", "job:v1:c1:recompute")
        assert blob(store, "job:v1:c2:recompute")["startedAt"] is None
        gate.set()
        await becomes("completed", "job:v1:c1:recompute")
        await becomes("completed", "job:v1:c2:recompute")


@pytest.mark.parametrize("crash_at", ["start", "retry"])
async def test_crash_recovery(redis_url, store, crash_at):
    app, sink, recompute = build(redis_url)
    async with Harness(app, start=start()) as h:
        run = await h.start(recompute, Recompute(failures=1 if crash_at == "retry" else 0, nap=30))
        await h.advance("30s" if crash_at == "retry" else "1s")
        store.flushall()  # what the sink has is not needed either
        await h.restart()
        await h.advance("0s")
        assert blob(store)["status"] == ("retrying" if crash_at == "retry" else "running")
        await h.finish(run)
        assert blob(store)["status"] == "completed"


async def test_an_end_that_was_missed_is_written_at_the_next_start(redis_url, store):
    app, sink, recompute = build(redis_url)
    async with Harness(app, start=start()) as h:
        long = await h.start(recompute, Recompute(nap=3600))
        await h.advance("30m")
        sink.down = True
        await h.send(Recompute(client_id="c2"))
        await h.advance("31m")
        assert (await h.read(long)).status == "COMPLETED"
        assert blob(store)["status"] == "running"
        assert not store.exists("job:v1:c2:recompute")
        await h.restart()  # with the sink still down: everything noted in memory is gone
        sink.down = False
        await h.advance("1m")
        assert blob(store)["status"] == "completed"
        assert blob(store, "job:v1:c2:recompute")["status"] == "completed"


async def test_an_outage_delays_and_loses_nothing_and_holds_no_run_up(redis_url, store):
    app, sink, recompute = build(redis_url)
    async with Harness(app, start=start()) as h:
        sink.down = True
        await asyncio.gather(*(h.send(Recompute(client_id=f"c{n}")) for n in range(150)))
        await h.advance("1s")
        assert {run.status for run in await h.runs(recompute)} == {"COMPLETED"}
        assert store.keys("job:*") == []
        sink.down = False
        await h.advance("1m")
        assert all(blob(store, f"job:v1:c{n}:recompute")["status"] == "completed" for n in range(150))


async def test_other_functions_and_events_without_the_field_are_left_out(redis_url, store):
    sink = Watched(redis_url, key=KEY, functions=["recompute"])
    app = App("t", sinks=[sink])

    @app.function("t/*")
    async def recompute(ctx: Context[Any]) -> None: ...

    @app.function("t/*")
    async def other(ctx: Context[Any]) -> None:
        raise NonRetriableError("no")

    async with Harness(app, start=start()) as h:
        await h.send({"name": "t/a", "data": {"clientId": "c1"}})
        await h.send({"name": "t/b", "data": {"client": "c1"}})
        assert [key for key in store.keys("job:*") if not key.endswith(":run")] == ["job:v1:c1:recompute"]


# -- order -------------------------------------------------------------------------------------------------------------


def status(run: int, kind: str, attempt: int = 1) -> JobStatus:
    now = int(time.time() * 1000)
    ended = kind in {"completed", "failed", "cancelled"}
    return JobStatus(
        run_id=f"run{run}", app="t", function="recompute", event_name="t/recompute", event_data={"clientId": "c1"}, status=kind,
        queued_at=now - 100_000 + run, started_at=None if kind == "queued" else now - 50_000, finished_at=now if ended else None,
        attempt=attempt, last_error=None,
    )  # fmt: skip


def meaning(kind: str) -> int:
    return {"queued": 0, "running": 1, "retrying": 2, "completed": 3}[kind]


async def test_whatever_order_they_arrive_in_the_newest_run_has_the_last_word(redis_url, store):
    old = [status(1, "running"), status(1, "retrying", 2), status(1, "completed", 2)]
    new = [status(2, "running"), status(2, "completed")]
    for order in itertools.permutations([*old, *new]):
        store.flushall()
        sink = RedisStatus(redis_url, key=KEY)
        for one in order:
            await sink.write([one])
        await sink.close()
        assert (blob(store)["status"], blob(store)["attempt"]) == ("completed", 1), order
        assert store.ttl("job:v1:c1:recompute") > 0
        assert store.ttl("job:v1:c1:recompute:run") > 0


async def test_a_new_run_after_an_ended_one_takes_the_expiry_away(redis_url, store):
    sink = RedisStatus(redis_url, key=KEY)
    await sink.write([status(1, "completed")])
    assert store.ttl("job:v1:c1:recompute") > 0
    await sink.write([status(2, "queued")])
    assert (blob(store)["status"], store.ttl("job:v1:c1:recompute")) == ("queued", -1)
    await sink.write([status(3, "queued"), status(2, "running")])
    assert blob(store)["status"] == "running"  # run 2; run 3 has its turn when it starts
    await sink.write([status(3, "running"), status(2, "completed")])
    await sink.close()
    assert (blob(store)["status"], store.ttl("job:v1:c1:recompute")) == ("running", -1)


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("job:v1:{event.data.clientId}:{function}", "job:v1:c1:recompute"),
        ("{app}/{run_id}/{event.name}", "t/run1/t/recompute"),
        ("{{{event.data.clientId}}}", "{c1}"),
        ("{event.data.a.b}", None),
    ],
)
def test_key_templates(text, key):
    assert KeyTemplate(text).key(status(1, "running")) == key


@pytest.mark.parametrize("text", ["", "{clientId}", "{event.data.x", "a}", "{}", "{event.id}"])
def test_key_templates_that_are_refused(text):
    with pytest.raises(ConfigurationError, match="status key"):
        KeyTemplate(text)


async def test_a_stop_in_the_middle_of_catching_up_writes_what_has_changed(redis_url, store, caplog):
    opening, go_on = asyncio.Event(), asyncio.Event()

    class SlowToOpen(Watched):
        async def open(self) -> Mirrored:
            opening.set()
            await go_on.wait()
            return await super().open()

    sink = SlowToOpen(redis_url, key=KEY)
    app = App("t", sinks=[sink])

    @app.function(Recompute)
    async def recompute(ctx: Context[Recompute]) -> None: ...

    async with app.running(store="sqlite://"):
        await opening.wait()
        handle = await app.start(recompute, Recompute())
        await handle.result(timeout="20s")
        # while the engine stops, the sink is still opening
        asyncio.get_running_loop().call_later(0.2, go_on.set)
    assert blob(store)["status"] == "completed"
    assert "can't be written" not in caplog.text
