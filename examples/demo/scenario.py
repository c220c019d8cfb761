"""What happens in the demo, in scenes. Each leaves behind what was sent; what came of it is read from outside later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from .inbox import BUSY, UNKNOWN, Inbox
from .observers import Api
from .processes import AppProcess
from .traffic import Answer, Placed, Traffic, new_event_id
from .waiting import until

PURCHASES = 5
REFUNDS = 2
SIGN_UPS = 3
REDELIVERIES = 3
AT_ONCE = 10
BUSY_PURCHASES = 3
CRASH_PURCHASES = 4
REASON = "arrived broken"
UNREACHABLE = "no-such-mailbox@example.test"


@dataclass
class Sent:
    """What was sent, for the expectations to look up."""

    purchases: list[Placed] = field(default_factory=list)
    refunds: list[Placed] = field(default_factory=list)
    sign_ups: list[str] = field(default_factory=list)
    redelivered: Placed | None = None
    redelivered_event: str = ""
    at_once: Placed | None = None
    at_once_event: str = ""
    at_once_answers: list[Answer] = field(default_factory=list)
    two_ids: Placed | None = None
    two_ids_answers: list[Answer] = field(default_factory=list)
    forged: Placed | None = None
    forged_answers: list[Answer] = field(default_factory=list)
    busy: list[Placed] = field(default_factory=list)
    busy_answers: list[Answer] = field(default_factory=list)
    unreachable: Placed | None = None
    unreachable_answer: Answer | None = None
    dead_run: str = ""
    redriven_as: list[str] = field(default_factory=list)
    crash: list[Placed] = field(default_factory=list)
    crash_answers: list[Answer] = field(default_factory=list)
    interrupted: int = 0
    """Mails that were on their way when the shop was killed."""
    mishaps: list[str] = field(default_factory=list)
    """Scenes that could not be played to the end, and why."""


@dataclass
class Stage:
    """What the scenes play on."""

    traffic: Traffic
    inbox: Inbox
    storefront: AppProcess
    api: Api
    tell: Callable[[str], None]
    restart: bool = True
    """Whether the shop is started again after it was killed."""


async def play(stage: Stage) -> Sent:
    """Play all scenes."""
    sent = Sent()
    scenes: list[tuple[str, Callable[[Stage, Sent], Awaitable[None]]]] = [
        ("purchases, refunds and sign-ups", everyday),
        ("the same webhook again and again", redelivered),
        ("forged webhooks", forged),
        ("a mail server that refuses, and an address that always fails", refused),
        ("kill -9 while e-mails are on their way", crashed),
        ("redriving the dead letter", redriven),
    ]
    for title, scene in scenes:
        stage.tell(title)
        try:
            await scene(stage, sent)
        except httpx.HTTPError as error:
            sent.mishaps.append(f"{title}: {type(error).__name__}: {error}")
            stage.tell(f"  could not be played to the end: {type(error).__name__}: {error}")
    stage.tell("waiting until all runs have ended")
    await settle(stage.api)
    return sent


async def everyday(stage: Stage, sent: Sent) -> None:
    traffic = stage.traffic
    for number in range(PURCHASES):
        order = await traffic.place_order(f"customer-{number}@example.test", "poster", number + 1)
        sent.purchases.append(order)
        await traffic.pay(order)
    for number in range(SIGN_UPS):
        email = f"new-{number}-{new_event_id()[-6:]}@example.test"
        sent.sign_ups.append(email)
        await traffic.sign_up(email, f"Visitor {number}")
    for order in sent.purchases[:REFUNDS]:
        sent.refunds.append(order)
        await traffic.refund(order, REASON)


async def redelivered(stage: Stage, sent: Sent) -> None:
    traffic = stage.traffic
    sent.redelivered, sent.redelivered_event = await traffic.place_order("again@example.test"), new_event_id()
    for _ in range(REDELIVERIES):
        await traffic.pay(sent.redelivered, sent.redelivered_event)
    sent.at_once, sent.at_once_event = await traffic.place_order("at-once@example.test"), new_event_id()
    sent.at_once_answers += await asyncio.gather(
        *(traffic.pay(sent.at_once, sent.at_once_event) for _ in range(AT_ONCE))
    )
    sent.two_ids = await traffic.place_order("two-ids@example.test")
    sent.two_ids_answers += await asyncio.gather(traffic.pay(sent.two_ids), traffic.pay(sent.two_ids))


async def forged(stage: Stage, sent: Sent) -> None:
    traffic = stage.traffic
    sent.forged = await traffic.place_order("forged@example.test")
    sent.forged_answers += [
        await traffic.forge(sent.forged, secret="whsec_guessed"),  # noqa: S106 - a wrong one
        await traffic.forge(sent.forged, age=600),
        await traffic.forge(sent.forged, signed=False),
    ]


async def refused(stage: Stage, sent: Sent) -> None:
    traffic, inbox = stage.traffic, stage.inbox
    inbox.rejected[UNREACHABLE] = UNKNOWN
    sent.unreachable = await traffic.place_order(UNREACHABLE)
    sent.unreachable_answer = await traffic.pay(sent.unreachable)
    await settle(stage.api, waiting_is_settled=True)
    inbox.refusal = BUSY
    for number in range(BUSY_PURCHASES):
        order = await traffic.place_order(f"patient-{number}@example.test")
        sent.busy.append(order)
        sent.busy_answers.append(await traffic.pay(order))
    refused_orders = {order.email for order in sent.busy}
    # each is refused twice, at once and a second later; the third try finds the server well
    await until(lambda: all(inbox.refused.count(email) >= 2 for email in refused_orders), 10)
    inbox.refusal = None
    await settle(stage.api, 20)
    sent.dead_run = await stage.api.run_of_event(sent.unreachable_answer.event_id)


async def crashed(stage: Stage, sent: Sent) -> None:
    traffic, inbox = stage.traffic, stage.inbox
    inbox.hold()
    for number in range(CRASH_PURCHASES):
        order = await traffic.place_order(f"crash-{number}@example.test")
        sent.crash.append(order)
        sent.crash_answers.append(await traffic.pay(order))
    await until(lambda: inbox.held >= CRASH_PURCHASES, 5)
    sent.interrupted = inbox.held
    stage.tell(f"  killing the shop (process {stage.storefront.pid}) with {inbox.held} e-mails on their way")
    await stage.storefront.kill()
    inbox.release()
    if stage.restart:
        await stage.storefront.start()
        stage.tell(f"  started again (process {stage.storefront.pid})")


async def redriven(stage: Stage, sent: Sent) -> None:
    stage.inbox.rejected.pop(UNREACHABLE, None)
    if not sent.dead_run:
        sent.mishaps.append("redriving: there is no dead letter")
        return
    sent.redriven_as += await asyncio.gather(stage.api.redrive(sent.dead_run), stage.api.redrive(sent.dead_run))


async def settle(api: Api, seconds: float = 30, *, waiting_is_settled: bool = False) -> bool:
    """Wait until all runs have ended, or at least none is being worked on."""
    statuses = ("Queued", "Running") if waiting_is_settled else ("Queued", "Running", "Waiting")

    async def settled() -> bool:
        return not await api.runs(status=",".join(statuses))

    try:
        return await until(settled, seconds, every=0.2)
    except httpx.TransportError:
        return False
