"""Merchants' access to Salla's API.

A refresh token works once: two refreshes at the same time would lock the merchant out. The function that refreshes is a
singleton per merchant for that reason. If the process dies between Salla's answer and its record, the old refresh token
is spent and the new one lost; the next refresh then fails for good, its dead letter says so, and the merchant has to
install the app again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import select, update

from holdfast import NonRetriableError

from .database import Sessions
from .models import Token
from .settings import Settings

_TIMEOUT = 30.0
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class TokenServiceError(Exception):
    """Salla's token service could not be reached, or has a problem; trying again makes sense."""

    status_code = 503
    """What it counts as for a retry preset."""


@dataclass(frozen=True)
class Grant:
    """What the token service gives."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime


def read_grant(answer: dict[str, Any], now: datetime) -> Grant:
    """Tokens from an answer or a webhook of Salla's.

    Raises:
        NonRetriableError: something is missing; the message names it and shows no token.
    """
    missing = [name for name in ("access_token", "refresh_token") if not isinstance(answer.get(name), str)]
    if missing:
        raise NonRetriableError(f"Salla's tokens come without {' and '.join(missing)}")
    lasts, until = answer.get("expires_in"), answer.get("expires")
    if isinstance(until, int | float) and until > 0:
        expires = datetime.fromtimestamp(until, UTC)
    elif isinstance(lasts, int | float) and lasts > 0:
        expires = now + timedelta(seconds=lasts)
    else:
        raise NonRetriableError("Salla's tokens come without expires or expires_in")
    return Grant(answer["access_token"], answer["refresh_token"], expires)


class Tokens:
    """The table `tokens`, and the token service."""

    def __init__(self, sessions: Sessions, client: httpx.AsyncClient, settings: Settings) -> None:
        self._sessions = sessions
        self._client = client
        self._settings = settings
        self.margin = timedelta(seconds=settings.token_refresh_margin)

    async def expiring(self, now: datetime) -> list[str]:
        """The merchants whose token expires within the margin."""
        query = select(Token.merchant_id).where(Token.expires_at <= now + self.margin).order_by(Token.expires_at)
        async with self._sessions() as session:
            return list((await session.scalars(query)).all())

    async def refresh(self, merchant_id: str) -> str:
        """Obtain and store a new token, unless it was refreshed meanwhile; says which it was.

        Raises:
            TokenServiceError: the service has a problem.
            NonRetriableError: the merchant has no token, or Salla refuses the refresh.
        """
        async with self._sessions() as session:
            token = await session.get(Token, merchant_id)
        if token is None:
            raise NonRetriableError(f"merchant {merchant_id} has no token; the app has to be installed again")
        if token.expires_at > datetime.now(UTC) + self.margin:
            return "still fresh"
        grant = await self._ask(token)
        values = {
            "access_token": grant.access_token,
            "refresh_token": grant.refresh_token,
            "expires_at": grant.expires_at,
            "refreshed_at": datetime.now(UTC),
        }
        # a token that the merchant's installation has brought meanwhile is the newer one
        spent = update(Token).where(Token.merchant_id == merchant_id, Token.refresh_token == token.refresh_token)
        async with self._sessions.begin() as session:
            await session.execute(spent.values(**values))
        return "refreshed"

    async def _ask(self, token: Token) -> Grant:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": token.refresh_token,
            "client_id": self._settings.salla_client_id,
            "client_secret": self._settings.salla_client_secret,
        }
        try:
            response = await self._client.post(self._settings.salla_token_url, data=form, timeout=_TIMEOUT)
        except httpx.HTTPError as error:
            raise TokenServiceError(f"Salla's token service can't be reached: {type(error).__name__}") from error
        if response.status_code in _TRANSIENT:
            raise TokenServiceError(f"Salla's token service answered {response.status_code}")
        if not response.is_success:
            # the answer may repeat the token, so it is not quoted
            raise NonRetriableError(
                f"Salla refuses to refresh the token of {token.merchant_id} (it answered {response.status_code}); "
                "the merchant has to install the app again"
            )
        try:
            answer = response.json()
        except ValueError as error:
            raise TokenServiceError("Salla's token service did not answer in JSON") from error
        return read_grant(answer if isinstance(answer, dict) else {}, datetime.now(UTC))
