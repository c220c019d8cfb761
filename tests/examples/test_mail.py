"""E-mails as they are rendered and sent, over real SMTP and against a local Resend."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from email import message_from_bytes, policy

import httpx
import pytest

from examples.demo.inbox import BUSY, UNKNOWN
from examples.storefront import rendering
from examples.storefront.mail import MailError, ResendMailer, SmtpMailer, open_mailer, sender_domain
from examples.storefront.orders import PlacedItem, PlacedOrder
from examples.storefront.settings import Settings
from local_resend import LocalResend, serve_resend

pytestmark = pytest.mark.anyio
ORDER = PlacedOrder("order_1", "EUR", [PlacedItem("Mug <speckled>", 2, 1450), PlacedItem("Poster", 1, 2900)])


def confirmation(recipient="ada@example.test", order=ORDER):
    return rendering.purchase_confirmation(order, recipient, "riqle.example")


def test_a_confirmation_lists_items_and_total_in_text_and_html():
    mail = confirmation()
    for part in (mail.text, mail.html):
        assert "29.00 EUR" in part
        assert "58.00 EUR" in part
        assert "order_1" in part
    assert "2 x Mug <speckled>: 29.00 EUR" in mail.text
    assert "Mug &lt;speckled&gt;" in mail.html


@pytest.mark.parametrize(("amount", "currency", "text"), [(1450, "EUR", "14.50 EUR"), (1450, "JPY", "1,450 JPY"), (5, "USD", "0.05 USD"), (1234567, "KWD", "1,234.567 KWD")])
def test_money(amount, currency, text):
    assert rendering.money(amount, currency) == text


def test_a_refund_with_and_without_reason():
    assert "Reason: it <broke>" in rendering.refund_notification(ORDER, "a@b", "it <broke>", "d").text
    assert "it &lt;broke&gt;" in rendering.refund_notification(ORDER, "a@b", "it <broke>", "d").html
    assert "Reason" not in rendering.refund_notification(ORDER, "a@b", None, "d").text


def test_a_greeting_with_and_without_name():
    assert "Welcome, Ada" in rendering.welcome("u1", "a@b", "Ada", "d").text
    assert rendering.welcome("u1", "a@b", None, "d").text.startswith("Welcome\n")


def test_the_message_id_is_fixed_per_order_and_kind():
    assert confirmation().message_id == confirmation("other@example.test").message_id == "<purchase-confirmation.order_1@riqle.example>"
    assert rendering.refund_notification(ORDER, "a@b", None, "riqle.example").message_id != confirmation().message_id
    odd = PlacedOrder("a b>\r\n<c", "EUR", [])
    assert confirmation(order=odd).message_id == "<purchase-confirmation.a%20b%3E%0D%0A%3Cc@riqle.example>"


def test_the_domain_of_the_sender():
    assert sender_domain("Riqle <shop@riqle.example>") == "riqle.example"
    assert sender_domain("shop@riqle.example") == "riqle.example"


async def test_smtp_delivers_text_and_html(inbox, smtp_settings):
    await SmtpMailer(smtp_settings).send(confirmation())
    (mail,) = inbox[0].mails
    assert mail.recipients == ["ada@example.test"]
    assert mail.message_id == "<purchase-confirmation.order_1@riqle.example>"
    assert mail.subject == "Your order order_1"
    assert "58.00 EUR" in mail.text
    assert "Mug &lt;speckled&gt;" in mail.html


async def test_smtp_refusals_say_who_and_what(inbox, smtp_settings):
    inbox[0].refusal = BUSY
    with pytest.raises(MailError, match="refused the recipient: ada@example.test: 451 4.3.2 the mail server is busy"):
        await SmtpMailer(smtp_settings).send(confirmation())
    inbox[0].refusal = None
    inbox[0].rejected["ada@example.test"] = UNKNOWN
    with pytest.raises(MailError, match="550 5.1.1 there is no such mailbox"):
        await SmtpMailer(smtp_settings).send(confirmation())
    assert inbox[0].mails == []


async def test_smtp_with_no_server_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(MailError, match=f"mail server 127.0.0.1:{port}"):
        await SmtpMailer(Settings(smtp_port=port)).send(confirmation())


async def test_smtp_that_never_answers(inbox, smtp_settings):
    inbox[0].hold()
    with pytest.raises(MailError, match="did not finish within 0.3 s"):
        await SmtpMailer(Settings(smtp_port=smtp_settings.smtp_port, mail_timeout=0.3)).send(confirmation())
    inbox[0].release()


@pytest.mark.parametrize("address", ["a@b\r\nBcc: spy@example.test", "a@b, spy@example.test", "a@b>\r\nX: y"])
async def test_an_address_smuggles_in_nothing(inbox, smtp_settings, address):
    with pytest.raises(Exception, match=r"."):
        await SmtpMailer(smtp_settings).send(confirmation(address))
    assert inbox[0].mails == []


def test_composed_messages_survive_the_wire():
    order = PlacedOrder("order_ü", "EUR", [PlacedItem("Türkis " * 40, 1, 100)])
    raw = SmtpMailer(Settings()).compose(confirmation(order=order)).as_bytes()
    assert max(len(line) for line in raw.splitlines()) <= 998
    back = message_from_bytes(raw, policy=policy.default)
    assert "Türkis" in back.get_body(("plain",)).get_content()


@pytest.fixture
def resend() -> Iterator[tuple[LocalResend, Settings]]:
    local = LocalResend()
    with serve_resend(local) as url:
        yield local, Settings(mail_transport="resend", resend_api_key="re_secret", resend_url=url, mail_from="Riqle <shop@riqle.example>")


async def test_resend_gets_the_mail_and_an_idempotency_key(resend):
    local, settings = resend
    async with open_mailer(settings) as mailer:
        await mailer.send(confirmation())
        await mailer.send(confirmation())
    headers, body = local.requests[0]
    assert headers["idempotency-key"] == "purchase-confirmation.order_1@riqle.example"
    assert body["from"] == "Riqle <shop@riqle.example>"
    assert body["to"] == ["ada@example.test"]
    assert body["subject"] == "Your order order_1"
    assert "58.00 EUR" in str(body["html"])
    assert "58.00 EUR" in str(body["text"])
    assert len(local.requests) == 2
    assert len(local.sent) == 1


async def test_resend_failures_say_what_resend_said(resend):
    local, settings = resend
    local.failures = [(429, "Too many requests"), (500, "Internal error")]
    async with open_mailer(settings) as mailer:
        with pytest.raises(MailError, match="Resend answered 429: .*Too many requests"):
            await mailer.send(confirmation())
        with pytest.raises(MailError, match="Resend answered 500"):
            await mailer.send(confirmation())
        await mailer.send(confirmation())
    assert len(local.sent) == 1


async def test_a_wrong_resend_key_is_not_in_the_error(resend):
    _local, settings = resend
    async with httpx.AsyncClient(base_url=settings.resend_url) as client:
        mailer = ResendMailer(Settings(resend_api_key="re_canary"), client)
        with pytest.raises(MailError, match="Resend answered 401: .*API key is invalid") as error:
            await mailer.send(confirmation())
    assert "re_canary" not in str(error.value)


async def test_resend_out_of_reach():
    async with open_mailer(Settings(mail_transport="resend", resend_api_key="k", resend_url="http://127.0.0.1:1")) as mailer:
        with pytest.raises(MailError, match="Resend can't be reached"):
            await mailer.send(confirmation())
