"""A7: what a kill between the mail server's answer and the record can do, and what it can't."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from examples.demo.inbox import Inbox
from examples.demo.waiting import until
from examples.storefront.delivery import DIED

from running_shop import running_shop
from local_resend import LocalResend, serve_resend

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
ADA = "ada@example.test"


class KillingInbox(Inbox):
    """Takes the first e-mail and kills the shop: before it answers, or after, when the answer is under way to the shop."""

    def __init__(self, *, after_answer: bool) -> None:
        super().__init__()
        self.after_answer = after_answer
        self.victim: int | None = None
        self.killed = asyncio.Event()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.take(envelope)
        if self.victim is None:
            return "250 OK"
        victim, self.victim = self.victim, None
        # stopped, it can receive the answer but not act on it
        os.kill(victim, signal.SIGSTOP)
        if self.after_answer:
            transport = server.transport

            async def kill_when_answered() -> None:
                await until(lambda: transport.get_write_buffer_size() == 0 and answered.done(), 5)
                self._kill(victim)

            answered = asyncio.get_running_loop().create_future()
            push = server.push

            async def push_and_tell(status: str | bytes) -> None:
                await push(status)
                if not answered.done():
                    answered.set_result(None)

            server.push = push_and_tell
            self._killing = asyncio.create_task(kill_when_answered())
        else:
            self._kill(victim)
        return "250 OK"

    def _kill(self, victim: int) -> None:
        os.kill(victim, signal.SIGKILL)
        self.killed.set()


@pytest.mark.parametrize("after_answer", [False, True], ids=["before the answer", "after the answer"])
async def test_the_mail_is_sent_again_with_the_same_message_id(tmp_path, after_answer):
    inbox = KillingInbox(after_answer=after_answer)
    async with running_shop(tmp_path, inbox) as shop:
        order = await shop.traffic.place_order(ADA)
        inbox.victim = shop.storefront.pid
        paid = await shop.traffic.pay(order)
        await asyncio.wait_for(inbox.killed.wait(), 60)
        await shop.storefront.kill()
        (row,) = shop.database.email_log(order.id)
        assert (row["status"], row["attempt"]) == (None, 1)
        assert shop.database.orders()[order.id]["fulfilled_at"] is None

        await shop.storefront.start()
        history = await shop.ended(paid.event_id)
        assert history["run"]["status"] == "Completed"
        died, sent = shop.database.email_log(order.id)
        assert (died["status"], died["error"]) == ("failed", DIED)
        assert (sent["status"], sent["attempt"]) == ("sent", 2)
        assert [mail.message_id for mail in inbox.mails] == [f"<purchase-confirmation.{order.id}@riqle.example>"] * 2
        assert shop.database.orders()[order.id]["status"] == "fulfilled"


async def test_over_resend_the_idempotency_key_makes_it_one_mail(tmp_path):
    local = LocalResend()
    with serve_resend(local) as url:
        async with running_shop(tmp_path, MAIL_TRANSPORT="resend", RESEND_API_KEY="re_secret", RESEND_URL=url) as shop:
            local.kill_after_taking = shop.storefront.pid
            order = await shop.traffic.place_order(ADA)
            paid = await shop.traffic.pay(order)
            assert await until(lambda: local.kill_after_taking is None, 60)
            await shop.storefront.kill()
            await shop.storefront.start()
            assert (await shop.ended(paid.event_id))["run"]["status"] == "Completed"
    assert len(local.requests) == 2
    assert len(local.sent) == 1


async def test_nothing_is_lost_by_kills_at_random_moments(tmp_path):
    """Orders come in while the shop is killed again and again: each that was answered is confirmed in the end."""
    async with running_shop(tmp_path) as shop:
        answered = []
        for round_ in range(4):
            orders = [await shop.traffic.place_order(f"c{round_}-{n}@example.test") for n in range(10)]
            before = len(shop.inbox.mails)
            for order in orders:
                assert (await shop.traffic.pay(order)).status == 200
                answered.append(order)
            # each round at another point of the work
            await until(lambda before=before, some=round_ * 3: len(shop.inbox.mails) >= before + some, 60)
            await shop.storefront.kill()
            await shop.storefront.start()

        async def all_ended():
            return not await shop.api.runs(status="Queued,Running,Waiting")

        assert await until(all_ended, 60)
        orders = shop.database.orders()
        for order in answered:
            assert orders[order.id]["status"] == "fulfilled"
            log = shop.database.email_log(order.id)
            assert [row["status"] for row in log].count("sent") == 1
            copies = [mail for mail in shop.inbox.mails if order.id in mail.message_id]
            assert 1 <= len(copies) <= len(log)
            assert len({mail.message_id for mail in copies}) == 1


async def test_sigterm_waits_for_what_is_running_and_later_goes_on(shop):
    shop.inbox.rejected[ADA] = "451 later"
    order = await shop.traffic.place_order(ADA)
    paid = await shop.traffic.pay(order)
    assert await until(lambda: shop.inbox.refused == [ADA], 60)
    await shop.storefront.stop()
    shop.inbox.rejected.clear()
    await shop.storefront.start()
    history = await shop.ended(paid.event_id)
    assert history["run"]["status"] == "Completed"
    assert [row["status"] for row in shop.database.email_log(order.id)] == ["failed", "sent"]
    assert len(shop.inbox.mails) == 1
