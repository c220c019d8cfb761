"""A7: what `email_log` says, and that one order and kind is one e-mail."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from examples.demo.inbox import BUSY
from examples.storefront import rendering
from examples.storefront.delivery import DIED, Delivery, Postbox
from examples.storefront.mail import MailError, SmtpMailer
from examples.storefront.models import EmailLog
from examples.storefront.orders import Orders, PlacedOrder
from holdfast import RetryAfterError

pytestmark = pytest.mark.anyio
MAIL = rendering.purchase_confirmation(PlacedOrder("order_1", "EUR", []), "ada@example.test", "riqle.example")


@pytest.fixture
def postbox(sessions, smtp_settings):
    return Postbox(sessions, SmtpMailer(smtp_settings), mail_timeout=5)


async def rows(sessions):
    async with sessions() as session:
        return list(await session.scalars(select(EmailLog).order_by(EmailLog.id)))


async def test_a_sent_mail_is_one_finished_row(sessions, postbox, inbox):
    assert await postbox.send(MAIL, "run-1") == Delivery(MAIL.message_id, "run-1", 1)
    (row,) = await rows(sessions)
    assert (row.kind, row.order_id, row.recipient, row.status, row.attempt, row.error) == (
        "purchase-confirmation", "order_1", "ada@example.test", "sent", 1, None,
    )  # fmt: skip
    assert row.created_at <= row.finished_at <= datetime.now(UTC)
    assert len(inbox[0].mails) == 1


async def test_the_row_is_written_before_the_mail_server_is_asked(sessions, postbox, inbox):
    inbox[0].hold()
    sending = asyncio.create_task(postbox.send(MAIL, "run-1"))
    while not inbox[0].held:
        await asyncio.sleep(0.01)
    (row,) = await rows(sessions)
    assert (row.status, row.finished_at) == (None, None)
    inbox[0].release()
    with pytest.raises(MailError):
        await sending
    (row,) = await rows(sessions)
    assert row.status == "failed"
    assert "451" in row.error


async def test_each_attempt_has_its_row(sessions, postbox, inbox):
    inbox[0].refusal = BUSY
    for _ in range(2):
        with pytest.raises(MailError):
            await postbox.send(MAIL, "run-1")
    inbox[0].refusal = None
    assert (await postbox.send(MAIL, "run-1")).attempt == 3
    assert [(row.attempt, row.status) for row in await rows(sessions)] == [(1, "failed"), (2, "failed"), (3, "sent")]
    assert len(inbox[0].mails) == 1


async def test_what_was_sent_is_not_sent_again_by_anyone(sessions, postbox, inbox):
    await postbox.send(MAIL, "run-1")
    assert (await postbox.send(MAIL, "run-1")).sent_by == "run-1"
    assert (await postbox.send(MAIL, "run-2")).sent_by == "run-1"
    assert len(inbox[0].mails) == 1
    assert len(await rows(sessions)) == 1


async def test_fifty_runs_at_once_send_one_mail(sessions, postbox, inbox):
    done = await asyncio.gather(*(postbox.send(MAIL, f"run-{n}") for n in range(50)))
    assert len({delivery.sent_by for delivery in done}) == 1
    assert len(inbox[0].mails) == 1
    assert [row.status for row in await rows(sessions)] == ["sent"]


async def leave_unfinished(sessions, postbox, run_id, *, age=timedelta(0)):
    """What a process leaves behind that dies while it asks the mail server."""
    claim = await postbox._open(MAIL, run_id)
    async with sessions.begin() as session:
        created = datetime.now(UTC) - age
        await session.execute(update(EmailLog).where(EmailLog.id == claim.row_id).values(created_at=created))


async def test_after_a_crash_the_same_run_asks_again(sessions, postbox, inbox):
    await leave_unfinished(sessions, postbox, "run-1")
    assert (await postbox.send(MAIL, "run-1")).attempt == 2
    died, sent = await rows(sessions)
    assert (died.status, died.error) == ("failed", DIED)
    assert sent.status == "sent"
    assert [mail.message_id for mail in inbox[0].mails] == [MAIL.message_id]


async def test_another_run_waits_for_the_one_that_is_sending(sessions, postbox, inbox):
    await leave_unfinished(sessions, postbox, "run-1")
    with pytest.raises(RetryAfterError, match="run run-1 is sending") as error:
        await postbox.send(MAIL, "run-2")
    assert timedelta(seconds=5) < error.value.retry_after <= timedelta(seconds=15)
    assert inbox[0].mails == []


async def test_another_run_takes_over_from_one_that_must_be_dead(sessions, postbox, inbox):
    await leave_unfinished(sessions, postbox, "run-1", age=timedelta(seconds=16))
    assert (await postbox.send(MAIL, "run-2")).sent_by == "run-2"
    assert [row.status for row in await rows(sessions)] == ["failed", "sent"]
    assert len(inbox[0].mails) == 1


async def test_different_kinds_of_one_order_are_different_mails(postbox, inbox):
    await postbox.send(MAIL, "run-1")
    await postbox.send(rendering.refund_notification(PlacedOrder("order_1", "EUR", []), "a@example.test", None, "d"), "run-2")
    assert len(inbox[0].mails) == 2


async def test_order_updates_are_idempotent(sessions):
    orders = Orders(sessions)
    order = await orders.place("ada@example.test", [("mug", 1)])
    assert (await orders.row(order.id)).status == "pending"
    assert await orders.mark_fulfilled(order.id)
    first = await orders.row(order.id)
    assert not await orders.mark_fulfilled(order.id)
    again = await orders.row(order.id)
    assert (first.status, first.fulfilled_at) == (again.status, again.fulfilled_at) == ("fulfilled", first.fulfilled_at)
    assert await orders.mark_refunded(order.id)
    refunded = await orders.row(order.id)
    assert not await orders.mark_refunded(order.id)
    assert (await orders.row(order.id)).refunded_at == refunded.refunded_at
    assert refunded.status == "refunded"
    assert refunded.fulfilled_at == first.fulfilled_at


async def test_a_refund_before_the_confirmation_stays_a_refund(sessions):
    orders = Orders(sessions)
    order = await orders.place("ada@example.test", [("mug", 1), ("poster", 2)])
    await orders.mark_refunded(order.id)
    await orders.mark_fulfilled(order.id)
    row = await orders.row(order.id)
    assert row.status == "refunded"
    assert row.fulfilled_at is not None


async def test_signing_up_twice_is_one_user(sessions):
    orders = Orders(sessions)
    users = await asyncio.gather(*(orders.sign_up("ada@example.test", "Ada") for _ in range(5)))
    assert len({user.id for user in users}) == 1
