"""Sentences, numbers, payloads and forms."""

from __future__ import annotations

import json

import pytest
from dashboard_kit import BIG_NUMBER, START, OrderPaid, run_detail, step_view
from holdfast import App
from holdfast.base.errors import EventInvalidError
from holdfast.dashboard import humanize, payload, words
from holdfast.dashboard.charts import nice_top
from holdfast.dashboard.drafts import draft
from holdfast.dashboard.history import history
from holdfast.dashboard.samples import sample
from holdfast.store.reads import AttemptView, QueueView
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

NOW = START + 60_000


def waiting(*steps, queue=None, **changes):
    return run_detail(*steps, status="WAITING", ended_at=None, queue=queue, **changes)


def test_why_a_run_waits():
    sleep = step_view("nap", 0, None, kind="sleep", due=NOW + 5000)
    assert words.standing(waiting(sleep), NOW) == ["Sleeps in 'nap' until 2023-11-14 22:14:25.000 UTC (in 5 s)."]
    wait = step_view("shipped", 0, None, kind="wait_event", due=NOW + 86_400_000, data=b'{"event":"shop/order.shipped","where":{"order_id":"o1"}}')
    assert words.standing(waiting(wait), NOW) == ["Waits in 'shipped' for event shop/order.shipped where order_id is \"o1\", gives up in 1 d."]
    failed = (AttemptView(0, START, START + 10, NOW + 4000, {"name": "TimeoutError", "message": "slow"}),)
    retry = step_view("charge", 0, None, due=NOW + 4000, attempts=failed)
    assert words.standing(waiting(retry), NOW, 3) == ["Step 'charge' failed with TimeoutError (attempt 1 of 4) and tries again in 4 s."]
    invoke = step_view("receipt", 0, None, kind="invoke", data=b'{"function":"shop-make-receipt"}')
    assert words.standing(waiting(invoke), NOW) == ["Waits in 'receipt' for the run of shop-make-receipt it invoked."]


def test_its_place_in_the_queue():
    ready = QueueView("ready", NOW - 3000, "1", 3, 0, 0)
    assert words.standing(waiting(queue=ready), NOW) == ["Waits for a free place, 3rd in line, for 3 s."]
    later = QueueView("timed", NOW + 60_000, "1", None, 0, 0)
    assert words.standing(waiting(queue=later, started_at=None), NOW) == ["Starts in 1 min."]
    leased = QueueView("leased", NOW, "1", None, 0, 2)
    said = words.standing(waiting(queue=leased), NOW)
    assert said[0] == "Executing now."
    assert "died 2 times in a row" in said[1]
    running = step_view("crunch", 50_000, None)
    assert words.standing(waiting(running, queue=QueueView("leased", NOW, "1", None, 0, 0)), NOW) == ["Executing step 'crunch' for 10 s."]


def test_how_it_ended():
    assert words.standing(run_detail(), NOW) == ["Completed in 990 ms, 1 step recorded."]
    assert words.standing(run_detail(status="FAILED", error="ValueError: no"), NOW) == ["Failed after 990 ms: ValueError: no"]
    assert words.standing(run_detail(status="CANCELLED", started_at=None), NOW) == ["Cancelled before it started."]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("* * * * *", "every minute"), ("*/5 * * * *", "every 5 minutes"), ("7 * * * *", "every hour at :07"),
        ("0 */2 * * *", "every 2 hours at :00"), ("TZ=Europe/Paris 0 9 * * mon-fri", "Monday to Friday at 09:00 Europe/Paris"),
        ("@daily", "every day at 00:00 UTC"), ("30 6 1 * *", "on the 1st of the month at 06:30 UTC"), ("0 0 * * 0", "every Sunday at 00:00 UTC"),
        ("0,30 8-18 * * *", "0,30 8-18 * * *"), ("0 0 1 1 *", "0 0 1 1 *"),
    ],
)
def test_schedules_in_words(schedule, said):
    assert words.schedule(schedule) == said


