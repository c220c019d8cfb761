"""The HTTP API as a customer of the storm uses it, and as its checker reads it: of whichever node answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import httpx


class Api:
    """Asks one of the nodes, and another one when that doesn't answer.

    Args:
        ports: Those of the nodes that are up.
        chosen: Chooses among them.
    """

    def __init__(self, ports: Callable[[], list[int]], chosen: random.Random) -> None:
        self._ports = ports
        self._chosen = chosen
        self._client = httpx.AsyncClient(timeout=2, trust_env=False)

    async def send(self, name: str, key: str, data: dict[str, Any]) -> int:
        """Send an event until it is acknowledged; how often that took."""
        tries = 0
        while True:
            tries += 1
            answer = await self._ask("POST", "/e/key", {"name": name, "id": key, "data": data})
            if answer is not None and answer.status_code == 200:
                return tries
            await asyncio.sleep(0.05)

    async def get(self, path: str) -> Any:
        """What a GET answers, once it does."""
        while True:
            answer = await self._ask("GET", path)
            if answer is not None and answer.status_code == 200:
                return answer.json()
            await asyncio.sleep(0.1)

    async def all(self, path: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await self.get(f"{path}&limit=100" + (f"&cursor={cursor}" if cursor else ""))
            found += page["data"]
            cursor = page["metadata"]["next_cursor"]
            if not cursor:
                return found

    async def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response | None:
        ports = self._ports()
        if not ports:
            return None
        try:
            return await self._client.request(method, f"http://127.0.0.1:{self._chosen.choice(ports)}{path}", json=body)
        except httpx.HTTPError:
            return None

    async def close(self) -> None:
        await self._client.aclose()
