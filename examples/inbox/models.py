"""The inbox's tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.common.database import UtcDateTime


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012 - SQLAlchemy's spelling


class Message(Base):
    __tablename__ = "messages"
    __table_args__ = (
        CheckConstraint("status IN ('unread', 'read', 'archived')", name="messages_status"),
        Index("messages_by_client", "client_id", "status"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    sender: Mapped[str]
    subject: Mapped[str]
    status: Mapped[str]
    created_at: Mapped[datetime]


class Counts(Base):
    """What a client's inbox shows beside its folders."""

    __tablename__ = "inbox_counts"

    client_id: Mapped[str] = mapped_column(primary_key=True)
    unread: Mapped[int]
    read: Mapped[int]
    archived: Mapped[int]
    computed_at: Mapped[datetime]


class Aggregates(Base):
    """A client's figures for its reports."""

    __tablename__ = "analytics_aggregates"

    client_id: Mapped[str] = mapped_column(primary_key=True)
    messages: Mapped[int]
    senders: Mapped[int]
    refreshed_at: Mapped[datetime] = mapped_column(index=True)


class JobFailure(Base):
    """A job that has failed for good."""

    __tablename__ = "job_failures"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[str]
    client_id: Mapped[str | None]
    error: Mapped[str]
    at: Mapped[datetime]


class AlertEntry(Base):
    """An alert as it was told."""

    __tablename__ = "alerts"

    id: Mapped[int] = mapped_column(primary_key=True)
    happening: Mapped[str]
    """raised or resolved."""
    job: Mapped[str]
    alert: Mapped[str]
    value: Mapped[float]
    threshold: Mapped[float]
    at: Mapped[datetime]
