"""What should have come of the traffic, beside what did, as seen from outside."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from .observers import Api, Database, Mailbox
from .scenario import (
    AT_ONCE,
    BUSY_PURCHASES,
    CRASH_PURCHASES,
    PURCHASES,
    REASON,
    REDELIVERIES,
    REFUNDS,
    SIGN_UPS,
    UNREACHABLE,
    Sent,
)
from .traffic import Placed

ANSWER_LIMIT = 0.5
"""Seconds in which every webhook and sign-up must be answered."""


@dataclass(frozen=True)
class Row:
    """One expectation."""

    shows: str
    """The requirements it shows, or the application's letter where it shows them all."""
    expectation: str
    read_from: str
    expected: str
    observed: str

    @property
    def holds(self) -> bool:
        """Whether what was observed is what was expected."""
        return self.expected == self.observed


@dataclass
class Observation:
    """Everything the expectations look at."""

    sent: Sent
    api: Api
    mailbox: Mailbox
    database: Database
    slowest: float
    """Seconds of the slowest answer to a webhook or sign-up."""
    answered: int

    async def rows(self) -> list[Row]:
        """All expectations, each looked up now."""
        return [await self._row(shows, *check(self)) for check, shows in CHECKS.items()]

    async def _row(
        self, shows: str, expectation: str, read_from: str, expected: str, look: Callable[[], Awaitable[str]]
    ) -> Row:
        try:
            observed = await look()
        except httpx.TransportError:
            observed = "no answer"
        except (httpx.HTTPStatusError, sqlite3.Error) as error:
            observed = f"{type(error).__name__}: {error}"
        return Row(shows, expectation, read_from, expected, observed)

    async def mails(self, kind: str, orders: Sequence[Placed]) -> list[dict[str, Any]]:
        """The e-mails of a kind that are about these orders."""
        wanted = tuple(order.id for order in orders)
        return [
            mail
            for mail in await self.mailbox.mails()
            if mail["message_id"].startswith(f"<{kind}.") and any(order in mail["message_id"] for order in wanted)
        ]


Check = tuple[str, str, str, Callable[[], Awaitable[str]]]


def confirmations(seen: Observation) -> Check:
    async def look() -> str:
        complete = 0
        for order in seen.sent.purchases:
            for mail in await seen.mails("purchase-confirmation", [order]):
                texts = (mail["text"], mail["html"])
                complete += mail["recipients"] == [order.email] and all(order.total in text for text in texts)
        return f"{complete} mails with the right total"

    return (
        f"{PURCHASES} purchases are confirmed, in text and HTML",
        "inbox",
        f"{PURCHASES} mails with the right total",
        look,
    )


def fulfilled(seen: Observation) -> Check:
    async def look() -> str:
        return _fulfilled(seen, seen.sent.purchases)

    return "their orders are marked", "database", f"{PURCHASES} of {PURCHASES} with fulfilled_at", look


def refunds(seen: Observation) -> Check:
    async def look() -> str:
        mails = await seen.mails("refund-notification", seen.sent.refunds)
        return f"{sum(REASON in mail['text'] for mail in mails)} mails with the reason"

    return f"{REFUNDS} refunds are announced", "inbox", f"{REFUNDS} mails with the reason", look


def refunded(seen: Observation) -> Check:
    async def look() -> str:
        orders = seen.database.orders()
        mine = [orders[order.id] for order in seen.sent.refunds if order.id in orders]
        return f"{sum(row['status'] == 'refunded' and row['refunded_at'] is not None for row in mine)} refunded"

    return "their orders are marked", "database", f"{REFUNDS} refunded", look


def greetings(seen: Observation) -> Check:
    async def look() -> str:
        mails = [mail for mail in await seen.mailbox.mails() if mail["message_id"].startswith("<welcome.")]
        counts = Counter(address for mail in mails for address in mail["recipients"])
        return f"{sum(counts[email] == 1 for email in seen.sent.sign_ups)} greeted once"

    return f"{SIGN_UPS} people sign up", "inbox", f"{SIGN_UPS} greeted once", look


def redelivered_mail(seen: Observation) -> Check:
    return _one_mail(seen, f"a webhook is delivered {REDELIVERIES} times", seen.sent.redelivered)


def redelivered_runs(seen: Observation) -> Check:
    expected = f"{REDELIVERIES} events, 1 run"
    return "the repetitions are on record", "API", expected, _events_and_runs(seen, seen.sent.redelivered_event)


def at_once_mail(seen: Observation) -> Check:
    return _one_mail(seen, f"a webhook is delivered {AT_ONCE} times at the same instant", seen.sent.at_once)


def at_once_runs(seen: Observation) -> Check:
    expected = f"{AT_ONCE} events, 1 run"
    return "the repetitions are on record", "API", expected, _events_and_runs(seen, seen.sent.at_once_event)


def at_once_answers(seen: Observation) -> Check:
    async def look() -> str:
        return f"{sum(answer.duplicate for answer in seen.sent.at_once_answers)} called duplicates"

    return "and answered as what they are", "webhook answers", f"{AT_ONCE - 1} called duplicates", look


