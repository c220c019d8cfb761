"""P6: the pages over real HTTP, as they are without JavaScript: complete, escaped, guarded, and usable with forms and links."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from dashboard_kit import BIG_NUMBER, EVIL, LONG_EVENT, Shop, shop
from holdfast.base.ids import IdFactory, ulid_text
from holdfast.engine.engine import Engine
from holdfast.store.reads import RunFilter

PAGES = ("/", "/runs", "/events", "/events/send", "/functions", "/functions/shop-fulfil", "/dead-letters", "/crons", "/apps", "/audit", "/bulk")


class Page(HTMLParser):
    """What a browser would see of a page's structure."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def links(self) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a" and "href" in attrs]


def page(running: Shop, path: str, status: int = 200) -> Page:
    answer = running.http.get(path)
    assert answer.status_code == status, answer.text
    return Page(answer.text)


def waiting(running: Shop, order: str) -> str:
    run = running.send("shop/order.paid", {"order_id": order})
    running.until(run, lambda d: any(s.kind == "wait_event" for s in d.steps))
    return run


@pytest.mark.parametrize("path", PAGES)
def test_each_page_answers_with_nothing_inline(running: Shop, path: str):
    answer = running.http.get(path)
    assert answer.status_code == 200
    csp = answer.headers["content-security-policy"]
    assert "unsafe" not in csp
    assert "script-src 'self'" in csp
    for tag, attrs in Page(answer.text).tags:
        assert "style" not in attrs, f"<{tag}> has a style attribute, which the policy forbids"
        assert not any(name.startswith("on") for name in attrs), f"<{tag}> has an inline handler"
        assert tag != "style"
        assert tag != "script" or attrs.get("src")


def test_a_new_server_is_shown_by_the_hour_and_an_empty_one_by_the_day(running: Shop):
    def periods(path: str) -> list[str | None]:
        tags = page(running, path).tags
        return [attrs["href"] for tag, attrs in tags if tag == "a" and "period=" in (attrs.get("href") or "") and "aria-current" in attrs]

    assert periods("/") == ["/?period=24h"]
    running.end(running.send("test/hello"))
    assert periods("/") == ["/?period=1h"]
    assert periods("/?period=7d") == ["/?period=7d"]


def test_a_run_is_found_read_and_understood(running: Shop):
    run = running.send("test/hello", {"n": 1})
    running.end(run)
    assert f"/runs/{run}" in page(running, "/runs").links()
    shown = page(running, f"/runs/{run}")
    assert "Completed in" in shown.text
    assert str(BIG_NUMBER) in shown.text, "big integers keep their digits"
    step = page(running, f"/runs/{run}?step=say")
    assert "Result" in step.text
    assert "lorem ipsum" in step.text
    assert json.loads(running.http.get(f"/runs/{run}/steps/0.json").content)["i"] == 0
    assert running.http.get(f"/runs/{run}/output.json").content == f'{{"greeting":"hello","big":{BIG_NUMBER}}}'.encode()
    assert "history" in running.http.get(f"/runs/{run}").text


def test_a_waiting_run_says_what_for(running: Shop):
    run = waiting(running, "w1")
    assert 'for event shop/order.shipped where order_id is "w1", gives up in 6 d 23 h' in page(running, f"/runs/{run}").text
    running.send("shop/order.shipped", {"order_id": "w1"})
    running.end(run)
    shown = page(running, f"/runs/{run}")
    assert "receipt for w1" in shown.text
    assert "make-receipt" in shown.text, "the invoked run is linked"


def test_a_running_step_shows_while_it_runs(running: Shop):
    run = running.send("test/hold", {"gate": "seen"})
    running.until(run, lambda d: d.run.started_at is not None)
    shown = page(running, f"/runs/{run}")
    assert "Executing step 'held step'" in shown.text
    running.let_go("seen")
    running.end(run)
    assert "let go: seen" in page(running, f"/runs/{run}").text


