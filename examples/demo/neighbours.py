"""The applications beside the storefront: each as a process of its own, with its scenes and what should come of them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from .expectations import Row
from .observers import Api, Database
from .outside import Outside
from .processes import AppProcess, check_port, free_port


@dataclass
class Neighbour:
    """An application that runs, and ways to talk to it and to look at it."""

    name: str
    process: AppProcess
    client: httpx.AsyncClient
    server: httpx.AsyncClient
    """Its event API, REST and dashboard."""
    database: Database
    outside: Outside
    outside_url: str
    mishaps: list[str] = field(default_factory=list)
    """Scenes that could not be played to the end, and why."""

    @property
    def api(self) -> Api:
        """Its server's REST API."""
        return Api(self.server)

    async def post_event(self, name: str, data: dict[str, Any]) -> None:
        """Send it an event from outside."""
        answer = await self.server.post("/e/demo", json={"name": name, "data": data})
        answer.raise_for_status()

    async def play(self, title: str, scene: Callable[[], Awaitable[None]]) -> None:
        """Play a scene; what keeps it from its end is noted."""
        try:
            await scene()
        except (httpx.HTTPError, LookupError, sqlite3.Error) as error:
            self.mishaps.append(f"{title}: {type(error).__name__}: {error}")

    async def row(
        self, shows: str, expectation: str, read_from: str, expected: str, look: Callable[[], Awaitable[str]]
    ) -> Row:
        """One expectation, looked up now."""
        try:
            observed = await look()
        except httpx.TransportError:
            observed = "no answer"
        except (httpx.HTTPStatusError, LookupError, OSError, sqlite3.Error) as error:
            observed = f"{type(error).__name__}: {error}"
        return Row(shows, f"{self.name}: {expectation}", read_from, expected, observed)

    async def played(self, shows: str) -> Row:
        """That the scenes were played to the end."""

        async def look() -> str:
            return "; ".join(self.mishaps) or "played to the end"

        return await self.row(shows, "the scenes themselves", "demo", "played to the end", look)


@dataclass(frozen=True)
class Place:
    """Where the neighbours are."""

    data: Path
    port: int
    """The first application's; the others follow. 0 takes free ones."""
    dashboard_port: int
    """The same for the dashboards."""

    def of(self, number: int) -> tuple[int, int]:
        """The two ports of a neighbour.

        Raises:
            PortTakenError: another program has one of them.
        """
        return self._pick(self.port, number, "--apps-port"), self._pick(
            self.dashboard_port, number, "--app-dashboards-port"
        )

    def _pick(self, first: int, number: int, option: str) -> int:
        if first:
            check_port(first + number, "an application", option)
            return first + number
        return free_port()


@asynccontextmanager
async def neighbour(
    name: str, number: int, place: Place, outside: Outside, outside_url: str, environ: dict[str, str]
) -> AsyncIterator[Neighbour]:
    """An application, up and answering, for as long as the block lasts.

    Raises:
        PortTakenError: a port is in use.
        StartError: it did not come up.
    """
    port, dashboard_port = place.of(number)
    folder = place.data / name
    folder.mkdir(parents=True, exist_ok=True)
    own = {
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'app.db'}",
        "HOLDFAST_STORE": f"sqlite:///{folder / 'holdfast.db'}",
        "TEXT_MODEL_URL": f"{outside_url}/v1",
    }
    process = AppProcess(
        port=port,
        dashboard_port=dashboard_port,
        environ={**own, **environ},
        log=folder / "app.log",
        module=(f"examples.{name}",),
    )
    async with AsyncExitStack() as stack:
        await process.start()
        stack.push_async_callback(process.stop)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=process.url, timeout=20))
        server = await stack.enter_async_context(httpx.AsyncClient(base_url=process.dashboard_url, timeout=20))
        yield Neighbour(name, process, client, server, Database(folder / "app.db"), outside, outside_url)
