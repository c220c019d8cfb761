"""Merchants, and how they prove who they are."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from .database import Sessions
from .models import Merchant

_COST = {"n": 2**14, "r": 8, "p": 1}
DEMO = (
    (101, "Dar Al-Oud", "noura@example.test", "catalogue"),
    (102, "Qahwa House", "faisal@example.test", "catalogue"),
)
"""Who may log in during development: Salla id, name, e-mail address, password."""


class Merchants:
    """The table `merchants`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def get(self, merchant_id: str) -> Merchant | None:
        """A merchant by its id."""
        async with self._sessions() as session:
            return await session.get(Merchant, merchant_id)

    async def log_in(self, email: str, password: str) -> Merchant | None:
        """The merchant with this address and password. A wrong address takes as long as a wrong password."""
        async with self._sessions() as session:
            merchant = await session.scalar(select(Merchant).where(Merchant.email == email.strip().lower()))
        stored = merchant.password_hash if merchant else None
        fits = await asyncio.to_thread(_fits, password, stored or _NOBODY)
        return merchant if fits and stored else None

    async def add(self, salla_id: int, name: str, email: str, password: str) -> None:
        """A merchant who can log in. Nothing happens when there is one of this Salla id or address."""
        hashed = await asyncio.to_thread(hash_password, password)
        merchant = Merchant(
            id=merchant_id(salla_id),
            salla_id=salla_id,
            name=name,
            email=email.lower(),
            password_hash=hashed,
            created_at=datetime.now(UTC),
        )
        try:
            async with self._sessions.begin() as session:
                session.add(merchant)
        except IntegrityError:
            return  # added before


def merchant_id(salla_id: int) -> str:
    """Our id of Salla's merchant."""
    return f"merchant_{salla_id}"


def hash_password(password: str) -> str:
    """A salted hash, as it is stored."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{_scrypt(password, salt).hex()}"


def _fits(password: str, stored: str) -> bool:
    salt, _, expected = stored.partition(":")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), bytes.fromhex(expected))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_COST)


_NOBODY = hash_password(secrets.token_hex(16))
