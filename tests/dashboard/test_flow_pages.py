"""Flow control on the pages, without JavaScript: why a run waits, what an event waits for, limits, and what can be changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dashboard_kit import Shop, shop
from flow_kit import fill, make_flow_app
from test_pages import Page, page

from holdfast.core.signals import SIGNAL_LOOKUP
from holdfast.core.waiting import CHILD_LOOKUP
from holdfast.dashboard.pages.queue import grouped
from holdfast.store.reads import WaitView


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("store") / "shop.db", make_flow_app) as server:
        server.named = fill(server)
        yield server


def said(running: Shop, answer) -> Page:  # noqa: ANN001
    """The page that a change leads to, with what it says there."""
    assert answer.status_code == 303, answer.text
    return Page(running.http.get(answer.headers["location"].removeprefix(running.http.base_url.path.rstrip("/"))).text)


def audited(running: Shop) -> tuple[str, str, str]:
    entry = running.call(running.engine.reader.audit(limit=1))[0]
    return entry.action, entry.target, entry.detail


@pytest.mark.parametrize("path", ["/flow", "/queue", "/functions/shop-import-catalogue", "/functions/shop-sync-contacts", "/functions/shop-plain"])
def test_each_page_answers_with_nothing_inline(running: Shop, path: str):
    for tag, attrs in page(running, path).tags:
        assert "style" not in attrs
        assert not any(name.startswith("on") for name in attrs)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ("in-line", "Concurrency key user-7: 2 of 2 places taken, 3rd in line."),
        ("other-key", "Second concurrency: 4 of 4 places taken, 1st in line."),
        ("throttled", "Throttled: starts at about"),
        ("held", "Held: the function is paused, 1st in line."),
        ("timed", "Will be cancelled unless it ends by"),
        ("timed", "Can be cancelled by event flow/stop."),
    ],
)
def test_a_run_says_why_it_waits(running: Shop, run: str, sentence: str):
    assert sentence in page(running, f"/runs/{running.named[run]}").text


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("debounced-away", "debounced away: a later event took its place; 1h of quiet for key 'user-7'"),
        ("debounced", "debounced: 1h of quiet for key 'user-7'; starts in 59 min"),
        ("batched", "batched: 2 so far; starts in 59 min"),
        ("rate-limited", "rate limited: 1 in 1h"),
        ("singleton", "singleton"),
        ("idempotent", "idempotency: once in 24 hours for key 'p1'"),
        ("nobody", "no function listened to it and no run waited for it when it came"),
    ],
)
def test_an_event_says_why_it_started_nothing_or_until_when_it_waits(running: Shop, event: str, words: str):
    shown = page(running, f"/events/{running.named[event]}")
    assert words in shown.text
    assert ("Waiting to start" in shown.text) == (event in {"debounced", "batched"})


def test_a_skipped_run_is_no_function_that_started(running: Shop):
    shown = page(running, f"/events/{running.named['singleton']}").text
    assert "Functions started 0" in shown
    assert "Not started, and why 1" in shown


def test_the_list_of_events_says_it_in_a_word(running: Shop):
    shown = page(running, "/events").text
    for words in ("shop-sync-contacts: debounced", "shop-sync-contacts: debounced away", "shop-write-metrics: batched", "shop-weekly-report: rate limited", "started nothing: no function"):
        assert words in shown


def test_the_flow_page_shows_each_limit_and_who_waits(running: Shop):
    shown = page(running, "/flow").text
    assert "at most 2 steps at once, for each event.data.who" in shown
    assert "4 of 4 taken" in shown
    assert "1 start in 1h, evenly" in shown
    assert "2 waiting, the first since" in shown
    assert "starts with the last event after 1h of quiet, for each event.data.who" in shown
    assert "user-7" in shown
    assert "Without rules, and with nobody in line: shop-plain" in shown
    assert page(running, "/functions").text.count("paused") >= 1


def test_the_queue_shows_who_is_in_line_what_executes_and_what_is_waited_for(running: Shop):
    later = running.send_later("flow/plain")
    shown = page(running, "/queue").text
    assert "4 in line, 3 wait for concurrency, 1 wait for second concurrency" in shown
    assert "1 in line, 1 held by the pause" in shown
    assert "stay" in shown
    assert "flow/approved 1 run, the first gives up in 6 d" in shown
    assert "flow/stop" not in shown, "what cancels a run is no wait of its steps"
    assert f"/runs/{later}" in page(running, "/queue").links()


def test_a_function_is_paused_and_resumed_with_forms(running: Shop):
    shown = said(running, running.post("/functions/shop-plain/pause", mode="hold"))
    assert "Paused: its runs wait in their queue until it is resumed." in shown.text
    assert "Held: its runs wait" in shown.text
    assert audited(running) == ("function.pause", "shop-plain", "hold")
    shown = said(running, running.post("/functions/shop-plain/pause", mode="skip", back="flow"))
    assert "paused, skipping events" in shown.text
    event = running.send("flow/plain")
    assert "Skipped: the function is paused." in page(running, f"/runs/{event}").text
    shown = said(running, running.post("/functions/shop-plain/resume"))
    assert "Resumed." in shown.text
    assert audited(running) == ("function.resume", "shop-plain", "")


def test_a_limit_is_changed_and_given_back(running: Shop):
    shown = said(running, running.post("/functions/shop-send-mail/limits", rule="throttle", limit="50", back="flow"))
    assert "Throttle is 50 now." in shown.text
    assert "50 starts in 1h, evenly" in shown.text
    assert "Back to 1" in shown.text
    assert audited(running) == ("function.limit", "shop-send-mail", "throttle 50")
    shown = said(running, running.post("/functions/shop-send-mail/limits", rule="throttle"))
    assert "Throttle is as the code says again." in shown.text
    assert "Back to" not in shown.text


def test_what_gathers_is_flushed_one_or_all(running: Shop):
    event = running.call(_sent(running, "flow/sync", who="flushed"))
    shown = said(running, running.post("/functions/shop-sync-contacts/flush", one="1", key="flushed", back=event))
    assert "Started 1 run." in shown.text
    assert "Functions started 1" in shown.text
    assert audited(running) == ("function.flush", "shop-sync-contacts", "1 run of key 'flushed'")
    batch = [running.call(_sent(running, "flow/metric")) for _ in range(2)]
    assert "Started 1 run." in said(running, running.post("/functions/shop-write-metrics/flush")).text
    (run,) = running.call(running.engine.reader.event_runs(batch[1]))
    running.end(run.id)
    shown = page(running, f"/runs/{run.id}")
    assert "Events of the batch" in shown.text
    assert {f"/events/{one}" for one in batch} <= set(shown.links())
    assert "Nothing waits any more" in said(running, running.post("/functions/shop-write-metrics/flush")).text


async def _sent(running: Shop, name: str, **data: object) -> str:
    return (await running.app.send({"name": name, "data": data})).id


@pytest.mark.parametrize(
    ("path", "fields", "status", "told"),
    [
        ("/functions/shop-nobody/pause", {}, 404, "There is no function"),
        ("/functions/shop-plain/pause", {"mode": "softly"}, 400, "not &#39;softly&#39;"),
        ("/functions/shop-plain/limits", {"rule": "concurrency", "limit": "3"}, 400, "limits are declared in code"),
        ("/functions/shop-send-mail/limits", {"rule": "throttle", "limit": "many"}, 400, "1 or more, not &#39;many&#39;"),
        ("/functions/shop-send-mail/limits", {"rule": "throttle", "limit": "0"}, 400, "1 or more, not 0"),
    ],
)
def test_what_is_not_possible_is_said(running: Shop, path: str, fields: dict[str, str], status: int, told: str):
    answer = running.post(path, **fields)
    assert answer.status_code == status
    assert told in answer.text


@pytest.mark.parametrize("what", ["pause", "resume", "limits", "flush"])
def test_nothing_is_changed_without_the_sessions_token(running: Shop, what: str):
    assert running.http.post(f"/functions/shop-plain/{what}", data={"csrf_token": "forged"}).status_code == 403


def test_waits_are_grouped_by_what_they_are_for():
    def wait(lookup: str, expires: int | None = None, expression: str | None = None) -> WaitView:
        return WaitView("01HF7YAT000000000000000000", "shop-fulfil", "step", lookup, expression, expires, 0)

    lines = grouped([
        wait('shop/paid\0order_id\0"o1"', 9), wait("shop/paid", 5, "async.data.big"), wait(SIGNAL_LOOKUP + "approved"), wait(CHILD_LOOKUP + "ab12"),
    ])
    assert [(line.what, line.count, line.expires, [condition for _, condition in line.waits]) for line in lines] == [
        ("shop/paid", 2, 5, ['order_id is "o1"', "async.data.big"]), ("end of an invoked run", 1, None, [""]), ("signal approved", 1, None, [""]),
    ]