def test_progress_shows_on_its_page_and_in_lists_while_the_run_goes_on(running: Shop):
    run_id = running.send("test/tell", {"gate": "told"})
    running.until(run_id, lambda detail: detail.run.progress is not None)
    page, listed = running.http.get(f"/runs/{run_id}").text, running.http.get("/runs?function=shop-telling").text
    for text in (page, listed):
        assert 'aria-valuenow="40"' in text
        assert "images &lt;b&gt;" in text
    running.let_go("told")
    running.end(run_id)
    assert "progressbar" not in running.http.get("/runs?function=shop-telling").text.partition('id="runs-body"')[2].partition("</tbody>")[0]


def test_retries_show_attempts_errors_and_when_the_next_is(running: Shop):
    run = running.send("shop/order.paid", {"order_id": "later"})
    running.until(run, lambda d: any(s.attempts for s in d.steps))
    shown = page(running, f"/runs/{run}")
    assert "Step 'charge' failed with TimeoutError (attempt 1 of 3) and tries again in 59 min" in shown.text
    step = page(running, f"/runs/{run}?step=charge")
    assert "the payment provider did not answer" in step.text
    assert "Traceback" in step.text
    assert "after 1 h" in step.text
    assert "Retrying" in step.text


def test_retried_and_recovered(running: Shop):
    run = waiting(running, "flaky")
    assert "×3" in page(running, f"/runs/{run}").text
    assert page(running, f"/runs/{run}?step=charge").text.count("ConnectionError") >= 2


def test_a_dead_letter_is_grouped_redriven_once_and_kept_on_record(running: Shop):
    running.world.healed = False
    runs = [running.send("shop/order.paid", {"order_id": "declined"}) for _ in range(3)]
    for run in runs:
        running.end(run)
    shown = page(running, "/dead-letters")
    assert "card declined" in shown.text
    assert "Redrive all" in shown.text
    assert "dead letter" in page(running, f"/runs/{runs[0]}").text

    running.world.healed = True
    first = running.post(f"/runs/{runs[0]}/redrive")
    again = running.post(f"/runs/{runs[0]}/redrive")
    assert first.status_code == again.status_code == 303
    assert first.headers["location"] == again.headers["location"], "redriven twice by accident, run once"
    new = first.headers["location"].rpartition("/")[2]
    assert new != runs[0]
    running.until(new, lambda d: any(s.kind == "wait_event" for s in d.steps))
    assert running.world.tries["declined"] == 4, "the charge ran again, the finished steps did not"
    assert f"/runs/{new}" in page(running, f"/runs/{runs[0]}").links()

    letter = running.call(running.engine.reader.dead_letter(runs[1]))
    assert letter is not None
    group = [run for run in running.call(running.engine.reader.runs(RunFilter(fingerprint=letter.fingerprint), limit=200))[0]]
    where = json.dumps({"fingerprint": letter.fingerprint})
    ask = running.post("/bulk/ask", action="redrive", filter=where)
    assert f"Redrive {len(group)} dead letters?" in Page(ask.text).text
    assert running.call(running.engine.reader.dead_letter(runs[1])).state == "dead", "asked, not done"
    shown = over(running, running.post("/bulk", action="redrive", filter=where))
    assert f"Redriven {len(group)}" in shown.text
    assert running.call(running.engine.reader.dead_letters(fingerprint=letter.fingerprint))[0] == []


def test_discarding(running: Shop):
    running.world.healed = False
    run = running.send("shop/order.paid", {"order_id": "declined"})
    running.end(run)
    assert running.post("/dead-letters/discard", run=run).status_code == 303
    assert "1 dead letter discarded." in page(running, "/dead-letters?state=discarded").text
    assert f"/runs/{run}" in page(running, "/dead-letters?state=discarded").links()


def test_cancel_and_rerun(running: Shop):
    run = waiting(running, "cancel-me")
    assert "Rerun" not in page(running, f"/runs/{run}").text, "it has not ended"
    assert "It can't start again" in page(running, running.post(f"/runs/{run}/rerun").headers["location"]).text
    answer = running.post(f"/runs/{run}/cancel")
    assert answer.status_code == 303
    assert "Cancelled. A step in flight" in page(running, answer.headers["location"]).text
    assert "Cancelled after" in page(running, f"/runs/{run}").text, "the message was shown once, the state stays"
    assert "had ended already" in page(running, running.post(f"/runs/{run}/cancel").headers["location"]).text
    new = running.post(f"/runs/{run}/rerun").headers["location"].rpartition("/")[2]
    assert new != run
    assert "rerun of" in page(running, f"/runs/{new}").text


