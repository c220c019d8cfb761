"""Sending an e-mail once: the row in `email_log` is written before the mail server is asked, and finished after.

The durable step around this runs at least once: if the process dies on the way, it runs again. What the log then says:

- sent: the mail server's answer was recorded. It is not asked again.
- nothing yet, from this run: the process died between asking and recording. Nobody can know whether the server took
  the mail, so it is asked again, with the same Message-ID. This is the one case in which a customer can get two copies.
- nothing yet, from another run: that one is asking right now. This one waits for its outcome.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError

from holdfast import RetryAfterError

from .database import Sessions
from .mail import Mail, Mailer
from .models import EmailLog

DIED = "no answer recorded: the process died while it asked the mail server, which may have taken the mail"
_PATIENCE = timedelta(seconds=2)
"""How long one try waits for another run that is sending the same mail."""
_COLLISIONS = 20
"""How often other runs may be faster before something else must be wrong."""
_POLL = 0.1
"""Seconds between looks at what the other run does."""


@dataclass(frozen=True)
class Delivery:
    """What came of an e-mail."""

    message_id: str
    sent_by: str
    """The run that sent it."""
    attempt: int
    """Which attempt of this e-mail succeeded, from 1."""


@dataclass(frozen=True)
class _Claim:
    """The right to ask the mail server, as an unfinished row."""

    row_id: int
    attempt: int


class Postbox:
    """Sends e-mails and keeps `email_log`."""

    def __init__(self, sessions: Sessions, mailer: Mailer, mail_timeout: float) -> None:
        self._sessions = sessions
        self._mailer = mailer
        # a run that was asking for longer than a mailer may take is not asking any more
        self._expiry = timedelta(seconds=mail_timeout + 10)

    async def send(self, mail: Mail, run_id: str) -> Delivery:
        """Send an e-mail, unless it was sent before.

        Args:
            mail: Known by its Message-ID.
            run_id: The run that asks.

        Raises:
            MailError: the mail server refused or could not be reached; the log has a row that says so.
            RetryAfterError: another run is sending it and takes long.
        """
        claim = await self._claim_patiently(mail, run_id)
        if isinstance(claim, Delivery):
            return claim
        try:
            await self._mailer.send(mail)
        except Exception as error:
            await self._finish(claim, "failed", str(error) or type(error).__name__)
            raise
        await self._finish(claim, "sent", None)
        return Delivery(mail.message_id, run_id, claim.attempt)

    async def _claim_patiently(self, mail: Mail, run_id: str) -> _Claim | Delivery:
        deadline = datetime.now(UTC) + _PATIENCE
        while True:
            found = await self._claim(mail, run_id)
            if not isinstance(found, EmailLog):
                return found
            if datetime.now(UTC) >= deadline:
                left = found.created_at + self._expiry - datetime.now(UTC)
                raise RetryAfterError(f"run {found.run_id} is sending {mail.message_id} at present", left)
            await asyncio.sleep(_POLL)

    async def _claim(self, mail: Mail, run_id: str) -> _Claim | Delivery | EmailLog:
        """A claim, or the delivery there was, or the row of the other run that is sending."""
        collision: IntegrityError | None = None
        for _ in range(_COLLISIONS):
            holder = await self._holder(mail.message_id)
            if holder is not None:
                if holder.status == "sent":
                    return Delivery(mail.message_id, holder.run_id, holder.attempt)
                if holder.run_id != run_id and holder.created_at + self._expiry > datetime.now(UTC):
                    return holder
                await self._finish(_Claim(holder.id, holder.attempt), "failed", DIED)
            try:
                return await self._open(mail, run_id)
            except IntegrityError as error:
                collision = error  # another run was faster; look again at what it did
        raise RuntimeError(f"no row could be opened for {mail.message_id} in {_COLLISIONS} tries") from collision

    async def _holder(self, message_id: str) -> EmailLog | None:
        """The row that is unfinished or sent; the table's partial index allows one."""
        settled_or_open = or_(EmailLog.status.is_(None), EmailLog.status == "sent")
        async with self._sessions() as session:
            return await session.scalar(select(EmailLog).where(EmailLog.message_id == message_id, settled_or_open))

    async def _open(self, mail: Mail, run_id: str) -> _Claim:
        async with self._sessions.begin() as session:
            attempts = select(func.coalesce(func.max(EmailLog.attempt), 0)).where(
                EmailLog.message_id == mail.message_id
            )
            attempt = (await session.scalar(attempts) or 0) + 1
            row = EmailLog(
                kind=mail.kind,
                order_id=mail.order_id,
                user_id=mail.user_id,
                recipient=mail.recipient,
                message_id=mail.message_id,
                run_id=run_id,
                attempt=attempt,
                created_at=datetime.now(UTC),
            )
            session.add(row)
            await session.flush()
            return _Claim(row.id, attempt)

    async def _finish(self, claim: _Claim, status: str, error: str | None) -> None:
        changes = update(EmailLog).where(EmailLog.id == claim.row_id, EmailLog.status.is_(None))
        async with self._sessions.begin() as session:
            await session.execute(changes.values(status=status, error=error, finished_at=datetime.now(UTC)))
