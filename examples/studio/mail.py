"""Sending one e-mail over SMTP."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr

import aiosmtplib

from holdfast import NonRetriableError

from .settings import Settings


class MailError(Exception):
    """The mail server did not take the e-mail this time; trying again makes sense."""


@dataclass(frozen=True, kw_only=True)
class Mail:
    """An e-mail, ready to be sent."""

    to: str
    subject: str
    text: str
    html: str | None
    key: str
    """What makes a repetition recognisable."""


@dataclass(frozen=True)
class MailSent:
    """An e-mail that was taken."""

    to: str
    message_id: str


class Mailer:
    """Sends e-mails over SMTP."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._where = f"{settings.smtp_host}:{settings.smtp_port}"
        self._domain = parseaddr(settings.mail_from)[1].rpartition("@")[2] or "localhost"

    async def send(self, mail: Mail) -> MailSent:
        """Send one e-mail; returns when the server has taken it.

        Raises:
            NonRetriableError: the server refuses it for good.
            MailError: it can't be reached, or refuses for now.
        """
        message = self.compose(mail)
        client = self._client()
        try:
            async with asyncio.timeout(self._settings.mail_timeout):
                await client.connect()
                await client.send_message(message)
            with suppress(aiosmtplib.SMTPException):  # the mail is taken; a lost goodbye changes nothing
                await client.quit(timeout=1)
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            raise self._refusal(refused.code, f"{refused.recipient}: {refused.code} {refused.message}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise self._refusal(error.code, f"{error.code} {error.message}") from error
        except TimeoutError as error:
            raise MailError(
                f"mail server {self._where} did not finish within {self._settings.mail_timeout:g} s"
            ) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailError(f"mail server {self._where}: {error}") from error
        finally:
            client.close()
        return MailSent(mail.to, str(message["Message-ID"]))

    def compose(self, mail: Mail) -> EmailMessage:
        """The message as it goes over the wire: text, and HTML as its alternative."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self._settings.mail_from
        # a header object, not text: an address can't smuggle in another header or recipient
        message["To"] = Address(addr_spec=mail.to)
        message["Subject"] = mail.subject
        message["Message-ID"] = f"<{mail.key}@{self._domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
        if mail.html:
            message.add_alternative(mail.html, subtype="html")
        return message

    def _client(self) -> aiosmtplib.SMTP:
        settings = self._settings
        return aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=settings.smtp_password,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            timeout=settings.mail_timeout,
        )

    def _refusal(self, code: int, answer: str) -> Exception:
        message = f"mail server {self._where} refused: {answer}"
        # 5xx is for good, but for 552, which a mailbox that is full for the moment uses as well
        return NonRetriableError(message) if 500 <= code < 600 and code != 552 else MailError(message)
