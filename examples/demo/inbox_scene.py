"""The inbox in the demo: copies of one event, jobs that are killed, and loads that it must and must not take quietly."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from redis.asyncio import Redis

from examples.inbox.canary import Canary, Load, Seen

from .expectations import Row
from .neighbours import Neighbour
from .waiting import until

COPIES = 50
BACKLOG_ALERT = 100
ONCE = "looked-after-once"
WEEK = 7 * 24 * 3600
CALM = Load(rate=10, seconds=3)
STORM = Load(rate=100_000, seconds=0.004)


@dataclass
class InboxScene:
    """What happens to the inbox."""

    app: Neighbour
    redis: Redis
    calm: Seen = field(default_factory=Seen)
    storm: Seen = field(default_factory=Seen)
    cron: httpx.Response | None = None

    async def play(self) -> None:
        """Everything, one after the other."""
        await self.app.play("messages", self._messages)
        await self.app.play(f"{COPIES} copies of one event at once", self._copies)
        await self.app.play("the cron endpoint, and its event", self._look_after)
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
            await row("D2", "3 messages are counted", "JSON", "3 unread, not dirty", self._counted),
            await row("D2 D6", f"{COPIES} copies of one event at once", "Redis", "version 1", self._version),
            await row("D5 D6", "kill -9 with a recompute on its way", "Redis", "completed, version 1", self._killed),
            await row(
                "D7", f"a load of {calm} events in {CALM.seconds:g} s", "API", "no alert, worked off", self._calm
            ),
            await row("D7", f"a load of {storm} events at once", "API", "an alert, worked off", self._storm),
            await row("D7", "alerts are told once", "database", "raised, resolved", self._told),
            await row("D1", "the events' fields", "API", "clientId, requestId, source", self._fields),
            await row("D3", "analytics, which are off", "API", "0 events", self._analytics),
            await row("D4", "the cron endpoint works inline", "answer", "200, inline", self._cron),
            await row("D4", "one request to look after all, sent twice", "API", "1 run Completed", self._background),
            await row("D5", "a job's status, kept for 7 days", "Redis", "6 fields, expires within 7 days", self._blob),
            await self.app.played("D"),
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

    async def _look_after(self) -> None:
        self.cron = await self.app.client.post("/api/cron/background-jobs")
        for _ in range(2):
            await self.app.post_event("background/process.requested", {"requestId": ONCE, "source": "demo"})

        async def over() -> bool:
            return "Completed" in await self._background()

        await until(over, 20, every=0.2)

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

    async def _fields(self) -> str:
        events = await self.app.api.events("inbox.counts.dirty")
        (copied,) = {", ".join(sorted(e["data"])) for e in events if e["data"]["clientId"] == "copies"}
        return copied

    async def _analytics(self) -> str:
        return f"{len(await self.app.api.events('analytics.aggregates.recompute'))} events"

    async def _cron(self) -> str:
        return f"{self.cron.status_code}, {self.cron.json()['mode']}" if self.cron else "not asked"

    async def _background(self) -> str:
        events = await self.app.api.events("background/process.requested")
        mine = [event for event in events if event["data"]["requestId"] == ONCE]
        runs = [run for event in mine for run in await self.app.api.runs_of_event(event["internal_id"])]
        return ", ".join(f"{len(runs)} run {status}" for status in sorted({run["status"] for run in runs}))

    async def _blob(self) -> str:
        wanted = {"status", "startedAt", "finishedAt", "durationMs", "attempt", "lastError"}
        found = wanted & set(await self._status("copies"))
        left = await self.redis.ttl("job:v1:copies:inbox-counts-recompute")
        return f"{len(found)} fields, {'expires within 7 days' if 0 < left <= WEEK else f'expires in {left} s'}"

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
