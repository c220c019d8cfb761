"""The shop's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from examples.common.database import UtcDateTime


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012 - SQLAlchemy's spelling


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (CheckConstraint("status IN ('pending', 'fulfilled', 'refunded')", name="orders_status"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_email: Mapped[str]
    currency: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    created_at: Mapped[datetime]
    fulfilled_at: Mapped[datetime | None]
    """When the confirmation had been sent; set once."""
    refunded_at: Mapped[datetime | None]
    items: Mapped[list[OrderItem]] = relationship(order_by="OrderItem.id", lazy="raise")


class OrderItem(Base):
    __tablename__ = "order_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), index=True)
    sku: Mapped[str]
    name: Mapped[str]
    quantity: Mapped[int]
    unit_price: Mapped[int]
    """In the currency's smallest unit."""


class User(Base):
    __tablename__ = "users"

    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str | None]
    created_at: Mapped[datetime]


_SETTLED_OR_OPEN = text("status IS NULL OR status = 'sent'")


class EmailLog(Base):
    """One row for each time the mail server was asked.

    A row is written before the server is asked, with no status, and finished after. An e-mail, known by its Message-ID,
    has at most one row that is unfinished or sent: the partial index is what makes one e-mail per order and kind,
    whoever asks for it.
    """

    __tablename__ = "email_log"
    __table_args__ = (
        CheckConstraint("status IN ('sent', 'failed')", name="email_log_status"),
        UniqueConstraint("message_id", "attempt", name="email_log_attempt"),
        Index(
            "email_log_once",
            "message_id",
            unique=True,
            sqlite_where=_SETTLED_OR_OPEN,
            postgresql_where=_SETTLED_OR_OPEN,
        ),
        Index("email_log_failed", "status", "created_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    order_id: Mapped[str | None] = mapped_column(index=True)
    user_id: Mapped[str | None]
    recipient: Mapped[str]
    message_id: Mapped[str]
    """Fixed per order and kind, or user and kind."""
    run_id: Mapped[str]
    """The run that asked."""
    attempt: Mapped[int]
    """Of this e-mail, from 1."""
    status: Mapped[str | None]
    """sent or failed; null while the server has not answered, or if the process died before its answer was recorded."""
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