def over(running: Shop, started: httpx.Response) -> Page:
    """The page of a bulk operation that was begun, once it has ended."""
    assert started.status_code == 303, started.text
    path = started.headers["location"]
    assert re.fullmatch(r"/bulk/[0-9A-Z]{26}", path)
    running.call(bulk_ended(running.engine, path.rpartition("/")[2]))
    return page(running, path)


async def bulk_ended(engine: Engine, bulk_id: str) -> None:
    with engine.notices.subscribe() as notices:
        while (await engine.bulk_info(bulk_id)).state == "running":
            async with asyncio.timeout(20):
                await anext(aiter(notices))


def filter_of(answer: httpx.Response) -> str:
    """The filter that the question would be answered for."""
    assert answer.status_code == 200, answer.text
    return next(attrs["value"] for tag, attrs in Page(answer.text).tags if attrs.get("name") == "filter")


def test_bulk_asks_first_and_shows_what_it_did(running: Shop):
    runs = [waiting(running, f"bulk{i}") for i in range(2)]
    ask = running.post("/bulk/ask", action="cancel", run=runs, back="event=shop/order.paid")
    assert "Cancel 2 runs?" in Page(ask.text).text
    assert "/runs?event=shop%2Forder.paid" in Page(ask.text).links()
    assert running.call(running.engine.reader.run_view(runs[0])).status == "WAITING", "asked, not done"
    shown = over(running, running.post("/bulk", action="cancel", filter=filter_of(ask), rate="1000/s"))
    assert "Cancel 2 runs" in shown.text and "Cancelled 2" in shown.text and "at most 1000/s" in shown.text
    assert "2 selected runs" in shown.text
    assert {running.call(running.engine.reader.run_view(run)).status for run in runs} == {"CANCELLED"}
    entry = running.call(running.engine.reader.audit(limit=1))[0]
    assert (entry.action, entry.detail[:8]) == ("bulk.start", "cancel 2")
    listed = page(running, "/bulk")
    assert "Cancel 2 runs" in listed.text and "2 of 2" in listed.text


def test_all_that_match_are_changed_at_once(running: Shop):
    runs = [running.send("test/sleep") for _ in range(60)]
    for run in runs:
        running.until(run, lambda d: bool(d.steps))
    back = "function=sleeper&status=QUEUED%2CRUNNING%2CWAITING"
    ask = running.post("/bulk/ask", action="cancel", run=runs[:1], back=back, all="yes")
    assert "Cancel 60 runs?" in Page(ask.text).text
    assert "status:queued,running,waiting fn:sleeper" in Page(ask.text).text
    assert "and 50 more." in Page(ask.text).text
    shown = over(running, running.post("/bulk", action="cancel", filter=filter_of(ask)))
    assert "60 of 60" in shown.text
    assert {running.call(running.engine.reader.run_view(run)).status for run in runs} == {"CANCELLED"}


def test_one_that_is_running_is_on_every_page_and_can_be_stopped(running: Shop):
    runs = [running.send("test/sleep") for _ in range(5)]
    for run in runs:
        running.until(run, lambda d: bool(d.steps))
    where = json.dumps({"ids": runs})
    path = running.post("/bulk", action="cancel", filter=where, rate="1/h").headers["location"]
    shown = page(running, path)
    assert "Running" in shown.text and "Stop" in shown.text
    for other in ("/", "/runs", "/crons"):
        assert "Cancelling 5 runs" in page(running, other).text
        assert path in page(running, other).links()
    stopped = running.post(f"{path}/cancel")
    assert stopped.headers["location"] == path
    assert "Stopped. What it has done stays done." in page(running, path).text
    assert "had ended already" in page(running, running.post(f"{path}/cancel").headers["location"]).text
    assert "Cancelling 5 runs" not in page(running, "/crons").text
    over(running, running.post("/bulk", action="cancel", filter=where))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"action": "burn", "all": "yes"}, "'burn' is not something to do with runs"),
        ({"action": "cancel", "filter": "{"}, "The filter can't be read"),
        ({"action": "cancel", "filter": '{"colour": "red"}', "where": "/bulk"}, "'colour' is nothing to choose runs by"),
        ({"action": "cancel", "filter": '{"event": "test/sleep"}', "rate": "fast", "where": "/bulk"}, "'fast' is not a rate"),
    ],
)
def test_what_can_not_be_carried_out_says_so(running: Shop, fields: dict[str, str], said: str):
    run = running.send("test/sleep")
    running.until(run, lambda d: bool(d.steps))
    answer = running.post(fields.pop("where", "/bulk/ask"), **fields)
    assert answer.status_code == 400
    assert said in Page(answer.text).text


