"""One run, its events, dead letters, schedules, waits and the audit log."""

from __future__ import annotations

import json

import pytest
from reader_rows import HOUR, MINUTE, NOW, shelf, text

from holdfast.core.ending import End, Ending
from holdfast.core.ingest import Incoming, Ingest, Match
from holdfast.core.machine import FailAttempt, Lease, Park, Record
from holdfast.core.claiming import Claim
from holdfast.core.restart import Restart
from holdfast.core.rows import (
    AttemptRow,
    AuditRow,
    CronRow,
    ItemState,
    LogRow,
    NoteRow,
    RunStatus,
    SkipRow,
    StepKind,
    StepRow,
    StepState,
    WaitRow,
)
from holdfast.core.waiting import Register
from holdfast.store.reads import AttemptView, CronView, LogView, QueueView, RunFilter, SkipView, WaitView
from holdfast.store.sqlite.reading import listing

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def error_json(name="ValueError", message="no", **more):
    return json.dumps({"name": name, "message": message, "stack": "Traceback ...", **more}).encode()


async def test_a_failed_run_is_told_whole(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-fulfil")
        event = one.event(key="payment-1", data=b'{"amount":12345678901234567890}', meta=b'{"v":"2"}')
        run = one.run(event, status=RunStatus.FAILED)
        step = dict(run_id=run.id, kind=StepKind.RUN, started_at=NOW + 10)
        await one.write(
            event, run,
            StepRow(key="", seq=4, state=StepState.FAILED, error=error_json(step="charge"), ended_at=NOW + 99, **step | {"kind": StepKind.END}),
            StepRow(key="charge", seq=3, state=StepState.FAILED, attempt=1, error=error_json(), ended_at=NOW + 90, **step),
            StepRow(key="pack", seq=1, state=StepState.DONE, data=b'{"n":1}', ended_at=NOW + 20, name="Pack it", **step),
            StepRow(key="nap", seq=2, state=StepState.DONE, data=b"null", ended_at=NOW + 30, **step | {"kind": StepKind.SLEEP}),
            AttemptRow(run.id, "charge", 1, NOW + 60, NOW + 90, None, error_json(message="again")),
            AttemptRow(run.id, "charge", 0, NOW + 40, NOW + 50, NOW + 60, error_json()),
            AttemptRow(run.id, "", 0, NOW + 5, NOW + 99, None, error_json(step="charge")),
            LogRow(run.id, 1, NOW + 11, 20, "packing", "pack"),
            LogRow(run.id, 2, NOW + 12, 10, "quiet"),
            LogRow(run.id, 3, NOW + 13, 45, "loud"),
            NoteRow(run.id, 900, NOW + 50, "the code changed"),
            NoteRow(run.id, 5, NOW + 60, "it crashed"),
            NoteRow(run.id, 7, NOW + 70, "the code changed"),
        )
        detail = await one.reader.run(text(run.id))
        assert [(s.key, s.name, s.kind, s.state, s.seq) for s in detail.steps] == [
            ("pack", "Pack it", "run", "done", 1), ("nap", "nap", "sleep", "done", 2), ("charge", "charge", "run", "failed", 3),
            ("", "", "end", "failed", 4),
        ]
        pack, _, charge, end = detail.steps
        assert (pack.data, pack.error, pack.attempts, pack.started_at, pack.ended_at) == (b'{"n":1}', None, (), NOW + 10, NOW + 20)
        error = {"name": "ValueError", "message": "no", "stack": "Traceback ..."}
        assert charge.error == error
        assert charge.attempts == (
            AttemptView(0, NOW + 40, NOW + 50, NOW + 60, error), AttemptView(1, NOW + 60, NOW + 90, None, error | {"message": "again"}),
        )
        assert [a.error["step"] for a in detail.function_attempts] == ["charge"]
        assert detail.error == end.error == error | {"step": "charge"}
        assert detail.output is None
        assert detail.logs == (
            LogView(NOW + 11, "info", "packing", "pack"), LogView(NOW + 12, "debug", "quiet", None), LogView(NOW + 13, "error", "loud", None),
        )
        assert detail.notes == ("the code changed", "it crashed")
        assert (detail.event.id, detail.event.internal_id) == ("payment-1", text(event.id))
        assert (detail.event.data, detail.event.meta) == (b'{"amount":12345678901234567890}', {"v": "2"})
        assert detail.queue is None
        assert detail.children == ()


async def test_pending_steps_come_after_recorded_ones(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        run = one.run(event, status=RunStatus.RUNNING)
        waits = b'{"event":"shop/order.shipped","where":{"order_id":"o1"},"if":null,"timeout_at":5}'
        await one.write(
            event, run, one.item(run, ItemState.TIMED, due=NOW + HOUR, crashes=1, attempt=2),
            StepRow(run.id, "wait", 0, StepState.PENDING, StepKind.WAIT_EVENT, NOW + 3, due=NOW + HOUR, data=waits),
            StepRow(run.id, "again", 0, StepState.PENDING, StepKind.RUN, NOW + 1, attempt=1, due=NOW + MINUTE),
            StepRow(run.id, "second", 2, StepState.DONE, StepKind.RUN, NOW, NOW + 2, data=b"2"),
            StepRow(run.id, "first", 1, StepState.DONE, StepKind.RUN, NOW, NOW + 9, data=b"1"),
        )
        detail = await one.reader.run(text(run.id))
        assert [step.key for step in detail.steps] == ["first", "second", "again", "wait"]
        assert detail.steps[-1].data == waits
        assert [step.due for step in detail.steps] == [None, None, NOW + MINUTE, NOW + HOUR]
        assert detail.run.status == "WAITING"
        assert detail.queue == QueueView("timed", NOW + HOUR, "1", None, 2, 1)
        assert detail.output is detail.error is None


@pytest.mark.parametrize("kind", list(StepKind))
async def test_every_kind_of_step_has_its_documented_name(tmp_path, kind):
    documented = ["run", "sleep", "wait_event", "wait_signal", "invoke", "send", "race", "now", "end", "fetch", "ai", "send_signal"]
    async with shelf(tmp_path) as one:
        run = one.run(one.event())
        await one.write(run, StepRow(run.id, "x", 1, StepState.DONE, kind, NOW))
        [step] = (await one.reader.run(text(run.id))).steps
        assert step.kind == documented[kind]


async def test_place_in_line_counts_those_ahead_in_the_lane(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        runs = [one.run(event, status=RunStatus.QUEUED, at=NOW + i, lane="1/user-7") for i in range(5)]
        other = one.run(event, status=RunStatus.QUEUED, lane="1/user-8")
        ranks = [NOW + 3, NOW + 1, NOW + 1, NOW - 500, NOW + 2]
        items = [one.item(run, ItemState.READY, rank=rank) for run, rank in zip(runs, ranks, strict=True)]
        items[4] = one.item(runs[4], ItemState.TIMED, rank=0)
        await one.write(event, other, one.item(other, ItemState.READY, rank=0), *runs, *items)
        places = [(await one.reader.run(text(run.id))).queue.position for run in runs]
        assert places == [4, 2, 3, 1, None]
        assert (await one.reader.run(text(runs[0].id))).queue.lane == "1/user-7"


async def test_children_are_runs_it_invoked_and_runs_made_from_it(tmp_path):
    async with shelf(tmp_path) as one:
        event = one.event()
        run = one.run(event, at=NOW)
        children = [one.run(event, at=NOW + i, parent_id=run.id, origin=origin) for i, origin in enumerate((1, 2, 3), 1)]
        await one.write(event, run, *children, one.run(event, at=NOW + 9, parent_id=children[0].id, origin=1))
        detail = await one.reader.run(text(run.id))
        assert [(child.id, child.origin) for child in detail.children] == [
            (text(child.id), name) for child, name in zip(children, ("invoke", "rerun", "redrive"), strict=True)
        ]


async def test_errors_that_are_not_objects_are_shown_as_they_are(tmp_path):
    async with shelf(tmp_path) as one:
        run = one.run(one.event(), status=RunStatus.FAILED)
        await one.write(
            run, StepRow(run.id, "a", 1, StepState.FAILED, StepKind.RUN, NOW, NOW, error=b'"just text"'),
            StepRow(run.id, "b", 2, StepState.FAILED, StepKind.RUN, NOW, NOW, error=b"no JSON \xff"),
        )
        steps = (await one.reader.run(text(run.id))).steps
        assert [step.error["message"] for step in steps] == ["just text", "no JSON �"]


async def test_what_the_core_decides_is_read_back_at_each_stage(tmp_path):
    """A run through the real plans: leased, a step, a failed attempt, parked, claimed, ended, and redriven."""
    async with shelf(tmp_path, room=5, functions=frozenset({1})) as one:
        one.function(1, "shop-fulfil")
        submit, reader, clock = one.store.submit, one.reader, one.clock
        event = one.event(key="payment-1")
        run_id = one.ids.new(NOW + 1)
        accepted = await submit(Ingest([Incoming(event, [Match(run_id, 1, 1, "1")])], 100))
        item = accepted.leased[0].item
        lease = Lease(item.id, run_id, item.owner, item.epoch)
        assert (await reader.run(text(run_id))).queue.state == "leased"
        assert (await reader.run_view(text(run_id))).status == "RUNNING"

        clock.ms += 10
        await submit(Record(lease, StepRow(run_id, "charge", 0, StepState.DONE, StepKind.RUN, NOW, NOW + 10, data=b'"c1"')))
        assert (await reader.run_view(text(run_id))).steps == 1

        failed = AttemptRow(run_id, "mail", 0, NOW + 10, NOW + 20, NOW + MINUTE, error_json("OSError", "refused"))
        await submit(FailAttempt(lease, failed, StepRow(run_id, "mail", 0, StepState.PENDING, StepKind.RUN, NOW + 10, None, 1, NOW + MINUTE)))
        wait = WaitRow(run_id, "shipped", "shop/order.shipped", NOW + HOUR, created_at=NOW)
        pending = StepRow(run_id, "shipped", 0, StepState.PENDING, StepKind.WAIT_EVENT, NOW + 10, None, 0, NOW + HOUR, b'{"event":"x"}')
        await submit(Register(lease, pending, wait))
        assert [(w.run_id, w.step) for w in await reader.waits()] == [(text(run_id), "shipped")]

        assert await submit(Park(lease, NOW + MINUTE, 0)) is True
        detail = await reader.run(text(run_id))
        assert (detail.run.status, detail.run.error, detail.queue.state, detail.queue.due) == (
            "WAITING", "OSError: refused", "timed", NOW + MINUTE,
        )
        assert [step.key for step in detail.steps] == ["charge", "mail", "shipped"]
        assert detail.steps[1].attempts[0].retry_at == NOW + MINUTE

        clock.ms = NOW + MINUTE
        [leased] = await submit(Claim(5, frozenset({1}), suspect=False))
        lease = Lease(leased.item.id, run_id, leased.item.owner, leased.item.epoch)
        assert (await reader.run_view(text(run_id))).status == "RUNNING"
        ending = Ending(RunStatus.FAILED, error=error_json("OSError", "refused", step="mail"), fingerprint="abc")
        last = AttemptRow(run_id, "mail", 1, clock.ms, clock.ms, None, error_json("OSError", "refused"))
        await submit(End(lease, ending, waits=True, logs=[last]))
        detail = await reader.run(text(run_id))
        assert (detail.run.status, detail.run.ended_at, detail.error["name"], detail.queue) == ("FAILED", NOW + MINUTE, "OSError", None)
        assert list(await reader.waits()) == []
        letter = await reader.dead_letter(text(run_id))
        assert (letter.state, letter.error, letter.at, letter.attempts, letter.function, letter.event_name) == (
            "dead", "OSError: refused", NOW + MINUTE, 2, "shop-fulfil", "shop/order.paid",
        )

        again = one.ids.new(clock.ms + 1)
        match = Match(again, 1, 1, "1", origin=3, parent_id=run_id)
        assert (await submit(Restart(run_id, match, redrive=True)))[0] == again
        letter = await reader.dead_letter(text(run_id))
        assert (letter.state, letter.redriven_as) == ("redriven", text(again))
        redriven = await reader.run(text(again))
        assert (redriven.run.origin, redriven.run.parent_id, redriven.run.event_id) == ("redrive", text(run_id), text(event.id))
        assert [step.key for step in redriven.steps] == ["charge"]
        assert [child.id for child in (await reader.run(text(run_id))).children] == [text(again)]
        assert [run.id for run in (await reader.runs(RunFilter(event_id="payment-1")))[0]] == [text(again), text(run_id)]


# -- events ----------------------------------------------------------------------------------------------------------


async def test_events_are_listed_newest_first_by_name_time_and_kind(tmp_path):
    async with shelf(tmp_path) as one:
        run = one.run(one.event())
        names = ["shop/order.paid", "shop/order.shipped", "inngest/function.finished"]
        events = [one.event(names[i % 3], NOW + i, source=run.id if i == 4 else None) for i in range(12)]
        await one.write(*events)
        ids = [text(event.id) for event in reversed(events)]

        async def listed(limit=50, **where):
            out, cursor = [], None
            while True:
                page, cursor = await one.reader.events(limit=limit, cursor=cursor, **where)
                out += page
                if cursor is None:
                    return [event.internal_id for event in out]

        assert await listed() == await listed(limit=5) == await listed(limit=1) == ids
        assert await listed(name=names[0], limit=3) == ids[2::3]
        assert await listed(internal=False, limit=3) == [one for i, one in enumerate(ids) if i % 3]
        assert await listed(name=names[2], internal=False) == []
        assert await listed(received_after=NOW + 3, received_before=NOW + 8) == ids[4:8]
        assert await listed(name=names[1], received_after=NOW + 3, received_before=NOW + 8) == [ids[4], ids[7]]
        assert await listed(name="no/such") == []
        view = await one.reader.event(ids[7])
        assert (view.id, view.name, view.ts, view.source_run, view.meta) == (ids[7], names[1], NOW + 4, text(run.id), {})
        assert list(await one.reader.event_names()) == [names[0], names[1], names[2]]
        assert list(await one.reader.event_names(limit=1)) == [names[0]]


async def test_internal_names_are_listed_last(tmp_path):
    async with shelf(tmp_path) as one:
        names = ["zebra/born", "inngest/function.failed", "ant/born", "inngest", "Inngest/odd"]
        await one.write(*(one.event(name) for name in names for _ in range(3)))
        assert list(await one.reader.event_names()) == ["ant/born", "inngest", "zebra/born", "Inngest/odd", "inngest/function.failed"]
        assert {event.name for event in (await one.reader.events(internal=False))[0]} == {"zebra/born", "ant/born", "inngest"}


async def test_a_page_of_large_events_is_short_and_none_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "MAX_PAGE_BYTES", 10_000)
    async with shelf(tmp_path) as one:
        sizes = [4_000, 4_000, 4_000, 20_000, 10, 10, 9_000]
        events = [one.event(data=b'"' + b"x" * size + b'"') for size in sizes]
        await one.write(*events)
        pages, cursor = [], None
        while True:
            page, cursor = await one.reader.events(cursor=cursor)
            pages.append([event.internal_id for event in page])
            if cursor is None:
                break
        assert sum(pages, []) == [text(event.id) for event in reversed(events)]
        assert [len(page) for page in pages] == [3, 1, 2, 1]


async def test_skips_name_function_reason_and_the_run_in_its_place(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-fulfil")
        one.function(2, "shop-receipt")
        event = one.event()
        run = one.run(one.event())
        await one.write(
            event, SkipRow(event.id, 2, "trigger expression did not hold", None, NOW + 2),
            SkipRow(event.id, 1, "duplicate event id", run.id, NOW + 1), SkipRow(one.event().id, 1, "of another event", None, NOW),
        )
        assert list(await one.reader.event_skips(text(event.id))) == [
            SkipView("shop-fulfil", "duplicate event id", text(run.id), NOW + 1),
            SkipView("shop-receipt", "trigger expression did not hold", None, NOW + 2),
        ]


# -- dead letters, functions, schedules, waits, audit --------------------------------------------------------------------


async def test_dead_letters_by_state_function_and_fingerprint(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(1, "shop-fulfil")
        one.function(2, "shop-receipt")
        event = one.event()
        rows, letters = [event], []
        for number in range(24):
            run = one.run(event, 1 + number % 2, RunStatus.FAILED, NOW + number)
            letters.append(one.letter(run, state=number % 3, fingerprint=f"f{number % 4}", redriven_as=run.id if number % 3 == 1 else None))
            rows += [run, letters[-1]]
        await one.write(*rows)

        async def listed(limit=4, **where):
            out, cursor = [], None
            while True:
                page, cursor = await one.reader.dead_letters(limit=limit, cursor=cursor, **where)
                out += page
                if cursor is None:
                    return [letter.run_id for letter in out]

        def expected(fits):
            return [text(letter.run_id) for letter in reversed(letters) if fits(letter)]

        assert await listed() == expected(lambda d: d.state == 0)
        assert await listed(limit=8) == expected(lambda d: d.state == 0)
        assert await listed(state=None) == expected(lambda d: True)
        assert await listed(state="redriven", function="receipt") == expected(lambda d: d.state == 1 and d.function_id == 2)
        assert await listed(state="discarded", function="shop-fulfil") == expected(lambda d: d.state == 2 and d.function_id == 1)
        assert await listed(fingerprint="f3") == expected(lambda d: d.state == 0 and d.fingerprint == "f3")
        assert await listed(state=None, fingerprint="f3", function="receipt") == expected(lambda d: d.fingerprint == "f3")
        assert await listed(state="odd") == await listed(fingerprint="no") == await listed(function="no") == []
        letter = await one.reader.dead_letter(text(letters[1].run_id))
        assert (letter.state, letter.redriven_as, letter.fingerprint) == ("redriven", letter.run_id, "f1")
        assert await one.reader.dead_letter(text(event.id)) is None


@pytest.mark.parametrize(
    ("end", "tries"),
    [(error_json(step="mail"), 3), (error_json(), 1), (b"not JSON", 1), (b"null", 1), (None, 1)],
    ids=["of the step it names", "of the function", "unreadable", "null", "cut off"],
)
async def test_a_dead_letter_counts_the_tries_of_what_failed(tmp_path, end, tries):
    async with shelf(tmp_path) as one:
        run = one.run(one.event(), status=RunStatus.FAILED)
        ended = [] if end is None else [StepRow(run.id, "", 9, StepState.FAILED, StepKind.END, NOW, NOW, error=end)]
        attempts = [AttemptRow(run.id, key, i, NOW, NOW, None, b"{}") for key, n in (("mail", 3), ("charge", 2), ("", 1)) for i in range(n)]
        await one.write(run, one.letter(run), *attempts, *ended)
        assert (await one.reader.dead_letter(text(run.id))).attempts == tries


async def test_functions_schedules_waits_and_audit(tmp_path):
    async with shelf(tmp_path) as one:
        one.function(4, "shop-nightly", paused=1, config='{"id":"shop-nightly","triggers":[{"cron":"0 3 * * *"}]}', version=7)
        one.function(2, "shop-gone", archived=1)
        one.function(9, "mail-send", app="mail")
        run = one.run(one.event(), 4)
        earlier = one.run(one.event(), 9)
        await one.write(
            CronRow(4, "TZ=Europe/Paris 0 9 * * *", NOW + HOUR, NOW - HOUR, 3), CronRow(9, "* * * * *", NOW + 1),
            CronRow(2, "0 0 * * *", NOW), run, earlier,
            WaitRow(run.id, "b", "shop/shipped\0order_id\0\"o1\"", NOW + HOUR, "async.data.x == 1", None, NOW),
            WaitRow(earlier.id, "a", "shop/shipped", None, created_at=NOW - 5),
            AuditRow(one.ids.new(NOW), NOW, "ann", "cancel", "run 1"), AuditRow(one.ids.new(NOW + 1), NOW + 1, "bob", "redrive", "run 2", "again"),
        )
        functions = await one.reader.functions()
        assert [(f.slug, f.archived, f.paused, f.version) for f in functions] == [
            ("mail-send", False, False, 1), ("shop-gone", True, False, 1), ("shop-nightly", False, True, 7),
        ]
        assert functions[-1].config == {"id": "shop-nightly", "triggers": [{"cron": "0 3 * * *"}]}
        assert list(await one.reader.crons()) == [
            CronView("mail-send", "* * * * *", NOW + 1, None, 0, False),
            CronView("shop-nightly", "TZ=Europe/Paris 0 9 * * *", NOW + HOUR, NOW - HOUR, 3, True),
        ]
        waits = list(await one.reader.waits())
        assert waits == [
            WaitView(text(earlier.id), "mail-send", "a", "shop/shipped", None, None, NOW - 5),
            WaitView(text(run.id), "shop-nightly", "b", "shop/shipped\0order_id\0\"o1\"", "async.data.x == 1", NOW + HOUR, NOW),
        ]
        assert list(await one.reader.waits(limit=1)) == waits[:1]
        audit = await one.reader.audit()
        assert [(a.actor, a.action, a.target, a.detail, a.at) for a in audit] == [
            ("bob", "redrive", "run 2", "again", NOW + 1), ("ann", "cancel", "run 1", "", NOW),
        ]
        assert len(await one.reader.audit(limit=1)) == 1
