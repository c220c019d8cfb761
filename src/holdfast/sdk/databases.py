"""Databases of the application's own: events are sent in their transactions, and steps are done in them once."""

from __future__ import annotations

from holdfast.store.userdb.address import Address, parse_database_url
from holdfast.store.userdb.opened import require_driver
from holdfast.store.userdb.tables import ddl


class Database:
    """A database of your application, in whose transactions events are sent and steps are done.

    Registered on the app, as in `App("shop", databases=[Database("sqlite:///shop.db")])` or
    `app.running(databases=[...])`, it is looked after wherever the app runs: its two tables are made, the events in its
    outbox are brought to holdfast, and marks of steps that are no longer needed are deleted.

    Args:
        url: `sqlite:///path` or `postgresql://user@host/database`; SQLAlchemy's forms, such as `sqlite+aiosqlite:///path`,
            mean the same.
        create: Whether holdfast makes its tables where they are missing, as a rule. False where your own migrations do, with
            the statements of `database_schema`.

    Raises:
        ConfigurationError: the URL is not understood or means a database in memory, or psycopg, which it needs, is missing.
    """

    __slots__ = ("address", "create")

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.address: Address = parse_database_url(url)
        self.create = create
        require_driver(self.address)

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        return self.address.shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Database) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<Database {self.url}>"


def as_database(given: Database | str) -> Database:
    """A database, or the URL of one."""
    return Database(given) if isinstance(given, str) else given


def database_schema(dialect: str) -> str:
    """The statements that make holdfast's two tables in a database of yours, for your own migrations.

    Args:
        dialect: `sqlite` or `postgresql`.

    Raises:
        ConfigurationError: it is neither.
    """
    return ";\n".join(ddl(dialect)) + ";\n"
