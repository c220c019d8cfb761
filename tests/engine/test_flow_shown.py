"""What the reader tells of flow control on the real engine: why a run waits, what an event waits for, how limits stand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from holdfast import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    Context,
    Debounce,
    Event,
    RateLimit,
    RunCancelledError,
    Singleton,
    Throttle,
    Timeouts,
)
from holdfast.dashboard.words import standing
from holdfast.store.flow_reads import FlowView, GateView, RuleView
from holdfast.store.reads import RunDetail, reasons
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


class Job(Event, name="t/job"):
    n: int = 0
    tenant: str = "a"


class Stop(Event, name="t/stop"):
    n: int = 0


class Answered(Event, name="t/answered"):
    n: int = 0
    tenant: str = "a"


class Door:
    """Bodies that stay inside until it is opened."""

    def __init__(self) -> None:
        self.inside = 0
        self._open = asyncio.Event()
        self._came = asyncio.Condition()

    async def visit(self) -> None:
        async with self._came:
            self.inside += 1
            self._came.notify_all()
        await self._open.wait()

    async def filled(self, count: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: self.inside >= count)

    def open(self) -> None:
        self._open.set()


async def runs_of(h: Harness, sent: str) -> RunDetail:
    runs = await h.engine.reader.event_runs(sent)
    assert len(runs) == 1
    detail = await h.engine.reader.run(runs[0].id)
    assert detail is not None
    return detail


async def flow_of(h: Harness, slug: str) -> FlowView:
    (view,) = await h.engine.reader.flow(slug)
    return view


def rule_of(view: FlowView, name: str) -> RuleView:
    (rule,) = [rule for rule in view.rules if rule.name == name]
    return rule


def said(h: Harness, detail: RunDetail) -> list[str]:
    return standing(detail, h.engine.clock.now())


# -- runs that wait ----------------------------------------------------------------------------------------------------


async def test_a_run_at_a_limit_names_rule_key_places_and_its_place_in_line():
    app, door = App("t"), Door()

    @app.function(Job, concurrency=Concurrency(2, key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("visit", door.visit)

    async with Harness(app, start=START) as h:
        sent = [(await app.send(Job(n=n, tenant="user-7"))).id for n in range(5)]
        await app.send(Job(tenant="user-8"))
        await door.filled(3)
        waiting = await runs_of(h, sent[4])
        assert waiting.queue is not None
        assert (waiting.queue.position, waiting.queue.gate) == (3, GateView("concurrency", "user-7", 2, 2))
        assert said(h, waiting) == ["Concurrency key user-7: 2 of 2 places taken, 3rd in line."]
        view = await flow_of(h, "t-work")
        rule = rule_of(view, "concurrency")
        assert (rule.limit, rule.declared, rule.used, rule.waiting, rule.lanes, rule.more) == (2, 2, 3, 3, 1, False)
        assert [(key.key, key.used, key.waiting) for key in rule.hot] == [("user-7", 2, 3), ("user-8", 1, 0)]
        assert (view.backlog.queued, view.backlog.running, view.backlog.delayed) == (3, 3, {"concurrency": 3})
        assert view.backlog.oldest == waiting.run.queued_at
        door.open()
        await h.settle()
        idle = await flow_of(h, "t-work")
        assert (idle.backlog.queued, idle.backlog.running, idle.backlog.delayed, rule_of(idle, "concurrency").hot) == (0, 0, {}, ())


async def test_two_limits_and_one_of_runs_each_say_who_waits_for_them():
    app, door = App("t"), Door()

    @app.function(Job, concurrency=[Concurrency(5), Concurrency(1, key="event.data.tenant")], run_concurrency=3)
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.run("visit", door.visit)

    async with Harness(app, start=START) as h:
        for n, tenant in enumerate("aabcd"):
            last = await app.send(Job(n=n, tenant=tenant))
        await door.filled(3)
        assert said(h, await runs_of(h, last.id)) == ["Run concurrency: 3 of 3 places taken, 1st in line."]
        view = await flow_of(h, "t-work")
        assert {rule.name: (rule.used, rule.limit, rule.waiting) for rule in view.rules} == {
            "concurrency": (3, 5, 0), "concurrency-2": (3, 1, 1), "run-concurrency": (3, 3, 1),
        }
        door.open()
        await h.settle()


async def test_a_throttled_run_says_about_when_it_starts():
    app = App("t")

    @app.function(Job, throttle=Throttle(1, "1m"))
    async def work(ctx: Context[Job]) -> None: ...

    async with Harness(app, start=START) as h:
        sent = [(await app.send(Job(n=n))).id for n in range(4)]
        await h.clock.quiesce()
        detail = await runs_of(h, sent[2])
        assert said(h, detail) == ["Throttled: starts at about 00:02:00 UTC (in 2 min), 2nd in line."]
        assert rule_of(await flow_of(h, "t-work"), "throttle").waiting == 3
        await h.advance("2m")
        assert (await runs_of(h, sent[2])).run.status == "COMPLETED"


async def test_a_held_run_says_that_its_function_is_paused():
    app = App("t")

    @app.function(Job)
    async def work(ctx: Context[Job]) -> None: ...

    async with Harness(app, start=START) as h:
        await app.pause(work)
        sent = await app.send(Job())
        await h.settle()
        assert said(h, await runs_of(h, sent.id)) == ["Held: the function is paused, 1st in line."]
        view = await flow_of(h, "t-work")
        assert (view.pause, view.backlog.delayed) == ("hold", {"paused": 1})
        (function,) = await h.engine.reader.functions()
        assert (function.paused, function.pause) == (True, "hold")
        await app.resume("work")
        await h.settle()
        assert (await runs_of(h, sent.id)).run.status == "COMPLETED"


async def test_timeouts_and_cancelling_events_are_told_and_then_the_reason():
    app = App("t")

    @app.function(Job, cancel_on=[CancelOn(Stop, match="data.n", timeout="1h")], timeouts=Timeouts(start="10m", finish="30m"))
    async def work(ctx: Context[Job]) -> None:
        await ctx.step.wait_for_event("go", "t/go", timeout="1d")

    async with Harness(app, start=START) as h:
        one, other = await app.send(Job(n=1)), await app.send(Job(n=2))
        await h.clock.quiesce()
        detail = await runs_of(h, one.id)
        assert said(h, detail)[1:] == [
            "Will be cancelled unless it ends by 2030-01-01 00:30:00.000 UTC (in 30 min).",
            "Can be cancelled by event t/stop if n is 1, until 2030-01-01 01:00:00.000 UTC (in 1 h).",
        ]
        assert [wait.step for wait in await h.engine.reader.waits()] == ["go", "go"]
        stop = await app.send(Stop(n=1))
        await h.clock.quiesce()
        cancelled = await runs_of(h, one.id)
        assert cancelled.run.reason == f"cancelled by event t/stop ({stop.id})"
        assert said(h, cancelled)[0].endswith(f": cancelled by event t/stop ({stop.id}).")
        assert (await app.handle(cancelled.run.id).info()).reason == cancelled.run.reason
        await h.advance("31m")
        timed_out = await runs_of(h, other.id)
        assert said(h, timed_out) == ["Cancelled after 30 min: timed out: it did not finish within 30m."]


# -- events ------------------------------------------------------------------------------------------------------------


async def test_a_debounced_event_says_until_when_it_waits_and_the_one_before_why_it_started_nothing():
    app = App("t")

    @app.function(Job, debounce=Debounce("1m", key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None: ...

    async with Harness(app, start=START) as h:
        first, last = await app.send(Job(n=1)), await app.send(Job(n=2))
        (away,) = await h.engine.reader.event_skips(first.id)
        assert (away.reason, away.waits) == ("debounced away", False)
        assert away.detail == "a later event took its place; 1m of quiet for key 'a'"
        (waiting,) = await h.engine.reader.event_skips(last.id)
        assert (waiting.reason, waiting.detail, waiting.key) == ("debounced", "1m of quiet for key 'a'", "a")
        assert waiting.until == h.engine.clock.now() + 60_000
        view = await flow_of(h, "t-work")
        assert [(one.kind, one.key, one.events, one.due) for one in view.gathers] == [("debounce", "a", 2, waiting.until)]
        assert (view.gathering, view.backlog.delayed, rule_of(view, "debounce").waiting) == (1, {"debounce": 1}, 1)
        assert await app.flush(work, key="b") == 0
        assert await app.flush(work, key="a") == 1
        await h.settle()
        assert await h.engine.reader.event_skips(last.id) == []
        assert (await runs_of(h, last.id)).run.id == waiting.run_id


async def test_every_event_of_a_batch_leads_to_its_run_and_waits_until_then():
    app = App("t")

    @app.function(Job, batch=Batch(3, "1m", key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None: ...

    async with Harness(app, start=START) as h:
        first = await app.send(Job(n=1))
        (waiting,) = await h.engine.reader.event_skips(first.id)
        assert (waiting.function, waiting.reason, waiting.detail, waiting.key) == ("t-work", "batched", "1 so far", "a")
        assert waiting.until == h.engine.clock.now() + 60_000
        others = [await app.send(Job(n=n)) for n in (2, 3)]
        await h.settle()
        details = [await runs_of(h, sent.id) for sent in (first, *others)]
        assert {detail.run.id for detail in details} == {waiting.run_id}
        assert details[0].run.batch == 3
        assert [one.event_id for one in details[0].batch_events] == [first.id, others[0].id, others[1].id]
        assert await h.engine.reader.event_skips(first.id) == []


async def test_whatever_keeps_an_event_from_starting_a_run_is_said_with_its_figures():
    app, door = App("t"), Door()

    @app.function(Job, rate_limit=RateLimit(1, "1h", key="event.data.tenant"))
    async def limited(ctx: Context[Job]) -> None: ...

    @app.function("t/single", singleton=Singleton("skip"))
    async def single(ctx: Context) -> None:
        await ctx.step.run("visit", door.visit)

    async with Harness(app, start=START) as h:
        await app.send(Job())
        dropped = await app.send(Job())
        (skip,) = await h.engine.reader.event_skips(dropped.id)
        assert (skip.reason, skip.detail, skip.run_id) == ("rate limited", "1 in 1h for key 'a'", None)
        rate = rule_of(await flow_of(h, "t-limited"), "rate-limit")
        assert [(key.key, key.used) for key in rate.hot] == [("a", 1)]
        await app.send({"name": "t/single"})
        await door.filled(1)
        second = await app.send({"name": "t/single"})
        (run,) = await h.engine.reader.event_runs(second.id)
        assert (run.status, run.reason) == ("SKIPPED", "another run of this singleton is live")
        detail = await h.engine.reader.run(run.id)
        assert said(h, detail) == ["Skipped: another run of this singleton is live."]
        nobody = await app.send({"name": "t/nobody"})
        event = await h.engine.reader.event(nobody.id)
        runs, skips = await h.engine.reader.event_runs(nobody.id), await h.engine.reader.event_skips(nobody.id)
        assert [one.reason for one in reasons(event, runs, skips, [])] == ["no function"]
        door.open()
        await h.settle()


async def test_a_changed_limit_shows_beside_the_codes():
    app = App("t")

    @app.function(Job, concurrency=2, throttle=Throttle(10, "1m", burst=5))
    async def work(ctx: Context[Job]) -> None: ...

    async with Harness(app, start=START) as h:
        await app.set_limit(work, "concurrency", 7)
        await app.set_limit("t-work", "throttle", 20)
        view = await flow_of(h, "t-work")
        assert [(rule.name, rule.limit, rule.declared, rule.changed, rule.words) for rule in view.rules] == [
            ("concurrency", 7, 2, True, "at most 7 steps at once"),
            ("throttle", 20, 10, True, "20 starts in 1m, evenly, 5 more at once after a quiet time"),
        ]
        await app.set_limit("work", "concurrency", None)
        assert not rule_of(await flow_of(h, "t-work"), "concurrency").changed


@pytest.mark.parametrize("key", [None, "event.data.tenant"])
async def test_a_raised_throttle_is_at_its_new_pace_at_once(key):
    app = App("t")
    seen: list[int] = []

    @app.function(Job, throttle=Throttle(1, "1h", key=key))
    async def work(ctx: Context[Job]) -> None:
        seen.append(ctx.event.data.n)

    async with Harness(app, start=START) as h:
        for n in range(4):
            await app.send(Job(n=n))
        await h.clock.quiesce()
        assert seen == [0]
        await app.set_limit(work, "throttle", 60)
        await h.clock.quiesce()
        assert seen == [0, 1]
        await h.advance("1m")
        assert seen == [0, 1, 2]
        await app.set_limit(work, "throttle", 30)
        await h.advance("2m")
        assert seen == [0, 1, 2, 3]


async def test_a_flush_reaches_every_debounce_however_many_there_are():
    app = App("t")
    seen: list[str] = []

    @app.function(Job, debounce=Debounce("1h", key="event.data.tenant"))
    async def work(ctx: Context[Job]) -> None:
        seen.append(ctx.event.data.tenant)

    async with Harness(app, start=START) as h:
        await app.send_many([Job(tenant=f"k{n:04}") for n in range(1203)])
        assert await app.flush(work, key="k1202") == 1
        await h.clock.quiesce()
        assert seen == ["k1202"]
        assert await app.flush(work) == 1202
        await h.clock.quiesce()
        assert len(seen) == 1203


async def test_an_event_says_which_runs_waited_for_it(engine_for):
    app = App("t")

    @app.function(Job, cancel_on=CancelOn(Stop, match="data.n"))
    async def waits(ctx: Context[Job]) -> int:
        if ctx.event.data.n == 9:
            await ctx.step.wait_for_event("first", Stop, timeout="1d")
        got = await ctx.step.wait_for_event("answer", Answered, where={"tenant": ctx.event.data.tenant}, timeout="1d", since="run")
        return 0 if got is None else got.data.n

    async with engine_for(app) as engine:
        matched = engine.reader.matched_waits
        one, two, other, late = [await app.start(waits, Job(n=n, tenant=tenant)) for n, tenant in ((1, "a"), (2, "a"), (3, "b"), (9, "c"))]
        await engine.idle()
        answered = await app.send(Answered(n=5, tenant="a"))
        early = await app.send(Answered(n=6, tenant="c"))
        assert [await run.result(timeout=20) for run in (one, two)] == [5, 5]
        stopped = await app.send(Stop(n=3))
        with pytest.raises(RunCancelledError):
            await other.result(timeout=20)
        assert await late.result(timeout=20) == 6
        assert {(found.run_id, found.step) for found in await matched(answered.id)} == {(one.id, "answer"), (two.id, "answer")}
        assert [(found.run_id, found.step) for found in await matched(early.id)] == [(late.id, "answer")]
        assert {(found.run_id, found.function, found.step) for found in await matched(stopped.id)} == {
            (other.id, "t-waits", None),
            (late.id, "t-waits", "first"),
        }
        event = await engine.reader.event(answered.id)
        assert event is not None
        assert reasons(event, [], [], await matched(answered.id)) == []
