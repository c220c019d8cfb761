"""The catalogue's tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.common.database import UtcDateTime

IMPORTING, IMPORTED, ENHANCED, FAILED = "IMPORTING", "IMPORTED", "ENHANCED", "FAILED"
RECEIVED, PROCESSED, WEBHOOK_FAILED = "received", "processed", "failed"


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's spelling
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
    }


class Merchant(Base):
    """Whoever has products here. Without a password one can't log in: Salla made the row, at installation."""

    __tablename__ = "merchants"

    id: Mapped[str] = mapped_column(primary_key=True)
    salla_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    name: Mapped[str]
    email: Mapped[str | None] = mapped_column(unique=True)
    password_hash: Mapped[str | None]
    created_at: Mapped[datetime]


class Token(Base):
    """A merchant's access to Salla's API. A refresh token works once."""

    __tablename__ = "tokens"

    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"), primary_key=True)
    access_token: Mapped[str]
    refresh_token: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    refreshed_at: Mapped[datetime]


class Product(Base):
    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("status IN ('IMPORTING', 'IMPORTED', 'ENHANCED', 'FAILED')", name="products_status"),
        UniqueConstraint("merchant_id", "salla_id", name="products_salla"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"), index=True)
    status: Mapped[str]
    source_url: Mapped[str | None]
    """The page it is imported from; null for a product that Salla reported."""
    salla_id: Mapped[int | None] = mapped_column(BigInteger)
    salla_updated_at: Mapped[datetime | None]
    """Which of Salla's reports the row has; an older one doesn't overwrite it."""
    title: Mapped[str | None]
    description: Mapped[str | None]
    price: Mapped[str | None]
    """A decimal number."""
    currency: Mapped[str | None]
    images: Mapped[list[str]]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    """How it was imported: provider, durationMs, providersTried, partial; scrapeError when it failed."""
    import_id: Mapped[str | None]
    """The id of the event that asked for the import under way, or for the last one."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WebhookHistory(Base):
    """One row for each genuine webhook."""

    __tablename__ = "webhook_history"
    __table_args__ = (CheckConstraint("status IN ('received', 'processed', 'failed')", name="webhook_history_status"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    event: Mapped[str]
    merchant_salla_id: Mapped[int] = mapped_column(BigInteger, index=True)
    payload: Mapped[dict[str, Any]]
    status: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    """How often processing it was tried."""
    error: Mapped[str | None]
    """The last one, also after a later attempt succeeded."""
    received_at: Mapped[datetime]
    processed_at: Mapped[datetime | None]
