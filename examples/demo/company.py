"""All neighbours of the storefront together: started, played at the same time, looked at, and kept busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import httpx
from redis.asyncio import Redis

from .catalogue_scene import MERCHANT_LOGIN, CatalogueScene
from .expectations import Row
from .inbox import Inbox
from .inbox_scene import BACKLOG_ALERT, InboxScene
from .landing import Exhibit, catalogue_exhibit, inbox_exhibit, studio_exhibit
from .neighbours import Neighbour, Place, neighbour
from .outside import Outside
from .receiver import Receiver
from .redis_server import redis_running
from .serving import served
from .studio_scene import SECRET, StudioScene


class Scene(Protocol):
    """An application's part in the demo."""

    app: Neighbour

    async def play(self) -> None: ...
    async def rows(self) -> list[Row]: ...
    async def trickle(self, number: int) -> None: ...


@dataclass
class Company:
    """The neighbours that run."""

    scenes: list[Scene]

    async def play(self) -> None:
        """Play all of them, at the same time."""
        await asyncio.gather(*(scene.play() for scene in self.scenes))

    async def rows(self) -> list[Row]:
        """What should have come of it, and did."""
        return [row for scene in self.scenes for row in await scene.rows()]

    async def trickle(self, number: int) -> None:
        """A little of everything."""
        for scene in self.scenes:
            with suppress(httpx.HTTPError):
                await scene.trickle(number)

    def addresses(self) -> list[str]:
        """Where they are, for people."""
        return [
            f"examples/{s.app.name:<10} {s.app.process.url}, dashboard {s.app.process.dashboard_url}"
            for s in self.scenes
        ]

    def exhibits(self, mails: str) -> list[Exhibit]:
        """How the page that the demo opens with presents them.

        Args:
            mails: The address of the inbox's page.
        """
        by_name = {scene.app.name: scene.app for scene in self.scenes}
        catalogue, studio, inbox = by_name["catalogue"], by_name["studio"], by_name["inbox"]
        return [
            catalogue_exhibit(
                catalogue.process.url, catalogue.process.dashboard_url, MERCHANT_LOGIN, catalogue.outside_url
            ),
            studio_exhibit(studio.process.url, studio.process.dashboard_url, mails),
            inbox_exhibit(inbox.process.url, inbox.process.dashboard_url),
        ]


@asynccontextmanager
async def company(place: Place, inbox: Inbox, smtp_port: int) -> AsyncIterator[Company]:
    """Catalogue, studio and inbox, with the outside world they need, for as long as the block lasts.

    Raises:
        PortTakenError: a port is in use.
        StartError: one of them did not come up.
    """
    # One outside world each: told failures must not be used up by another application's requests.
    outsides, receiver = [Outside() for _ in range(3)], Receiver()
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(served(outside.app())) for outside in outsides]
        hooks = await stack.enter_async_context(served(receiver.app())) + "/hooks"
        redis_url = stack.enter_context(redis_running())
        redis = await stack.enter_async_context(Redis.from_url(redis_url, decode_responses=True))
        environs = {
            "catalogue": {
                "IMPORT_PLATFORMS": f"Local={urls[0].removeprefix('http://')}",
                "SALLA_TOKEN_URL": f"{urls[0]}/oauth2/token",
            },
            "studio": {
                "SMTP_PORT": str(smtp_port),
                "EXPORT_DIRECTORY": str(place.data / "studio" / "exports"),
                "WEBHOOK_SECRET": SECRET,
            },
            "inbox": {"REDIS_URL": redis_url, "BACKLOG_ALERT": str(BACKLOG_ALERT), "RECOMPUTE_CAP": "2"},
        }
        apps = [
            await stack.enter_async_context(neighbour(name, number, place, outsides[number], urls[number], environ))
            for number, (name, environ) in enumerate(environs.items())
        ]
        catalogue, studio, counts = apps
        yield Company(
            [CatalogueScene(catalogue), StudioScene(studio, inbox, receiver, hooks), InboxScene(counts, redis)]
        )
