"""What the tests of the examples share: real mail servers, real databases."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from examples.demo.inbox import Inbox, smtp_server  # noqa: E402
from examples.storefront.database import Sessions, open_database  # noqa: E402
from examples.storefront.settings import Settings  # noqa: E402
from running_shop import RunningShop, running_shop  # noqa: E402


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The server's own database, for an application with its tables in it."""
    return postgres_server.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(params=["sqlite", "postgresql"])
async def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sessions]:
    """The shop's database, empty, on each of the databases it supports."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/shop.db"
    else:
        url = request.getfixturevalue("postgres_url")
    async with open_database(url) as made:
        yield made
        await _empty(made)


async def _empty(sessions: Sessions) -> None:
    from examples.storefront.models import Base

    async with sessions.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            await session.execute(table.delete())


@pytest.fixture
async def inbox() -> AsyncIterator[tuple[Inbox, int]]:
    """A mail server and its port."""
    made = Inbox()
    async with smtp_server(made) as port:
        yield made, port


@pytest.fixture
def smtp_settings(inbox: tuple[Inbox, int]) -> Settings:
    return Settings(smtp_port=inbox[1], mail_from="Riqle <shop@riqle.example>", mail_timeout=5)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[RunningShop]:
    async with running_shop(tmp_path) as made:
        yield made
