"""The PostgreSQL store."""

from holdfast.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