def two_ids_mail(seen: Observation) -> Check:
    return _one_mail(seen, "one payment is reported under 2 event ids at once", seen.sent.two_ids)


def two_ids_runs(seen: Observation) -> Check:
    async def look() -> str:
        runs = [await seen.api.run_of_event(answer.event_id) for answer in seen.sent.two_ids_answers]
        statuses = [(await seen.api.history(run))["run"]["status"] for run in runs if run]
        return f"{statuses.count('Completed')} runs Completed, {len(_log(seen, seen.sent.two_ids))} row in email_log"

    return "both runs end with the one mail", "API, database", "2 runs Completed, 1 row in email_log", look


def forged_answers(seen: Observation) -> Check:
    async def look() -> str:
        return ", ".join(str(answer.status) for answer in seen.sent.forged_answers) or "none sent"

    return "webhooks that are forged, too old, unsigned", "webhook answers", "400, 400, 400", look


def forged_events(seen: Observation) -> Check:
    async def look() -> str:
        order = seen.sent.forged.id if seen.sent.forged else ""
        events = await seen.api.events("email/purchase-confirmation")
        mails = await seen.mails("purchase-confirmation", [seen.sent.forged] if seen.sent.forged else [])
        return f"{sum(event['data'].get('orderId') == order for event in events)} events, {len(mails)} mails"

    return "nothing comes of them", "API, inbox", "0 events, 0 mails", look


def busy_mails(seen: Observation) -> Check:
    async def look() -> str:
        return _each_once(await seen.mails("purchase-confirmation", seen.sent.busy), seen.sent.busy)

    title = f"the mail server refuses for a while: {BUSY_PURCHASES} purchases"
    return title, "inbox", f"{BUSY_PURCHASES} orders confirmed once, 0 twice", look


def busy_waits(seen: Observation) -> Check:
    async def look() -> str:
        waits = [await _waits(seen, answer.event_id) for answer in seen.sent.busy_answers]
        return "; ".join(sorted(set(waits))) or "no runs"

    return "each was tried again", "API", "Completed after waits of 1 s, 2 s", look


def unreachable_waits(seen: Observation) -> Check:
    async def look() -> str:
        answer = seen.sent.unreachable_answer
        return await _waits(seen, answer.event_id) if answer else "not sent"

    return "an address always fails", "API", "Failed after waits of 1 s, 2 s, 4 s", look


def unreachable_log(seen: Observation) -> Check:
    async def look() -> str:
        statuses = [row["status"] for row in _log(seen, seen.sent.unreachable)]
        return ", ".join(statuses) or "no rows"

    return "all its attempts are in email_log", "database", "failed, failed, failed, failed, sent", look


def dead_letter(seen: Observation) -> Check:
    async def look() -> str:
        letters = [letter for letter in await seen.api.dead_letters("all") if letter["run_id"] == seen.sent.dead_run]
        runs = len(set(seen.sent.redriven_as))
        return f"{', '.join(letter['state'] for letter in letters) or 'no dead letter'}, {runs} new run"

    return "its dead letter is redriven, twice by accident", "API", "redriven, 1 new run", look


def redriven_run(seen: Observation) -> Check:
    async def look() -> str:
        if not seen.sent.redriven_as:
            return "not redriven"
        history = await seen.api.history(seen.sent.redriven_as[0])
        return (
            f"{history['run']['status']}; {_fulfilled(seen, [seen.sent.unreachable] if seen.sent.unreachable else [])}"
        )

    return "and succeeds", "API, database", "Completed; 1 of 1 with fulfilled_at", look


def redriven_mail(seen: Observation) -> Check:
    return _one_mail(seen, "and its mail arrives", seen.sent.unreachable)


def readme_queries(seen: Observation) -> Check:
    async def look() -> str:
        failed, orders = (seen.database.rows(query) for query in _readme_queries())
        found = any(row["recipient"] == UNREACHABLE for row in failed), any(row["fulfilled_at"] for row in orders)
        return f"{sum(found)} of {len(found)} find what they are for"

    return "the README's queries: failed mails, fulfilled orders", "database", "2 of 2 find what they are for", look


def crash_mails(seen: Observation) -> Check:
    async def look() -> str:
        return _each_once(await seen.mails("purchase-confirmation", seen.sent.crash), seen.sent.crash)

    title = f"kill -9 with {CRASH_PURCHASES} mails on their way"
    return title, "inbox", f"{CRASH_PURCHASES} orders confirmed once, 0 twice", look


def crash_log(seen: Observation) -> Check:
    async def look() -> str:
        logs = [_log(seen, order) for order in seen.sent.crash]
        resumed = sum([row["status"] for row in log] == ["failed", "sent"] for log in logs)
        return f"{seen.sent.interrupted} cut off, {resumed} asked again"

    expected = f"{CRASH_PURCHASES} cut off, {CRASH_PURCHASES} asked again"
    return "each run went on, and asked again", "inbox, database", expected, look


