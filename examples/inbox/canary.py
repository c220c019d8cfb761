"""`python -m examples.inbox.canary`: put a load of stated rate and length on the inbox, and say what its backlog did.

It sends `inbox.counts.recompute` for clients of its own, and reads the backlog and the alerts that the server measures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

JOB = "zrg-dashboard-inbox-counts-recompute"
_BACKLOG = re.compile(rf'^holdfast_backlog{{[^}}]*fn="{JOB}"[^}}]*}} ([0-9.e+]+)', re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """How much, for how long."""

    rate: float
    """Events a second."""
    seconds: float

    @property
    def events(self) -> int:
        """All of them."""
        return max(1, round(self.rate * self.seconds))


@dataclass
class Seen:
    """What a load did."""

    sent: int = 0
    highest: int = 0
    """The highest backlog that was measured."""
    alerts: int = 0
    """How often the backlog's alert was found on."""
    cleared: bool = False
    """Whether the backlog was gone, and the alert off, in the end."""

    def sentence(self) -> str:
        """For people."""
        alert = "raised the alert" if self.alerts else "raised no alert"
        after = "and was worked off" if self.cleared else "and is still there"
        return f"{self.sent} events; the backlog reached {self.highest}, {alert}, {after}"


class Canary:
    """Puts loads on an inbox, over its server's event API."""

    def __init__(self, client: httpx.AsyncClient, event_key: str = "canary") -> None:
        self._client = client
        self._event_key = event_key

    async def run(self, load: Load, *, patience: float = 60, seen: Seen | None = None) -> Seen:
        """Send a load, then wait until its backlog is worked off.

        Args:
            load: What to send.
            patience: Seconds that working it off may take.
            seen: Where to note what is seen while it goes on; a new one unless given.

        Raises:
            httpx.HTTPError: the server does not answer, or refuses.
        """
        seen, name = seen or Seen(), uuid4().hex[:8]
        watching = asyncio.create_task(self._watch(seen))
        try:
            await self._send(load, name, seen)
            deadline = time.monotonic() + patience
            while not seen.cleared and time.monotonic() < deadline:
                await asyncio.sleep(1.2)  # longer than the server takes to look again
                seen.cleared = await self._backlog() == 0 and not await self._alerts()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return seen

    async def _send(self, load: Load, name: str, seen: Seen) -> None:
        began = time.monotonic()
        while seen.sent < load.events:
            due = min(load.events, max(1, round((time.monotonic() - began) * load.rate) + 1))
            batch = [_event(f"canary-{name}-{number}") for number in range(seen.sent, due)]
            if batch:
                answer = await self._client.post(f"/e/{self._event_key}", json=batch)
                answer.raise_for_status()
                seen.sent = due
            await asyncio.sleep(min(0.1, 1 / load.rate))

    async def _watch(self, seen: Seen) -> None:
        while True:
            seen.highest = max(seen.highest, await self._backlog())
            seen.alerts += len(await self._alerts())
            await asyncio.sleep(0.1)

    async def _backlog(self) -> int:
        answer = await self._client.get("/metrics")
        answer.raise_for_status()
        found = _BACKLOG.search(answer.text)
        return round(float(found[1])) if found else 0

    async def _alerts(self) -> list[dict[str, Any]]:
        answer = await self._client.get("/v1/alerts")
        answer.raise_for_status()
        return [alert for alert in answer.json()["data"] if (alert["function"], alert["alert"]) == (JOB, "backlog")]


def _event(client: str) -> dict[str, Any]:
    return {
        "name": "inbox.counts.recompute",
        "data": {"clientId": client, "requestId": client, "source": "canary"},
    }


async def _main(options: argparse.Namespace) -> int:
    headers = {"Authorization": f"Bearer {options.signing_key}"} if options.signing_key else {}
    async with httpx.AsyncClient(base_url=options.server, headers=headers, timeout=30) as client:
        load = Load(options.rate, options.seconds)
        print(f"{load.rate:g} events a second for {load.seconds:g} s", flush=True)
        try:
            seen = await Canary(client, options.event_key).run(load)
        except httpx.HTTPError as error:
            print(f"the server at {options.server} does not answer as it should: {error}", file=sys.stderr)
            return 2
    print(seen.sentence())
    return 1 if seen.alerts or not seen.cleared else 0


def main() -> int:
    """The command; 0 when the load was taken without an alert, 1 when it wasn't, 2 when there is no server."""
    parser = argparse.ArgumentParser(description="A load of stated rate and length for the inbox.")
    parser.add_argument("--rate", type=float, default=20, help="events a second; default %(default)s")
    parser.add_argument("--seconds", type=float, default=10, help="how long; default %(default)s")
    parser.add_argument("--server", default="http://127.0.0.1:8288", help="the event API; default %(default)s")
    options = parser.parse_args(namespace=argparse.Namespace())
    options.event_key = os.environ.get("INNGEST_EVENT_KEY") or "canary"
    options.signing_key = os.environ.get("INNGEST_SIGNING_KEY")
    if options.rate <= 0 or options.seconds <= 0:
        parser.error("--rate and --seconds must be above 0")
    return asyncio.run(_main(options))


if __name__ == "__main__":
    sys.exit(main())
