"""D1 to D6 on the real engine, with a real database and a real Redis; time is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis

from examples.inbox import functions
from examples.inbox.client import app
from examples.inbox.functions import (
    analytics_recompute,
    check_analytics,
    inbox_counts_recompute,
    mark_counts_dirty,
    process_background_jobs,
    sweep,
)
from examples.inbox.versions import Versions
from inbox_kit import InboxUnderTest, inbox_under_test

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
async def inbox(tmp_path, monkeypatch, redis_url, store) -> AsyncIterator[InboxUnderTest]:
    async with inbox_under_test(tmp_path, monkeypatch, redis_url, store) as made:
        yield made


async def completed(inbox: InboxUnderTest, function=inbox_counts_recompute):
    return [run for run in await inbox.h.runs(function) if run.status == "COMPLETED"]


# -- D2 ----------------------------------------------------------------------------------------------------------------


async def test_d2_a_message_leads_to_counts_a_version_and_no_mark(inbox):
    await inbox.receive(count=3)
    await inbox.h.settle(within="1m")
    assert await inbox.unread() == 3
    assert inbox.version() >= 1
    assert inbox.mark() is None
    (run, *_) = await completed(inbox)
    assert [step.id for step in run.steps] == ["read-mark", "recompute", "finish"]


async def test_d2_moving_a_message_counts_too(inbox):
    await inbox.receive(count=2)
    await inbox.h.settle(within="1m")
    assert await inbox.messages.move(1, "c1", "archived")
    assert not await inbox.messages.move(2, "c2", "archived")
    await inbox.deliver()
    await inbox.h.settle(within="1m")
    counts = await inbox.messages.counts("c1")
    assert (counts.unread, counts.read, counts.archived) == (1, 0, 1)


async def test_d2_at_most_one_recompute_per_client_and_bucket(inbox):
    moments = []
    for n in range(45):
        await inbox.dirty(request=f"r{n}")
        await inbox.h.advance("1s")
    await inbox.h.settle(within="1m")
    for run in await inbox.h.runs(inbox_counts_recompute):
        if run.status != "SKIPPED":
            moments.append(run.started_at.timestamp())
    buckets = [int(moment // 10) for moment in moments]
    assert len(buckets) == len(set(buckets))
    assert 5 <= len(buckets) <= 7
    assert inbox.mark() is None


async def test_d2_what_comes_after_the_read_is_counted_in_the_next_bucket_and_never_swallowed(inbox, monkeypatch):
    reading, go_on = asyncio.Event(), asyncio.Event()
    count = functions.read_mark

    async def slow(*arguments):
        found = await count(*arguments)
        reading.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(functions, "read_mark", slow)
    await inbox.messages.receive("c1", "a@example.test", "first")
    flushing = asyncio.create_task(inbox.deliver())
    await asyncio.wait_for(reading.wait(), 60)
    # the run has read its mark; another message arrives
    before = inbox.mark()
    await inbox.messages.receive("c1", "b@example.test", "second")
    await inbox.deliver()
    await flushing
    while inbox.mark() == before:
        await asyncio.sleep(0.01)
    later = inbox.mark()
    go_on.set()
    await inbox.h.settle(within="0s")
    assert inbox.version() == 1
    assert inbox.mark() == later, "the first run took away a mark that it had not read"
    await inbox.h.settle(within="20s")
    assert (await inbox.unread(), inbox.version(), inbox.mark()) == (2, 2, None)
    first, second = sorted(await completed(inbox), key=lambda run: run.id)
    assert int(first.started_at.timestamp() // 10) < int(second.started_at.timestamp() // 10)


async def test_d2_never_two_of_one_client_at_once(inbox, monkeypatch):
    inside, most = dict[str, int](), dict[str, int]()
    count = functions.read_mark

    async def watched(made, client, request):
        inside[client] = inside.get(client, 0) + 1
        most[client] = max(most.get(client, 0), inside[client])
        await asyncio.sleep(0.02)
        inside[client] -= 1
        return await count(made, client, request)

    monkeypatch.setattr(functions, "read_mark", watched)
    for n in range(6):
        await asyncio.gather(*(inbox.dirty(client, f"{client}-{n}") for client in ("c1", "c2", "c3")))
        await inbox.h.advance("4s")
    await inbox.h.settle(within="1m")
    assert most == {"c1": 1, "c2": 1, "c3": 1}
    assert [inbox.mark(client) for client in most] == [None] * 3


async def test_d2_a_crash_between_the_steps_raises_the_version_once(inbox):
    await inbox.receive()
    await inbox.h.settle(within="0s")
    assert inbox.version() == 1
    (run,) = await completed(inbox)
    # the step once more, as after a crash before its result was on disk
    client = Redis(unix_socket_path=inbox.store.connection_pool.connection_kwargs["path"], decode_responses=True)
    assert await Versions(client).finish("c1", run.id, "again", None) == 1
    await client.aclose()


# -- D6 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["inbox.counts.dirty", "inbox.counts.recompute"])
async def test_d6_fifty_copies_at_once_raise_the_version_by_one(inbox, name):
    data = {"clientId": "c1", "requestId": "r1", "source": "test"}
    await asyncio.gather(*(inbox.h.send({"name": name, "data": data}) for _ in range(50)))
    await inbox.h.settle(within="5m")
    assert (inbox.version(), inbox.mark()) == (1, None)


async def test_d6_a_failure_forced_twice_then_success_with_backoff(inbox):
    await inbox.execute("CREATE TRIGGER broken BEFORE INSERT ON inbox_counts BEGIN SELECT RAISE(ABORT, 'out of order'); END")
    await inbox.dirty()
    (run,) = await inbox.h.runs(inbox_counts_recompute)
    assert (inbox.status()["status"], inbox.status()["attempt"]) == ("retrying", 2)
    while len((await inbox.h.read(run)).step("recompute").failed_attempts) < 2:
        await inbox.h.advance("100ms")
    failed = len((await inbox.h.read(run)).step("recompute").failed_attempts)  # a short wait lets a third one in
    assert (inbox.status()["status"], inbox.status()["attempt"]) == ("retrying", failed + 1)
    assert "out of order" in inbox.status()["lastError"]
    await inbox.execute("DROP TRIGGER broken")
    finished = await inbox.h.finish(run)
    waits = [(a.retry_at - a.started_at).total_seconds() for a in finished.step("recompute").failed_attempts]
    assert (0 <= waits[0] <= 1, 0 <= waits[1] <= 2) == (True, True)
    status = inbox.status()
    assert (status["status"], status["attempt"], inbox.version()) == ("completed", failed + 1, 1)
    assert "out of order" in status["lastError"]


async def test_d6_a_final_failure_is_logged(inbox):
    await inbox.execute("CREATE TRIGGER broken BEFORE INSERT ON inbox_counts BEGIN SELECT RAISE(ABORT, 'out of order'); END")
    await inbox.dirty()
    await inbox.h.settle(within="10m")
    ((run_id, job, client, error),) = await inbox.rows("SELECT run_id, job, client_id, error FROM job_failures")
    assert (job, client) == ("zrg-dashboard-inbox-counts-recompute", "c1")
    assert "out of order" in error
    assert (inbox.status()["status"], inbox.status()["attempt"]) == ("failed", 5)
    assert inbox.mark() == "r1"  # it is still dirty, and the next sweep tries again
    await inbox.execute("DROP TRIGGER broken")
    await inbox.h.run(sweep)
    await inbox.h.settle(within="1m")
    assert (inbox.mark(), inbox.version(), inbox.status()["status"]) == (None, 1, "completed")
    assert run_id != (await completed(inbox))[0].id


async def test_d6_more_jobs_than_the_cap_never_pass_it(inbox, monkeypatch):
    cap = functions.LIMITS.recompute_cap
    inside = most = 0
    count = functions.read_mark

    async def watched(*arguments):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.05)
        inside -= 1
        return await count(*arguments)

    monkeypatch.setattr(functions, "read_mark", watched)
    await asyncio.gather(*(inbox.dirty(f"c{n}", f"r{n}") for n in range(cap * 4 + 1)))
    await inbox.h.settle(within="1m")
    assert most == cap
    assert len(await completed(inbox)) == cap * 4 + 1


# -- D1 ----------------------------------------------------------------------------------------------------------------


async def test_d1_priority_goes_ahead_of_what_waits_for_the_same_client(inbox):
    gate = asyncio.Event()
    raise_version = Versions.raise_analytics

    async def watched(versions, client, run):
        await gate.wait()
        return await raise_version(versions, client, run)

    def wanted(request: str, **more):
        data = {"clientId": "c1", "requestId": request, "source": "test", **more}
        return {"name": "analytics.aggregates.recompute", "data": data}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Versions, "raise_analytics", watched)
        await app.send(wanted("first"))
        await app.send_many([wanted("plain"), wanted("idle", priority=-600), wanted("urgent", priority=600)])
        gate.set()
        await inbox.h.settle(within="1m")
    runs = await completed(inbox, analytics_recompute)
    versions = {run.event.data["requestId"]: run.step("raise-version").result for run in runs}
    assert sorted(versions, key=versions.get) == ["first", "urgent", "plain", "idle"]


@pytest.mark.parametrize(
    ("name", "data", "field"),
    [
        ("inbox.counts.dirty", {"requestId": "r", "source": "s"}, "clientId"),
        ("inbox.counts.recompute", {"clientId": "a:b", "requestId": "r", "source": "s"}, "clientId"),
        ("analytics.aggregates.recompute", {"clientId": "c", "requestId": "r", "source": "s", "priority": "high"}, "priority"),
        ("background/process.requested", {"source": "s"}, "requestId"),
    ],
)
async def test_d1_events_that_do_not_fit_name_the_field(inbox, name, data, field):
    with pytest.raises(Exception, match=field):
        await inbox.h.send({"name": name, "data": data})


# -- D3 ----------------------------------------------------------------------------------------------------------------


async def test_d3_analytics_are_off_by_default(inbox):
    await inbox.receive()
    await inbox.h.settle(within="1m")
    await inbox.h.advance("2h")
    assert (await inbox.h.run(check_analytics)).output == 0
    assert await inbox.h.runs(analytics_recompute) == []


async def test_d3_they_are_refreshed_when_the_objective_is_missed_and_not_otherwise(tmp_path, monkeypatch, redis_url, store):
    environ = {"ANALYTICS_ENABLED": "true", "ANALYTICS_MAX_AGE": "900"}
    async with inbox_under_test(tmp_path, monkeypatch, redis_url, store, **environ) as inbox:
        await inbox.receive(count=2)
        await inbox.h.settle(within="1m")
        assert (await inbox.h.run(check_analytics)).output == 1
        await inbox.h.settle(within="1m")
        assert store.get("analytics:v1:ver:c1") == "1"
        assert (await inbox.rows("SELECT messages, senders FROM analytics_aggregates")) == [(2, 2)]
        assert inbox.status(job="analytics")["status"] == "completed"
        assert (await inbox.h.run(check_analytics)).output == 0
        await inbox.h.advance("10m")
        assert (await inbox.h.run(check_analytics)).output == 0
        await inbox.h.advance("5m")
        assert (await inbox.h.run(check_analytics)).output == 1
        await inbox.h.settle(within="1m")
        assert store.get("analytics:v1:ver:c1") == "2"


# -- D4 ----------------------------------------------------------------------------------------------------------------


async def test_d4_each_dirty_client_gets_one_recompute_once_per_request(inbox):
    for client in ("c1", "c2", "c3"):
        inbox.store.set(f"inbox:v1:dirty:{client}", "someone")
    event = {"name": "background/process.requested", "data": {"requestId": "p1", "source": "test"}}
    await asyncio.gather(*(inbox.h.send(event) for _ in range(10)))
    await inbox.h.settle(within="1m")
    assert [run.output for run in await completed(inbox, process_background_jobs)] == [3]
    assert len(await completed(inbox)) == 3
    assert [inbox.version(client) for client in ("c1", "c2", "c3")] == [1, 1, 1]
    assert [inbox.mark(client) for client in ("c1", "c2", "c3")] == [None] * 3


async def test_d4_one_client_alone(inbox):
    for client in ("c1", "c2"):
        inbox.store.set(f"inbox:v1:dirty:{client}", "someone")
    for client in ("c1", "c9"):
        data = {"requestId": f"p-{client}", "source": "test", "clientId": client}
        await inbox.h.send({"name": "background/process.requested", "data": data})
    await inbox.h.settle(within="1m")
    assert [inbox.version(client) for client in ("c1", "c2", "c9")] == [1, 0, 0]


async def test_d4_cron_functions_only_enqueue(inbox):
    inbox.store.set("inbox:v1:dirty:c1", "someone")
    run = await inbox.h.run(sweep)
    assert [step.id for step in run.steps] == ["now", "enqueue"] or [step.id for step in run.steps if step.kind != "now"] == ["enqueue"]
    assert [event.name for event in run.sent] == ["background/process.requested"]


# -- D5 ----------------------------------------------------------------------------------------------------------------


async def test_d5_the_status_blob_of_a_job(inbox):
    await inbox.dirty()
    await inbox.h.settle(within="0s")
    status = inbox.status()
    assert set(status) == {"status", "startedAt", "finishedAt", "durationMs", "attempt", "lastError"}
    assert (status["status"], status["attempt"], status["lastError"]) == ("completed", 1, None)
    for moment in (status["startedAt"], status["finishedAt"]):
        assert moment.endswith("Z")
        assert abs(datetime.fromisoformat(moment).timestamp() - inbox.h.clock.time.timestamp()) < 60
    ttl = inbox.store.ttl("job:v1:c1:inbox-counts-recompute")
    assert timedelta(days=7).total_seconds() - 120 < ttl <= timedelta(days=7).total_seconds() + 120
    assert inbox.store.keys("job:v1:*:mark-counts-dirty") == []
    assert len(await completed(inbox, mark_counts_dirty)) == 1