def test_a_selection_that_the_action_is_not_possible_with(running: Shop):
    run = running.send("test/hello")
    running.end(run)
    answer = running.post("/bulk/ask", action="cancel", back="status=COMPLETED", all="yes")
    assert "no run can be cancelled that is COMPLETED" in page(running, answer.headers["location"]).text
    answer = running.post("/bulk/ask", action="redrive", back="function=greet", all="yes")
    assert "no run among them that can be redriven" in page(running, answer.headers["location"]).text


def test_there_is_no_such_bulk_operation(running: Shop):
    assert "There is no such bulk operation" in page(running, "/bulk/01ARZ3NDEKTSV4RRFFQ69G5FAV", 404).text
    assert "not the id of a bulk operation" in page(running, "/bulk/nonsense", 404).text


def test_rerun_from_a_step_with_edited_input(running: Shop):
    running.world.healed = False
    run = running.send("shop/order.paid", {"order_id": "declined"})
    running.end(run)
    step = page(running, f"/runs/{run}?step=charge")
    assert "of the latest attempt that failed" in step.text
    assert f"/runs/{run}/edit?step=charge" in step.links()
    form = page(running, f"/runs/{run}/edit?step=charge")
    assert re.search(r'<textarea id="input"[^>]*>\[\s*&#34;declined&#34;\s*\]</textarea>', running.http.get(f"/runs/{run}/edit?step=charge").text)
    assert "keeps what was recorded before charge" in form.text

    broken = running.post(f"/runs/{run}/edit", step="charge", input='[\n  "declined",\n  oops]', data="")
    assert broken.status_code == 400
    assert "at line 3, column 3" in Page(broken.text).text
    assert "oops]</textarea>" in broken.text, "what was typed is kept"
    answer = running.post(f"/runs/{run}/edit", step="charge", input="5", data="")
    assert "the input of a step is a list" in Page(answer.text).text

    made = running.post(f"/runs/{run}/edit", step="charge", input='["edited"]', data='{"order_id": "declined"}')
    new = made.headers["location"].rpartition("/")[2]
    detail = running.until(new, lambda d: any(s.kind == "wait_event" for s in d.steps))
    assert next(s.data for s in detail.steps if s.key == "charge").startswith(b'{"charge":"charge-edited"')
    assert "whose input was edited" in page(running, f"/runs/{new}").text
    assert running.call(running.engine.reader.run_view(run)).status == "FAILED"
    entry = running.call(running.engine.reader.audit(limit=1))[0]
    assert (entry.action, entry.detail) == ("run.rerun", f"as {new}, from step charge, with edited input, with edited event")


def test_rerun_from_here_without_changes(running: Shop):
    run = running.send("test/hello")
    running.end(run)
    made = running.post(f"/runs/{run}/rerun", step="say")
    new = made.headers["location"].rpartition("/")[2]
    running.end(new)
    assert "it begins at step &#39;say&#39;" in running.http.get(f"/runs/{new}").text


def test_redrive_with_another_event(running: Shop):
    running.world.healed = False
    run = running.send("shop/order.paid", {"order_id": "declined"})
    running.end(run)
    assert f"/runs/{run}/edit?redrive=yes" in page(running, f"/runs/{run}").links()
    assert "goes on at the one that failed" in page(running, f"/runs/{run}/edit?redrive=yes").text
    bad = running.post(f"/runs/{run}/edit", redrive="yes", input="", data='{"amount": 3}')
    assert bad.status_code == 400 and "order_id" in Page(bad.text).text
    made = running.post(f"/runs/{run}/edit", redrive="yes", input='["mended"]', data='{"order_id": "mended", "amount": 3}')
    new = made.headers["location"].rpartition("/")[2]
    running.until(new, lambda d: any(s.kind == "wait_event" for s in d.steps))
    assert running.call(running.engine.reader.dead_letter(run)).redriven_as == new
    event = running.call(running.engine.reader.run_view(new)).event_id
    assert running.call(running.engine.reader.event(event)).meta["edited_from"] == running.call(running.engine.reader.run_view(run)).event_id


