"""Canary loads that are begun from the page: one at a time, in the background of the web application."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import httpx

from .canary import Canary, Load, Seen
from .settings import Settings

_log = logging.getLogger(__name__)


@dataclass
class Flight:
    """One load, and what it did so far."""

    load: Load
    seen: Seen
    under_way: bool = True
    problem: str | None = None

    @property
    def sentence(self) -> str:
        """For people."""
        if self.problem is not None:
            return f"It could not be carried out: {self.problem}."
        if self.under_way:
            return f"{self.seen.sent} of {self.load.events} events sent; the backlog reached {self.seen.highest}."
        return f"{self.seen.sentence()}."


class Canaries:
    """Begins loads. The server's keys stay here."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self.last: Flight | None = None

    @property
    def possible(self) -> bool:
        """Whether there is a server to send to."""
        return self._settings.dashboard is not None

    def begin(self, load: Load) -> bool:
        """Begin a load; False when one is under way."""
        if self.last is not None and self.last.under_way:
            return False
        self.last = Flight(load, Seen())
        self._task = asyncio.create_task(self._fly(self.last))
        return True

    async def _fly(self, flight: Flight) -> None:
        settings = self._settings
        headers = {"Authorization": f"Bearer {settings.signing_key}"} if settings.signing_key else {}
        base = f"http://{settings.dashboard}"
        try:
            async with httpx.AsyncClient(base_url=base, headers=headers, timeout=30, trust_env=False) as client:
                canary = Canary(client, settings.event_key or "canary")
                await canary.run(flight.load, seen=flight.seen)
        except httpx.HTTPError as error:
            _log.warning("a canary load could not be carried out: %s", error)
            flight.problem = f"the server does not answer as it should ({type(error).__name__})"
        finally:
            flight.under_way = False

    async def stop(self) -> None:
        """End what is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
