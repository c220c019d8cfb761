"""The waterfall's geometry."""

from __future__ import annotations

from dashboard_kit import START, run_detail, step_view
from hypothesis import given
from hypothesis import strategies as st
from holdfast.dashboard import scale, timeline
from holdfast.store.reads import AttemptView

DAY = 86_400_000


def attempt(number: int, start: int, end: int, retry: int | None) -> AttemptView:
    return AttemptView(number, START + start, START + end, None if retry is None else START + retry, {"name": "TimeoutError", "message": "slow"})


def row(line: timeline.Timeline, key: str) -> timeline.TimelineRow:
    return next(r for r in line.rows if r.key == key)


def test_queue_time_comes_before_the_run_and_positions_are_shares_of_the_axis():
    line = timeline.build(run_detail(step_view("charge", 10, 510), started_at=START + 10, ended_at=START + 1010), START + 5000)
    queue, running = row(line, "").segments
    assert (queue.tone, running.tone) == ("queue", "ok")
    assert queue.x == 0
    assert running.x == round(100 * 10 / 1010, 3)
    assert row(line, "charge").segments[0].width == round(100 * 500 / 1010, 3)
    assert line.now_x is None, "a run that has ended has no now"


def test_attempts_and_backoffs_are_pieces_of_one_bar():
    step = step_view("charge", 3100, 3200, attempts=(attempt(0, 0, 100, 1100), attempt(1, 1100, 1200, 3100)))
    charge = row(timeline.build(run_detail(step, ended_at=START + 3200), START + 9000), "charge")
    assert [s.tone for s in charge.segments] == ["bad", "retry", "bad", "retry", "ok"]
    assert [(s.start - START, s.end - START) for s in charge.segments] == [(0, 100), (100, 1100), (1100, 1200), (1200, 3100), (3100, 3200)]
    assert charge.attempts == 3
    assert charge.duration == "3.2 s", "from the first attempt, not the last"
    assert "attempt 1 failed: TimeoutError" in charge.segments[0].title
    assert "next attempt after 1 s" in charge.segments[1].title


def test_a_failed_step_ends_with_its_last_attempt():
    step = step_view("charge", 200, 300, state="failed", attempts=(attempt(0, 0, 100, 200), attempt(1, 200, 300, None)))
    charge = row(timeline.build(run_detail(step, status="FAILED"), START + 9000), "charge")
    assert [s.tone for s in charge.segments] == ["bad", "retry", "bad"]
    assert charge.attempts == 2


def test_a_pending_retry_waits_until_now_and_then_runs():
    step = step_view("charge", 0, None, due=START + 5000, attempts=(attempt(0, 0, 100, 5000),))
    live = run_detail(step, status="WAITING", ended_at=None)
    waiting = row(timeline.build(live, START + 2000), "charge")
    assert [s.tone for s in waiting.segments] == ["bad", "retry"]
    assert waiting.segments[1].open
    assert waiting.status.label == "Retrying"
    again = row(timeline.build(live, START + 6000), "charge")
    assert [s.tone for s in again.segments] == ["bad", "retry", "run"]


def test_live_runs_have_a_now_with_room_to_its_right():
    line = timeline.build(run_detail(step_view("sleep", 20, None, kind="sleep", due=START + 30 * DAY), status="WAITING", ended_at=None), START + 1000)
    assert line.now_x is not None
    assert 90 < line.now_x < 100
    assert row(line, "sleep").segments[0].open


def test_a_week_of_waiting_is_folded_and_the_steps_stay_visible():
    steps = (step_view("before", 10, 110), step_view("wait", 110, 7 * DAY, kind="wait_event"), step_view("after", 7 * DAY, 7 * DAY + 100))
    detail = run_detail(*steps, ended_at=START + 7 * DAY + 110)
    line = timeline.build(detail, START + 8 * DAY)
    assert line.can_fold
    assert [gap.label for gap in line.gaps] == ["6 d"] or [gap.label for gap in line.gaps] == ["7 d"]
    assert row(line, "before").segments[0].width > 10
    assert row(line, "after").segments[0].width > 10
    true = timeline.build(detail, START + 8 * DAY, fold_idle=False)
    assert true.gaps == ()
    assert true.can_fold
    assert row(true, "before").segments[0].width == timeline.MIN_WIDTH, "never too thin to see"


def test_a_short_sleep_is_not_folded():
    steps = (step_view("a", 0, 300), step_view("nap", 300, 2300, kind="sleep"), step_view("b", 2300, 2600))
    assert not timeline.build(run_detail(*steps, ended_at=START + 2600), START + 9000).can_fold


def test_a_thousand_steps_show_the_first_the_last_and_those_worth_a_look():
    steps = [step_view(f"s{i}", i, i + 1, seq=i) for i in range(1000)]
    steps[500] = step_view("s500", 500, 501, state="failed")
    detail = run_detail(*steps, ended_at=START + 1001)
    line = timeline.build(detail, START + 2000)
    keys = [r.key for r in line.rows]
    assert keys[1] == "s0"
    assert keys[-1] == "s999"
    assert "s500" in keys
    assert line.hidden == 1000 - (len(keys) - 1)
    assert "s700" in [r.key for r in timeline.build(detail, START + 2000, selected="s700").rows]
    assert len(timeline.build(detail, START + 2000, show_all=True).rows) == 1001
    assert not line.gaps, "the time of steps that are not shown is not idle"


def test_function_attempts_are_on_the_bar_of_the_run():
    failed = (attempt(0, 10, 20, 1020), attempt(1, 1020, 1030, None))
    line = timeline.build(run_detail(function_attempts=failed, status="FAILED", ended_at=START + 1030), START + 9000)
    assert [s.tone for s in row(line, "").segments] == ["queue", "bad", "retry", "bad"]


@given(
    st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**7)), max_size=12),
    st.integers(1, 10**10), st.lists(st.integers(-(10**6), 2 * 10**10), min_size=2, max_size=8),
)
def test_the_axis_never_runs_backwards_and_stays_within_its_ends(busy, length, moments):
    axis = scale.folded(0, length, [(a, a + w) for a, w in busy])
    places = [axis.x(m) for m in sorted(moments)]
    assert places == sorted(places)
    assert all(-1e-6 <= x <= 100 + 1e-6 for x in places)
    assert axis.x(0) == 0
    assert abs(axis.x(length) - 100) < 1e-6


@given(st.integers(1, 10**12))
def test_linear_axes_have_a_few_labels(length):
    ticks = scale.linear(0, length).ticks()
    assert 1 <= len(ticks) <= 8
    assert ticks[0].label == "0"
