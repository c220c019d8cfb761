"""The catalogue's own database, apart from holdfast's store."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from examples.common import database
from examples.common.database import Sessions

from .models import Base

__all__ = ["Sessions", "open_database"]


def open_database(url: str) -> AbstractAsyncContextManager[Sessions]:
    """Connect, create the tables that are missing, and disconnect at the end of the block."""
    return database.open_database(url, Base.metadata)