def test_groups_are_made_of_all_letters(running: Shop):
    (group, *_) = running.call(running.engine.reader.letter_groups(function="shop-fulfil")) or [None]
    if group is None or group.count < 2:
        running.world.healed = False
        for run in [running.send("shop/order.paid", {"order_id": "declined"}) for _ in range(2)]:
            running.end(run)
        (group, *_) = running.call(running.engine.reader.letter_groups(function="shop-fulfil"))
    shown = page(running, "/dead-letters")
    assert "card declined" in shown.text and f"{group.count} letters" in shown.text
    drill = page(running, f"/dead-letters?fingerprint={group.fingerprint}")
    assert "All groups" in drill.text and "Redrive all" in drill.text


@pytest.mark.parametrize("back", ["//evil.example", "x\r\nSet-Cookie: a=b", "https://evil.example"])
def test_a_form_cannot_lead_elsewhere(running: Shop, back: str):
    answer = running.post("/bulk/ask", action="cancel", back=back)
    assert answer.headers["location"].startswith("/runs")
    assert "a" not in answer.cookies


def test_search_leads_to_ids_and_to_addresses_that_say_the_same(running: Shop):
    run = running.send("test/hello", {}, event_id="payment-77")
    running.end(run)
    event = running.call(running.engine.reader.run_view(run)).event_id
    assert running.http.get("/search", params={"q": run.lower()}).headers["location"] == f"/runs/{run}"
    assert running.http.get("/search", params={"q": event}).headers["location"] == f"/events/{event}"
    found = running.http.get("/search", params={"q": "id:payment-77"}).headers["location"]
    assert f"/runs/{run}" in page(running, found).links()
    answer = running.http.get("/runs", params={"q": "status:failed fn:fulfil card declined"})
    assert answer.headers["location"] == "/runs?status=FAILED&function=fulfil&error=card+declined"
    assert "is not something to search by" in page(running, running.http.get("/runs?q=colour:red").headers["location"]).text
    assert "No run matches" in page(running, "/runs?function=nothing-like-it").text


def test_pages_of_a_list_follow_each_other(running: Shop):
    runs = {running.send("test/hello", {"n": n}) for n in range(55)}
    for run in runs:
        running.end(run)
    first = page(running, "/runs?function=greet")
    older = next(link for link in first.links() if "cursor=" in link)
    second = page(running, older)
    ids = [re.findall(r"/runs/(\w{26})", " ".join(p.links())) for p in (first, second)]
    assert not set(ids[0]) & set(ids[1])
    assert runs <= set(ids[0]) | set(ids[1])


def test_an_event_is_sent_and_a_bad_one_keeps_its_text(running: Shop):
    bad = running.post("/events/send", name="shop/order.paid", data='{"order_id": 5,\n oops}', id="p1")
    assert bad.status_code == 400
    shown = Page(bad.text)
    assert "is not JSON" in shown.text
    assert "line 2" in shown.text
    assert '{"order_id": 5,\n oops}' in "".join(shown.words), "what was typed is still there"
    assert "order_id: field required" in Page(running.post("/events/send", name="shop/order.paid", data="{}", id="").text).text
    assert bad.headers["hx-push-url"] == "false", "the answer to a form has no address of its own"
    assert 'data-live=""' in bad.text
    good = running.post("/events/send", name="nobody/listens", data=f'{{"n": {BIG_NUMBER}}}', id="p2")
    assert good.status_code == 303
    event = page(running, good.headers["location"])
    assert str(BIG_NUMBER) in event.text
    assert "No function was started" in event.text
    again = running.post("/events/send", name="nobody/listens", data="{}", id="p2")
    assert again.status_code == 303
    assert running.http.get(good.headers["location"] + ".json").content == f'{{"n":{BIG_NUMBER}}}'.encode()