def crash_orders(seen: Observation) -> Check:
    async def look() -> str:
        return _fulfilled(seen, seen.sent.crash)

    return "their orders are marked", "database", f"{CRASH_PURCHASES} of {CRASH_PURCHASES} with fulfilled_at", look


def no_copies(seen: Observation) -> Check:
    async def look() -> str:
        counts = Counter((*mail["recipients"], mail["subject"]) for mail in await seen.mailbox.mails())
        return f"{sum(count > 1 for count in counts.values())} mails came again"

    return "in all, nobody got a mail twice", "inbox", "0 mails came again", look


def nothing_else_failed(seen: Observation) -> Check:
    async def look() -> str:
        failed = {run["run_id"] for run in await seen.api.runs(status="Failed,Cancelled")}
        unfinished = await seen.api.runs(status="Queued,Running,Waiting")
        return f"{len(failed - {seen.sent.dead_run})} other runs failed, {len(unfinished)} unfinished"

    return "nothing else went wrong", "API", "0 other runs failed, 0 unfinished", look


def answer_times(seen: Observation) -> Check:
    async def look() -> str:
        slow = "" if seen.slowest <= ANSWER_LIMIT else f": the slowest took {seen.slowest * 1000:.0f} ms"
        return f"{'within' if seen.slowest <= ANSWER_LIMIT and seen.answered else 'past'} 500 ms{slow}"

    return "every webhook and sign-up was answered at once", "answer times", "within 500 ms", look


def whole_scenario(seen: Observation) -> Check:
    async def look() -> str:
        return "; ".join(seen.sent.mishaps) or "played to the end"

    return "the scenario itself", "demo", "played to the end", look


CHECKS: dict[Callable[[Observation], Check], str] = {
    confirmations: "A1",
    fulfilled: "A1",
    refunds: "A2",
    refunded: "A2",
    greetings: "A3 A5",
    redelivered_mail: "A6",
    redelivered_runs: "A6",
    at_once_mail: "A6",
    at_once_runs: "A6",
    at_once_answers: "A6",
    two_ids_mail: "A6",
    two_ids_runs: "A6 A7",
    forged_answers: "A6",
    forged_events: "A6",
    busy_mails: "A1",
    busy_waits: "A4",
    unreachable_waits: "A1 A4",
    dead_letter: "A4",
    redriven_run: "A4",
    redriven_mail: "A4",
    unreachable_log: "A7",
    readme_queries: "A7",
    crash_mails: "A7 A8",
    crash_log: "A7",
    crash_orders: "A7",
    no_copies: "A6 A7",
    nothing_else_failed: "A",
    answer_times: "A6 A8",
    whole_scenario: "A",
}
"""Each with the requirements that it shows."""


def _readme_queries() -> list[str]:
    readme = (Path(__file__).parents[1] / "storefront" / "README.md").read_text()
    return re.findall(r"```sql\n(.*?)```", readme, re.DOTALL)


def _one_mail(seen: Observation, title: str, order: Placed | None) -> Check:
    async def look() -> str:
        mails = await seen.mails("purchase-confirmation", [order] if order else [])
        return f"{len(mails)} mail"

    return title, "inbox", "1 mail", look


def _events_and_runs(seen: Observation, event_id: str) -> Callable[[], Awaitable[str]]:
    async def look() -> str:
        events = [event for event in await seen.api.events("email/purchase-confirmation") if event["id"] == event_id]
        runs = await seen.api.runs_of_event_id(event_id) if event_id else []
        return f"{len(events)} events, {len(runs)} run"

    return look


def _fulfilled(seen: Observation, placed: Sequence[Placed]) -> str:
    orders = seen.database.orders()
    done = sum(order.id in orders and orders[order.id]["fulfilled_at"] is not None for order in placed)
    return f"{done} of {len(placed)} with fulfilled_at"


def _log(seen: Observation, order: Placed | None) -> list[dict[str, Any]]:
    return seen.database.email_log(order.id) if order else []


def _each_once(mails: Sequence[dict[str, Any]], orders: Sequence[Placed]) -> str:
    counts = [sum(order.id in mail["message_id"] for mail in mails) for order in orders]
    return f"{counts.count(1)} orders confirmed once, {sum(count > 1 for count in counts)} twice"


async def _waits(seen: Observation, event_id: str) -> str:
    """How a run ended, and how long it waited between the tries of its e-mail."""
    run_id = await seen.api.run_of_event(event_id)
    if not run_id:
        return "no run"
    history = await seen.api.history(run_id)
    steps = [step for step in history["steps"] if step["id"] == "send-email"]
    attempts = [attempt for step in steps for attempt in step["attempts"] if attempt["retry_at"]]
    waits = [_seconds(attempt["retry_at"]) - _seconds(attempt["ended_at"]) for attempt in attempts]
    return f"{history['run']['status']} after waits of {', '.join(f'{wait:.0f} s' for wait in waits)}"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
