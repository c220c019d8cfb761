"""A mail server for development: it takes every e-mail and keeps it, and can be told to misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

BUSY = "451 4.3.2 the mail server is busy; try again later"
FULL = "452 4.2.2 the mailbox is full"
UNKNOWN = "550 5.1.1 there is no such mailbox"


@dataclass(frozen=True, kw_only=True)
class ReceivedMail:
    """An e-mail that was taken."""

    number: int
    recipients: list[str]
    subject: str
    message_id: str
    text: str
    html: str
    at: float
    """Seconds since 1970."""


@dataclass
class Inbox:
    """What came in, and how the mail server behaves. Its `handle_...` methods are what the SMTP server calls."""

    mails: list[ReceivedMail] = field(default_factory=list)
    refusal: str | None = None
    """The answer to everybody while the server is out of order."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Addresses that get an answer of their own."""
    refused: list[str] = field(default_factory=list)
    """Addresses that were refused, one for each time."""
    holding: asyncio.Event | None = None
    """While set and not released, every e-mail is kept waiting for its answer, and then not taken."""
    held: int = 0
    """How many e-mails have been kept waiting."""

    async def handle_RCPT(  # noqa: N802 - the SMTP server's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self.refusal or self.rejected.get(address)
        if refusal is not None:
            self.refused.append(address)
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.holding is not None:
            self.held += 1
            await self.holding.wait()
            return BUSY
        self.take(envelope)
        return "250 OK"

    def take(self, envelope: Envelope) -> None:
        """Keep an e-mail."""
        content = envelope.content
        message = message_from_bytes(content if isinstance(content, bytes) else b"", policy=policy.default)
        self.mails.append(
            ReceivedMail(
                number=len(self.mails) + 1,
                recipients=[str(address) for address in envelope.rcpt_tos],
                subject=str(message["Subject"]),
                message_id=str(message["Message-ID"]),
                text=_part(message, "plain"),
                html=_part(message, "html"),
                at=time.time(),
            )
        )

    def hold(self) -> None:
        """Keep every e-mail from now on waiting for its answer."""
        self.holding = asyncio.Event()

    def release(self) -> None:
        """Refuse the e-mails that wait, and work again."""
        if self.holding is not None:
            self.holding.set()
        self.holding = None


def _part(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    return "" if part is None else str(part.get_content())


@asynccontextmanager
async def smtp_server(handler: Any, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Serve SMTP for as long as the block lasts; gives the port."""
    loop = asyncio.get_running_loop()
    sessions: set[SMTP] = set()

    def session() -> SMTP:
        made = SMTP(handler, hostname="inbox.localhost", loop=loop)
        sessions.add(made)
        return made

    server = await loop.create_server(session, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for made in sessions:
            if made.transport is not None:
                made.transport.close()
        await server.wait_closed()
