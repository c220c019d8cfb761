"""What may keep an event from starting a run, or put its start off, under random plays. Each rule is compared with a model of it
in a few lines, which reads the events in the order of their commits and shares no code with the core."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from flow_play import PLAYS, Limit, Pause, bodies, crashes, kills, passes, play, plays, sends, stops
from flow_world import JOB, STOP, World, model_key
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.rows import RunStatus

pytestmark = pytest.mark.timeout(400)  # a failing play is shrunk

TENANT, KIND = "event.data.tenant", "event.data.kind"
DAY = 86_400_000
worlds = (crashes, kills, bodies, bodies)


def jobs(world):
    return [sent for sent in world.order if sent.name == JOB]


def by_key(events, key):
    grouped = defaultdict(list)
    for sent in events:
        grouped[model_key(key, sent)].append(sent)
    return grouped.values()


def run_for(world, sent, slug="f"):
    runs = [life for life in world.lives_of(slug) if life.event is sent and life.status != RunStatus.SKIPPED]
    assert len(runs) <= 1
    return runs[0] if runs else None


# -- rate limit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{"limit": 1, "period": "5s"}, {"limit": 3, "period": "1s", "key": TENANT}], ids=str)
def test_rate_limit(rule):
    """An event passes if and only if fewer than `limit` have passed in the period before it."""
    period = {"5s": 5000, "1s": 1000}[rule["period"]]

    @PLAYS
    @given(plays(sends(), sends(), sends(), *worlds, passes(1, 300, 999, 1000, 4999, 5000)))
    def check(acts):
        with World({"f": {"rateLimit": rule}}) as world:
            play(world, acts)
            for events in by_key(jobs(world), rule.get("key")):
                passed: list[int] = []
                for sent in events:
                    recent = sum(at > sent.at - period for at in passed)
                    refused = world.skips(sent, "f") == "rate limited"
                    assert refused == (recent >= rule["limit"]), f"event {sent.n} after {recent} in the period: refused={refused}"
                    if not refused:
                        passed.append(sent.at)

    check()


@PLAYS
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=5, max_size=60), st.integers(65, 120))
def test_a_large_rate_limit_is_never_exceeded(bursts, limit):
    """Of limits above 64 not each moment is remembered: it may let fewer pass, never more, and forgets nothing for ever."""
    with World({"f": {"rateLimit": {"limit": limit, "period": "1s"}}}) as world:
        for gap, count in bursts:
            world.clock.ms += gap
            for _ in range(count):
                world.send(JOB, tenant="a")
            world.commit(engine=False)
            for body in list(world.live.values()):
                world.end(body)
        world.settle()
        passed = [sent.at for sent in jobs(world) if world.skips(sent, "f") is None]
        for at in passed:
            assert sum(at <= other < at + 1000 for other in passed) <= limit
        world.clock.ms += 1000
        more = [world.send(JOB, tenant="a") for _ in range(limit)]
        world.settle()
        assert all(world.skips(sent, "f") is None for sent in more)
        world.drain()


# -- debounce and batch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [{"period": "2s"}, {"period": "2s", "key": TENANT, "timeout": "5s"}, {"period": "1s", "key": KIND}], ids=str
)
def test_debounce(rule):
    """The last event by its own time wins, after a period of quiet, or when the timeout is over; never early."""
    period, timeout = {"1s": 1000, "2s": 2000}[rule["period"]], {None: None, "5s": 5000}[rule.get("timeout")]

    @PLAYS
    @given(plays(sends(delays=(0, 0, 0, -50, 700)), sends(), sends(), *worlds, passes(1, 500, 1000, 1999, 2000)))
    def check(acts):
        with World({"f": {"debounce": rule}}) as world:
            play(world, acts)
            groups = defaultdict(list)
            for sent in jobs(world):
                run = run_for(world, sent)
                away = world.rows("SELECT run_id, reason FROM skips WHERE event_id = ?", sent.raw)
                assert run or away[0][1] == "debounced away"
                groups[run.run if run else away[0][0]].append(sent)
            for run_id, events in groups.items():
                run, winner, due = world.lives[run_id], events[0], 0
                assert len({model_key(rule.get("key"), sent) for sent in events}) == 1
                for number, sent in enumerate(events):
                    if number == 0 or sent.ts >= winner.ts:
                        winner = sent
                        due = max(sent.ts, sent.at + period)
                        if timeout is not None:
                            due = min(due, events[0].at + timeout)
                assert run.event is winner, f"event {winner.n} should have been the one"
                assert run.queued >= due, f"event {winner.n} ran {due - run.queued} ms early"

    check()


@pytest.mark.parametrize(
    "rule",
    [
        {"maxSize": 3, "timeout": "2s"},
        {"maxSize": 4, "timeout": "1s", "key": TENANT},
        {"maxSize": 50, "timeout": "1s", "maxBytes": 400, "if": "event.data.kind == 'x'"},
    ],
    ids=str,
)
def test_batch(rule):
    """Events are together in the order they came, until there are so many, or so large, or so old; each in one batch."""
    timeout = {"1s": 1000, "2s": 2000}[rule["timeout"]]

    @PLAYS
    @given(plays(sends(sizes=(0, 10, 150)), sends(), sends(), *worlds, passes(1, 500, 999, 1000)))
    def check(acts):
        with World({"f": {"batchEvents": rule}}) as world:
            play(world, acts)
            apart = [sent for sent in jobs(world) if "if" in rule and sent.data["kind"] != "x"]
            for sent in apart:
                assert run_for(world, sent).queued == sent.at
            for events in by_key([sent for sent in jobs(world) if sent not in apart], rule.get("key")):
                events = list(events)
                while events:
                    run = run_for(world, events[0])
                    assert run is not None, f"event {events[0].n} began a batch that has no run"
                    rows = world.rows("SELECT event_id FROM batch_events WHERE run_id = ? ORDER BY position", run.run)
                    mine = [world.sent[raw] for (raw,) in rows]
                    assert mine, "a batch has no events"
                    assert mine == events[: len(mine)], "a batch has other events than came"
                    size = sum(world.rows("SELECT length(data) FROM events WHERE id = ?", sent.raw)[0][0] for sent in mine)
                    before = size - world.rows("SELECT length(data) FROM events WHERE id = ?", mine[-1].raw)[0][0]
                    limit = rule.get("maxBytes", 10**9)
                    assert len(mine) <= rule["maxSize"] and before < limit, "a batch went on beyond its size"
                    if len(mine) < rule["maxSize"] and size < limit:
                        assert run.queued >= mine[0].at + timeout, "a batch ran before it was full or due"
                    events = events[len(mine) :]

    check()


# -- singleton -----------------------------------------------------------------------------------------------------------------


def test_singleton_skip():
    @PLAYS
    @given(plays(sends(), sends(), *worlds, passes(1, 1000)))
    def check(acts):
        with World({"f": {"singleton": {"mode": "skip", "key": TENANT}, "concurrency": [{"limit": 2}]}}) as world:
            watch_one_live(world)
            play(world, acts)
            for events in by_key(jobs(world), TENANT):
                until = -1
                for sent in events:
                    run = run_for(world, sent)
                    if run is None:
                        assert world.skips(sent, "f") == "singleton"
                        assert sent.at <= until, f"event {sent.n} was skipped, and nothing was live"
                        shown = "SELECT 1 FROM runs WHERE event_id = ? AND status = 5"
                        assert world.rows(shown, sent.raw), "nothing shows that it was skipped"
                    else:
                        assert run.ended is not None
                        assert sent.at >= until, f"event {sent.n} started beside a live run"
                        until = run.ended

    check()


def test_singleton_cancel():
    """A newer run starts once the older one's cancellation is committed; the newest is never cancelled for it."""

    @PLAYS
    @given(plays(sends(), sends(), *worlds, stops, passes(1, 1000)))
    def check(acts):
        stop = [{"event": STOP, "if": f"{TENANT} == async.data.tenant"}]
        with World({"f": {"singleton": {"mode": "cancel", "key": TENANT}, "concurrency": [{"limit": 2}], "cancel": stop}}) as world:
            watch_one_live(world, started=True)
            play(world, acts)
            for events in by_key(jobs(world), TENANT):
                runs = [run_for(world, sent) for sent in events]
                assert all(runs), "an event was lost"
                for run, reason in ((run, reason_of(world, run)) for run in runs):
                    if reason is not None and reason.startswith("a newer run"):
                        assert run is not runs[-1], "the newest was cancelled for a newer one"

    check()