@pytest.mark.parametrize(
    ("ms", "said"),
    [(0, "<1 ms"), (999, "999 ms"), (1000, "1 s"), (2340, "2.34 s"), (12_340, "12.3 s"), (252_000, "4 min 12 s"), (11_100_000, "3 h 5 min"),
     (6 * 86_400_000 + 82_800_000, "6 d 23 h"), (400 * 86_400_000, "1 y 35 d")],
)
def test_durations(ms, said):
    assert humanize.duration(ms) == said


def test_a_failure_never_rounds_to_a_clean_sheet():
    assert humanize.percent(1.0) == "100%"
    assert humanize.percent(0.99999) == "99.9%"
    assert humanize.percent(2 / 3) == "66.6%"


@given(st.floats(0, 1e15))
def test_every_duration_has_words(ms):
    assert humanize.duration(ms)


@given(st.integers(0, 10**13), st.integers(0, 10**13))
def test_every_moment_has_words(moment, now):
    assert humanize.ago(moment, now)


@given(st.integers(0, 10**9))
def test_axes_end_on_round_numbers_not_far_away(value):
    top = nice_top(value)
    assert value <= top <= max(1, value * 2.5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12
)


@given(JSON)
def test_payloads_are_escaped_and_lose_nothing(value):
    raw = json.dumps(value).encode()
    shown = payload.show(raw)
    text = shown.html.striptags() if False else _text(str(shown.html))
    assert json.loads(text) == value
    assert "<" not in _without_spans(str(shown.html))


def test_big_numbers_keep_their_digits():
    assert str(BIG_NUMBER) in payload.pretty(f'{{"n":{BIG_NUMBER}}}'.encode())
    assert "1.10" in payload.pretty(b'{"n":1.10}')


def test_markup_is_text():
    shown = payload.show(b'{"a":"<script>alert(1)</script>"}')
    assert "<script>" not in str(shown.html)
    assert "&lt;script&gt;" in str(shown.html)


def test_long_payloads_fold_and_longer_ones_are_cut():
    assert payload.show(json.dumps(list(range(100))).encode()).folded
    huge = payload.show(json.dumps(["x" * 1000] * 1000).encode())
    assert huge.cut
    assert huge.size == "1 MB"


def _without_spans(html: str) -> str:
    import re
    return re.sub(r'<span class="j-\w+">|</span>', "", html)


def _text(html: str) -> str:
    import html as html_module
    return html_module.unescape(_without_spans(html))


def apps() -> dict[str, App]:
    app = App("shop")
    app.declare(OrderPaid)
    return {"shop": app}


def test_a_draft_keeps_the_digits_and_drops_the_white_space():
    out = draft(apps(), " other/thing ", f'{{ "n" : {BIG_NUMBER} }}', " id-1 ")
    assert (out.name, out.data, out.id) == ("other/thing", f'{{"n":{BIG_NUMBER}}}'.encode(), "id-1")
    assert draft(apps(), "other/thing", "", "").data == b"{}"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("", "{}", "needs a name"), ("inngest/mine", "{}", "reserved"), ("a/b", "[1]", "must be an object like"), ("a/b", '{"a": 1,\n "b": }', "line 2"),
        ("a/b", "null", "not null"), ("shop/order.paid", "{}", "order_id: field required"), ("x" * 300, "{}", "longer than 255"),
        ("a/b", "[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_draft_says_where_and_why(name, data, said):
    with pytest.raises(EventInvalidError, match=said):
        draft(apps(), name, data, "")


def test_samples_fit_their_schema():
    assert OrderPaid.model_validate(sample(OrderPaid))


def test_the_history_tells_everything_in_order():
    attempts = (AttemptView(0, START + 20, START + 30, START + 50, {"name": "TimeoutError", "message": "slow"}),)
    entries = history(run_detail(step_view("charge", 50, 60, attempts=attempts), step_view("nap", 60, 900, kind="sleep", seq=2)))
    assert [(e.what, e.step) for e in entries] == [
        ("queued", ""), ("started", ""), ("attempt 1 failed", "charge"), ("recorded", "charge"), ("registered", "nap"), ("recorded", "nap"), ("completed", ""),
    ]
    assert entries[2].detail == "TimeoutError: slow; next in 20 ms"
    assert escape("") == ""