def test_a_duplicate_event_shows_the_reason(running: Shop):
    run = running.send("test/hello", {}, event_id="twice")
    skipped = running.send("test/hello", {}, event_id="twice")
    assert run != skipped
    assert "duplicate" in page(running, f"/events/{skipped}").text
    assert "greet" in page(running, f"/events/{skipped}").text


def test_the_form_knows_names_and_examples(running: Shop):
    shown = page(running, "/events/send?name=shop/order.paid")
    assert '"order_id": "order_id-1"' in "".join(shown.words)
    assert "checked against the event's schema" in shown.text


def test_functions_are_described_and_invoked(running: Shop):
    shown = page(running, "/functions/shop-fulfil")
    assert "shop/order.paid" in shown.text
    assert "Retries" in shown.text
    answer = running.post("/functions/shop-make-receipt/invoke", data='{"order_id": "by hand"}', id="")
    assert answer.status_code == 303
    run = answer.headers["location"].rpartition("/")[2]
    running.end(run)
    assert "receipt for by hand" in page(running, f"/runs/{run}").text
    refused = running.post("/functions/shop-fulfil/invoke", data="[]", id="")
    assert refused.status_code == 400
    assert "must be an object" in Page(refused.text).text


def test_crons_show_their_next_fires_and_run_now(running: Shop):
    shown = page(running, "/crons")
    assert "Monday to Friday at 09:00 Europe/Paris" in shown.text
    assert len(re.findall(r"09:00:00 CES?T", shown.text)) == 5
    answer = running.post("/crons/run", function="shop-report", schedule="TZ=Europe/Paris 0 9 * * mon-fri")
    run = answer.headers["location"].rpartition("/")[2]
    running.end(run)
    assert "Completed" in page(running, f"/runs/{run}").text
    assert running.post("/crons/run", function="shop-report", schedule="* * * * *").status_code == 404


def test_markup_in_names_is_text_everywhere(running: Shop):
    run = running.send(EVIL, {"html": "<img src=x onerror=alert(1)>"})
    running.end(run)
    event = running.call(running.engine.reader.run_view(run)).event_id
    for path in ("/", "/runs", "/events", "/functions", "/functions/shop-evil", f"/runs/{run}", f"/runs/{run}?step={EVIL}", f"/events/{event}", "/events/send"):
        answer = running.http.get(path)
        assert answer.status_code == 200, path
        for tag, attrs in Page(answer.text).tags:
            assert tag != "script" or attrs.get("src"), f"a script in {path}"
            assert tag != "img", f"an image in {path}"
    assert EVIL in " ".join(page(running, f"/runs/{run}").words)


def test_a_thousand_steps_stay_small(running: Shop):
    run = running.send("test/many")
    running.end(run)
    answer = running.http.get(f"/runs/{run}")
    assert "950 steps more" in Page(answer.text).text
    assert len(answer.content) < 200_000
    every = running.http.get(f"/runs/{run}?show=all")
    assert every.text.count('class="wf-row') == 1001


def test_fragments_answer_304_until_something_changes(running: Shop):
    running.end(running.send("test/hello"))
    first = running.http.get("/runs?function=greet", headers={"X-Fragment": "1"})
    assert "<html" not in first.text
    assert 'id="main"' in first.text
    etag = first.headers["etag"]
    same = running.http.get("/runs?function=greet", headers={"X-Fragment": "1", "If-None-Match": etag})
    assert same.status_code == 304
    assert not same.content
    running.end(running.send("test/hello"))
    assert running.http.get("/runs?function=greet", headers={"X-Fragment": "1", "If-None-Match": etag}).status_code == 200


def test_the_stream_carries_notices_only_and_coalesced(running: Shop):
    secret = "canary-in-a-payload"
    lines: list[str] = []
    listening = threading.Event()
    done = threading.Event()

    def listen() -> None:
        with running.http.stream("GET", "/stream", timeout=20) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-accel-buffering"] == "no"
            for line in answer.iter_lines():
                lines.append(line)
                if line == "event: hello":
                    listening.set()
                if run in line or '"many":true' in line:
                    done.set()
                    return

    run = "nothing yet"
    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(10)
    for n in range(150):
        running.send("test/hello", {"secret": secret, "n": n})
    run = running.send("test/hold", {"gate": "streamed"})
    assert done.wait(15), lines
    running.let_go("streamed")
    thread.join(10)
    assert secret not in "".join(lines)
    assert len([line for line in lines if line == "event: change"]) < 40, "150 runs are not 150 messages"
    change = json.loads(next(line for line in lines if line.startswith('data: {"kinds"')).removeprefix("data: "))
    assert set(change) == {"kinds", "ids", "many"}


