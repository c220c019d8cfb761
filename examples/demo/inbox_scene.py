"""The inbox in the demo: copies of one event, jobs that are killed, and loads that it must and must not take quietly."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from examples.inbox.canary import Canary, Load, Seen

from .expectations import Row
from .neighbours import Neighbour
from .waiting import until

COPIES = 50
BACKLOG_ALERT = 100
CALM = Load(rate=10, seconds=3)
STORM = Load(rate=100_000, seconds=0.004)


@dataclass
class InboxScene:
    """What happens to the inbox."""

    app: Neighbour
    redis: Redis
    calm: Seen = field(default_factory=Seen)
    storm: Seen = field(default_factory=Seen)

    async def play(self) -> None:
        """Everything, one after the other."""
        await self.app.play("messages", self._messages)
        await self.app.play(f"{COPIES} copies of one event at once", self._copies)
        await self.app.play("kill -9 during a recompute", self._kill)
        await self.app.play("a canary load, and a larger one", self._loads)

    async def trickle(self, number: int) -> None:
        """A little of it."""
        await self._receive(f"client-{number % 5}")

    async def rows(self) -> list[Row]:
        """What should have come of it."""
        row = self.app.row
        calm, storm = CALM.events, STORM.events
        return [
            await row("3 messages are counted", "JSON", "3 unread, not dirty", self._counted),
            await row(f"{COPIES} copies of one event at once", "Redis", "version 1", self._version),
            await row("kill -9 with a recompute on its way", "Redis", "completed, version 1", self._killed),
            await row(f"a load of {calm} events in {CALM.seconds:g} s", "API", "no alert, worked off", self._calm),
            await row(f"a load of {storm} events at once", "API", "an alert, worked off", self._storm),
            await row("alerts are told once", "database", "raised, resolved", self._told),
            await self.app.played(),
        ]

    # -- scenes ------------------------------------------------------------------------------------------------------

    async def _receive(self, client: str) -> None:
        body = {"clientId": client, "sender": "ada@example.test", "subject": "Hello"}
        (await self.app.client.post("/api/messages", json=body)).raise_for_status()

    async def _status(self, client: str) -> dict[str, Any]:
        found = await self.redis.get(f"job:v1:{client}:inbox-counts-recompute")
        status: dict[str, Any] = json.loads(found) if found else {}
        return status

    async def _becomes(self, client: str, status: str) -> bool:
        async def there() -> bool:
            return (await self._status(client)).get("status") == status

        return await until(there, 30, every=0.1)

    async def _messages(self) -> None:
        for _ in range(3):
            await self._receive("acme")

        async def counted() -> bool:
            answer = await self.app.client.get("/api/counts/acme")
            return answer.status_code == 200 and answer.json()["unread"] == 3 and not answer.json()["dirty"]

        await until(counted, 30, every=0.2)

    async def _copies(self) -> None:
        data = {"clientId": "copies", "requestId": "copies", "source": "demo"}
        await asyncio.gather(*(self.app.post_event("inbox.counts.dirty", data) for _ in range(COPIES)))
        await self._becomes("copies", "completed")

    async def _kill(self) -> None:
        self.app.database.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON inbox_counts BEGIN SELECT RAISE(ABORT, 'out of order'); END"
        )
        data = {"clientId": "killed", "requestId": "killed", "source": "demo"}
        await self.app.post_event("inbox.counts.recompute", data)
        await self._becomes("killed", "retrying")
        await self.app.process.kill()
        self.app.database.execute("DROP TRIGGER broken")
        await self.app.process.start()
        await self._becomes("killed", "completed")

    async def _loads(self) -> None:
        canary = Canary(self.app.server)
        self.calm = await canary.run(CALM)
        self.storm = await canary.run(STORM)
        await until(lambda: len(self._alerts()) >= 2, 20, every=0.2)

    # -- what came of them -------------------------------------------------------------------------------------------

    async def _counted(self) -> str:
        counts = (await self.app.client.get("/api/counts/acme")).json()
        return f"{counts['unread']} unread, {'dirty' if counts['dirty'] else 'not dirty'}"

    async def _version(self) -> str:
        return f"version {await self._version_of('copies')}"

    async def _killed(self) -> str:
        status = await self._status("killed")
        return f"{status.get('status')}, version {await self._version_of('killed')}"

    async def _version_of(self, client: str) -> int:
        return int(await self.redis.get(f"inbox:v1:ver:{client}") or 0)

    async def _calm(self) -> str:
        return _words(self.calm)

    async def _storm(self) -> str:
        return _words(self.storm)

    async def _told(self) -> str:
        return ", ".join(self._alerts())

    def _alerts(self) -> list[str]:
        rows = self.app.database.rows("SELECT happening FROM alerts WHERE alert = 'backlog' ORDER BY id")
        return [row["happening"] for row in rows]


def _words(seen: Seen) -> str:
    return f"{'an' if seen.alerts else 'no'} alert, {'worked off' if seen.cleared else 'not worked off'}"
