"""Sending one e-mail: over SMTP, or over Resend's HTTP API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr
from typing import Protocol

import aiosmtplib
import httpx

from .idempotency import Kind
from .settings import Settings


class MailError(Exception):
    """The mail server did not take the e-mail."""


@dataclass(frozen=True, kw_only=True)
class Mail:
    """An e-mail, ready to be sent."""

    kind: Kind
    recipient: str
    subject: str
    text: str
    html: str
    message_id: str
    order_id: str | None = None
    user_id: str | None = None


class Mailer(Protocol):
    """Sends e-mails."""

    async def send(self, mail: Mail) -> None:
        """Send one e-mail; returns when the server has taken it.

        Raises:
            MailError: it refused, or could not be reached.
        """
        ...


class SmtpMailer:
    """Sends over SMTP.

    If the answer is lost, the server may have taken the mail all the same; the Message-ID then shows that two are one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._where = f"{settings.smtp_host}:{settings.smtp_port}"

    async def send(self, mail: Mail) -> None:
        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=settings.smtp_password,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            timeout=settings.mail_timeout,
        )
        try:
            async with asyncio.timeout(settings.mail_timeout):
                await client.connect()
                await client.send_message(self.compose(mail))
            with suppress(aiosmtplib.SMTPException):  # the mail is taken; a lost goodbye changes nothing
                await client.quit(timeout=1)
        except aiosmtplib.SMTPRecipientsRefused as error:
            answers = "; ".join(
                f"{refused.recipient}: {refused.code} {refused.message}" for refused in error.recipients
            )
            raise MailError(f"mail server {self._where} refused the recipient: {answers}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise MailError(f"mail server {self._where} answered {error.code} {error.message}") from error
        except TimeoutError as error:
            raise MailError(f"mail server {self._where} did not finish within {settings.mail_timeout:g} s") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailError(f"mail server {self._where}: {error}") from error
        finally:
            client.close()

    def compose(self, mail: Mail) -> EmailMessage:
        """The message as it goes over the wire: text, and HTML as its alternative."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self._settings.mail_from
        # a header object, not text: an address can't smuggle in another header or recipient
        message["To"] = Address(addr_spec=mail.recipient)
        message["Subject"] = mail.subject
        message["Message-ID"] = mail.message_id
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        message.add_alternative(mail.html, subtype="html")
        return message


class ResendMailer:
    """Sends over Resend. The idempotency key makes a repeated request within 24 hours the same e-mail."""

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._client = client

    async def send(self, mail: Mail) -> None:
        body = {
            "from": self._settings.mail_from,
            "to": [mail.recipient],
            "subject": mail.subject,
            "html": mail.html,
            "text": mail.text,
            "headers": {"Message-ID": mail.message_id},
        }
        headers = {
            "Authorization": f"Bearer {self._settings.resend_api_key}",
            "Idempotency-Key": mail.message_id.strip("<>"),
        }
        try:
            async with asyncio.timeout(self._settings.mail_timeout):
                response = await self._client.post("/emails", json=body, headers=headers)
        except TimeoutError as error:
            raise MailError(f"Resend did not answer within {self._settings.mail_timeout:g} s") from error
        except httpx.HTTPError as error:
            raise MailError(f"Resend can't be reached: {type(error).__name__}: {error}") from error
        if not response.is_success:
            raise MailError(f"Resend answered {response.status_code}: {response.text[:500]}")


@asynccontextmanager
async def open_mailer(settings: Settings) -> AsyncIterator[Mailer]:
    """The mailer that the settings name."""
    if settings.mail_transport == "smtp":
        yield SmtpMailer(settings)
    else:
        async with httpx.AsyncClient(base_url=settings.resend_url, timeout=settings.mail_timeout) as client:
            yield ResendMailer(settings, client)


def sender_domain(mail_from: str) -> str:
    """The domain of the sender's address, for Message-IDs."""
    return parseaddr(mail_from)[1].rpartition("@")[2] or "localhost"