@pytest.mark.parametrize(
    "path",
    ["/runs/{run}/cancel", "/runs/{run}/rerun", "/runs/{run}/redrive", "/runs/{run}/edit", "/bulk", "/bulk/ask", "/dead-letters/redrive", "/dead-letters/discard",
     "/events/send", "/functions/shop-fulfil/invoke", "/crons/run"],
)
def test_changes_need_the_sessions_token(running: Shop, path: str):
    run = waiting(running, "guarded")
    fields = {"run": run, "action": "cancel", "confirmed": "yes", "name": "a/b", "data": '{"order_id": "forged"}', "function": "shop-report"}
    for token in ({}, {"csrf_token": "forged"}):
        answer = running.http.post(path.format(run=run), data={**fields, **token})
        assert answer.status_code == 403, answer.text
    assert running.call(running.engine.reader.run_view(run)).status == "WAITING"


@pytest.mark.parametrize(
    ("path", "said"),
    [("/runs/not-an-id", "is not the id of a run"), (f"/runs/{ulid_text(IdFactory(1).new(5))}", "There is no run"), ("/events/nothing", "There is no event"),
     ("/functions/nothing", "There is no function"), (f"/runs/{'9' * 26}", "is not the id of a run")],
)
def test_what_is_not_there_says_so(running: Shop, path: str, said: str):
    assert said in page(running, path, 404).text


def test_long_names_have_pages(running: Shop):
    run = running.send(LONG_EVENT, {"value": "v" * 3000})
    running.end(run)
    slug = running.call(running.engine.reader.run_view(run)).function
    for path in ("/", "/runs", f"/runs/{run}", f"/functions/{slug}", "/dead-letters", f"/events?name={LONG_EVENT}"):
        page(running, path)


def test_static_files_are_immutable_and_stay_inside(running: Shop):
    html = running.http.get("/").text
    assets = re.findall(r'(?:src|href)="(/static/[^"]+)"', html)
    assert len(assets) > 6
    for path in assets:
        answer = running.http.get(path)
        assert answer.status_code == 200, path
        assert "immutable" in answer.headers["cache-control"]
    assert running.http.get("/static/x/../../site.py").status_code == 404
    assert running.http.get("/static/x/%2e%2e/%2e%2e/site.py").status_code == 404


def test_everything_works_below_a_prefix(tmp_path: Path):
    with shop(tmp_path / "prefixed.db", prefix="/jobs/holdfast") as server:
        run = server.send("test/hello")
        server.end(run)
        seen, todo = set(), ["/jobs/holdfast/"]
        with httpx.Client(base_url=server.url.removesuffix("/jobs/holdfast"), timeout=20) as client:
            while todo:
                path = todo.pop()
                seen.add(path)
                answer = client.get(path)
                assert answer.status_code == 200, path
                if "html" not in answer.headers["content-type"]:
                    continue
                for tag, attrs in Page(answer.text).tags:
                    address = attrs.get("href") or attrs.get("src") or attrs.get("action") or attrs.get("data-stream")
                    if address and not address.startswith(("#", "data:")):
                        assert address.startswith("/jobs/holdfast"), f"{address} in {path} leaves the prefix"
                        clean = address.partition("#")[0]
                        if tag in {"a", "link", "script"} and clean not in seen and len(seen) < 60:
                            todo.append(clean)
            assert f"/jobs/holdfast/runs/{run}" in seen
            token = re.search(r'csrf_token" value="([^"]+)', client.get("/jobs/holdfast/events/send").text)[1]
            answer = client.post("/jobs/holdfast/events/send", data={"csrf_token": token, "name": "a/b", "data": "{}", "id": ""})
            assert answer.headers["location"].startswith("/jobs/holdfast/events/")
