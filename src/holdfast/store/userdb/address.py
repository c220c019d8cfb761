"""Where a database of the application's own is, from a URL as other libraries write it too."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.store.urls import POSTGRES_SCHEMES, without_secrets
from holdfast.store.userdb.tables import Dialect


class Address(msgspec.Struct, frozen=True):
    """A database's address."""

    dialect: Dialect
    shown: str
    """The URL without its secrets."""
    path: Path | None = None
    """The file of one of SQLite's."""
    conninfo: str = ""
    """For libpq, of one of PostgreSQL's."""


def parse_database_url(url: str) -> Address:
    """Read `sqlite:///path` or `postgresql://...`; a driver as SQLAlchemy names it (`sqlite+aiosqlite:`) is passed over.

    Raises:
        ConfigurationError: it is neither, or a database in memory, which nobody else could open.
    """
    scheme, _, rest = url.partition(":")
    scheme = scheme.partition("+")[0]
    if scheme in POSTGRES_SCHEMES:
        plain = f"postgresql:{rest}"
        return Address("postgresql", without_secrets(plain), conninfo=plain)
    if scheme != "sqlite":
        raise ConfigurationError(
            f"database {without_secrets(url)!r} is not understood; write sqlite:///path/to/file.db or "
            "postgresql://user@host/database"
        )
    name = rest.partition("?")[0].removeprefix("///")
    if name in {"", "//", ":memory:", "//:memory:"}:
        raise ConfigurationError(
            f"database {url!r} is in memory, where only the connection that made it can see it; give it a file"
        )
    path = Path(name).expanduser()
    return Address("sqlite", f"sqlite:///{path}", path=path)