def reason_of(world, life):
    return world.rows("SELECT reason FROM runs WHERE id = ?", life.run)[0][0]


def watch_one_live(world, *, started=False):
    """At no commit are two runs of a tenant live (`started`: and begun)."""
    commit = world.commit

    def watched(**options):
        did = commit(**options)
        live = defaultdict(list)
        for life in world.lives_of("f"):
            if life.ended is None and (life.started is not None or not started):
                live[life.event.data["tenant"]].append(life)
        assert all(len(lives) <= 1 for lives in live.values()), "two live runs of a singleton"
        return did

    world.commit = watched


# -- idempotency, event ids ------------------------------------------------------------------------------------------------------


def test_idempotency_by_key():
    @PLAYS
    @given(plays(sends(), sends(), *worlds, passes(1, 1000, DAY // 2, DAY - 1, DAY)))
    def check(acts):
        with World({"f": {"idempotency": TENANT}}) as world:
            play(world, acts)
            for events in by_key(jobs(world), TENANT):
                last = -DAY
                for sent in events:
                    fresh = sent.at >= last + DAY
                    assert (world.skips(sent, "f") is None) == fresh, f"event {sent.n}, {sent.at - last} ms after the last"
                    last = sent.at if fresh else last

    check()


@pytest.mark.parametrize("trailing", [False, True])
def test_idempotency_by_bucket(trailing):
    """One run begins in a bucket for its events; `trailing` swallows nothing: a run begins after each event."""
    rule = {"key": TENANT, "bucket": "1m", "trailing": trailing}

    # a run that somebody cancels is nobody's successor, so nobody does here
    @PLAYS
    @given(plays(sends(), sends(), crashes, bodies, bodies, passes(1, 1000, 20_000, 60_000)))
    def check(acts):
        with World({"f": {"idempotency": rule, "concurrency": [{"limit": 1}]}}) as world:
            play(world, acts)
            order = {id(life): number for number, (_, life) in enumerate(world.starts)}
            for events in by_key(jobs(world), TENANT):
                buckets = set()
                for sent in events:
                    run = run_for(world, sent)
                    if not trailing:
                        assert (run is None) == (sent.at // 60_000 in buckets)
                        buckets.add(sent.at // 60_000)
                    elif run is None:
                        assert world.skips(sent, "f") == "idempotency"
                        later = [one for one in events if run_for(world, one) and order[id(run_for(world, one))] >= sent.begun]
                        assert later, f"event {sent.n} was swallowed: no run began after it"
                runs = [run_for(world, sent) for sent in events]
                per_bucket = Counter(run.queued // 60_000 for run in runs if run)
                assert all(count <= 1 + trailing for count in per_bucket.values()), "more than a bucket's own run and its successor"

    check()


def test_event_ids():
    """The same id starts each function once in 24 hours, whatever the functions' rules are."""
    functions = {
        "f": {},
        "g": {"concurrency": [{"limit": 1, "key": TENANT}]},
        "h": {"batchEvents": {"maxSize": 3, "timeout": "1s"}},
        "i": {"debounce": {"period": "1s", "key": KIND}},
    }

    @PLAYS
    @given(plays(sends(keys=(None, "1", "2", "3")), sends(keys=("1", "2")), *worlds, passes(1, 1000, DAY - 1, DAY)))
    def check(acts):
        with World(functions) as world:
            play(world, acts)
            last: dict[str, int] = {}
            for sent in jobs(world):
                if sent.key is None:
                    continue
                fresh = sent.at >= last.get(sent.key, -DAY) + DAY
                for slug in functions:
                    assert (world.skips(sent, slug) != "duplicate event id") == fresh, f"event {sent.n} and {slug}"
                if fresh:
                    last[sent.key] = sent.at

    check()


# -- cancellation, timeouts, pauses, delays ----------------------------------------------------------------------------------------


def test_cancelling_events():
    """An event cancels the runs of its tenant that were queued before it, and no others, as long as the rule listens."""
    rule = {"event": STOP, "if": f"{TENANT} == async.data.tenant", "timeout": "10s"}

    @PLAYS
    @given(plays(sends(), stops, bodies, bodies, crashes, passes(1, 1000, 10_000)))
    def check(acts):
        with World({"f": {"cancel": [rule], "concurrency": [{"limit": 2}]}}) as world:
            play(world, acts)
            stopped = [sent for sent in world.order if sent.name == STOP]
            for life in world.lives_of("f"):
                hits = [
                    stop
                    for stop in stopped
                    if stop.data["tenant"] == life.event.data["tenant"]
                    and stop.order > life.event.order
                    and stop.at < life.queued + 10_000
                ]
                if life.status == RunStatus.CANCELLED:
                    assert hits, f"the run of event {life.event.n} was cancelled by nothing"
                else:
                    assert not [stop for stop in hits if stop.at < life.ended], f"the run of event {life.event.n} was to be cancelled"

    check()


def test_timeouts():
    """A run that hasn't started, or finished, in time is cancelled then: not before, and not later."""

    @PLAYS
    @given(plays(sends(), sends(), bodies, crashes, passes(1, 999, 1000, 3000)))
    def check(acts):
        with World({"f": {"timeouts": {"start": "2s", "finish": "5s"}, "concurrency": [{"limit": 1, "key": TENANT}]}}) as world:
            jumps = []
            settle = world.settle

            def settled():
                settle()
                jumps.append(world.clock.ms)

            world.settle = settled
            play(world, acts)
            for life in world.lives_of("f"):
                reason = reason_of(world, life) or ""
                if life.started is None:
                    assert "did not start" in reason
                    assert life.ended >= life.queued + 2000
                else:
                    assert life.started <= first(jumps, life.queued + 2000)
                    assert life.ended <= first(jumps, life.started + 5000), "a run outlived its timeout"
                    assert ("did not finish" in reason) == (life.status == RunStatus.CANCELLED)
                    if life.status == RunStatus.CANCELLED:
                        assert life.ended >= life.started + 5000

    def first(jumps, moment):
        """The first time the world came to rest at or after a moment: time passes in jumps."""
        return min((at for at in jumps if at >= moment), default=10**15)

    check()


def test_pauses_and_delays():
    """Nothing of a held function starts (the world asserts it) or is lost; `skip` says so; nothing starts before its time."""
    pauses = st.builds(Pause, st.just("f"), st.sampled_from(["hold", "skip", None]))

    @PLAYS
    @given(plays(sends(delays=(0, 2000, 60_000)), sends(), *worlds, pauses, passes(1, 1000, 2000)))
    def check(acts):
        with World({"f": {}, "g": {"concurrency": [{"limit": 1, "key": TENANT}]}}) as world:
            skipping = {}
            send = world.send

            def noted(*args, **data):
                sent = send(*args, **data)
                skipping[sent.raw] = world.store.paused.get(world.id_of["f"]) == "skip"
                return sent

            world.send = noted
            play(world, acts)
            for sent in jobs(world):
                assert (world.skips(sent, "f") == "paused") == skipping[sent.raw]
                assert world.skips(sent, "g") is None

    check()


# -- everything at once ------------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "caps": {"concurrency": [{"limit": 2, "key": TENANT, "scope": "env"}, {"limit": 3}], "priority": {"run": "event.data.gold"}},
    "runs": {
        "concurrency": {"fn": [{"limit": 2, "key": KIND}], "step": [{"limit": 2, "key": TENANT, "scope": "env"}]},
        "throttle": {"limit": 5, "period": "1s", "burst": 1},
        "timeouts": {"start": "1m", "finish": "2m"},
    },
    "latest": {
        "singleton": {"mode": "cancel", "key": TENANT},
        "debounce": {"period": "1s", "key": TENANT, "timeout": "3s"},
        "cancel": [{"event": STOP, "if": f"{TENANT} == async.data.tenant"}],
        "concurrency": [{"limit": 1, "key": KIND}],
    },
    "one": {"singleton": {"mode": "skip", "key": KIND}, "idempotency": TENANT},
    "some": {"rateLimit": {"limit": 3, "period": "1s", "key": TENANT}, "throttle": {"limit": 2, "period": "1s", "key": KIND}},
    "many": {"batchEvents": {"maxSize": 4, "timeout": "2s", "key": TENANT}, "concurrency": [{"limit": 1}]},
    "buckets": {"idempotency": {"key": TENANT, "bucket": "1m", "trailing": True}, "concurrency": [{"limit": 1}]},
    "none": {},
}


def test_all_rules_on_many_functions():
    changes = st.one_of(
        st.builds(Pause, st.sampled_from(sorted(EVERYTHING)), st.sampled_from(["hold", "skip", None])),
        st.builds(Limit, st.sampled_from(["caps", "runs", "many"]), st.just("concurrency"), st.integers(1, 4)),
    )
    everything = sends(delays=(0, 0, 0, -10, 1500), keys=(None, None, "1"), sizes=(0, 50), gold=(0, 5))

    @PLAYS
    @given(plays(everything, everything, *worlds, stops, changes, passes(1, 500, 1000, 60_000)), st.sampled_from([3, 50]))
    def check(acts, capacity):
        with World(EVERYTHING, capacity=capacity) as world:
            play(world, acts)

    check()
