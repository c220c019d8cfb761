"""The inbox's senders and schedulers, and what must be true of counts, versions, marks and statuses in the end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from fault_siege import insist
from fault_world import World

CLIENTS = ("acme", "bolt", "crane")
RECOMPUTE = "zrg-dashboard-inbox-counts-recompute"
PROCESS = "zrg-dashboard-process-background-jobs"
MARK = "zrg-dashboard-mark-counts-dirty"


class InboxSiege:
    """Messages that come in and are read, dirty events from elsewhere, and a scheduler that calls. All insist on an answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: set[str] = set()
        """Requests of dirty events that were sent from outside and accepted."""
        self.processed: set[str] = set()
        """Requests for background work that were accepted as events."""
        self._count = 0

    async def act(self, customer: int) -> None:
        self._count += 1
        chosen = self.world.chosen
        client, request, what = chosen.choice(CLIENTS), f"r-{customer}-{self._count}", chosen.random()
        if what < 0.4 and not self.world.over_http:
            body = {"clientId": client, "sender": "ada@example.test", "subject": request}
            message = (await insist(lambda: self.world.client.post("/api/messages", json=body)))["messageId"]
            if chosen.random() < 0.5:
                moved = {"clientId": client, "status": chosen.choice(["read", "archived"])}
                await insist(lambda: self.world.client.patch(f"/api/messages/{message}", json=moved))
        elif what < 0.8:
            data = {"clientId": client, "requestId": request, "source": "siege"}
            for _ in range(chosen.choice((1, 1, 3))):  # copies are of one request
                await self.world.server.send("inbox.counts.dirty", f"dirty-{request}", data)
            self.requests.add(request)
        elif self.world.over_http:
            await self.world.server.send("background/process.requested", request, {"requestId": request, "source": "siege"})
            self.processed.add(request)
        else:
            await insist(lambda: self.world.client.post("/api/cron/background-jobs", params={"requestId": request}))

    # -- what must be true -----------------------------------------------------------------------------------------------

    async def settled(self) -> bool:
        marks = self.world.redis.keys("inbox:v1:dirty:*")
        return not marks and not self.world.database.rows("SELECT id FROM holdfast_outbox") and not await self.world.unfinished()

    async def broken(self) -> list[str]:
        runs = await self.world.all("/v1/runs")
        recomputes = [run for server in self.world.servers for run in await server.runs(function=RECOMPUTE)]
        events = {event["internal_id"]: event for event in await self.world.all("/v1/events", name="inbox.counts.recompute")}
        for run in recomputes:
            run["client"] = events[run["event_id"]]["data"]["clientId"]
        return self._counts() + self._versions(recomputes) + self._statuses(recomputes) + self._once(runs)

    def _counts(self) -> list[str]:
        """What was counted is what there is."""
        true: dict[str, dict[str, int]] = defaultdict(lambda: {"unread": 0, "read": 0, "archived": 0})
        for row in self.world.database.rows("SELECT client_id, status, count(*) AS n FROM messages GROUP BY 1, 2"):
            true[row["client_id"]][row["status"]] = row["n"]
        counted = {row.pop("client_id"): row for row in self.world.database.rows("SELECT client_id, unread, read, archived FROM inbox_counts")}
        return [f"{c} has {true[c]}, and {counted.get(c)} was counted" for c in set(true) | set(counted) if counted.get(c) != true[c]]

    def _versions(self, recomputes: list[dict[str, Any]]) -> list[str]:
        """A version has risen by the number of runs that counted."""
        per_client = Counter(run["client"] for run in recomputes if run["status"] == "Completed" and run["output"] is not None)
        versions = {client: int(self.world.redis.get(f"inbox:v1:ver:{client}") or 0) for client in CLIENTS}
        return [f"{c}: version {versions[c]} after {per_client[c]} recomputes" for c in CLIENTS if versions[c] != per_client[c]]

    def _statuses(self, recomputes: list[dict[str, Any]]) -> list[str]:
        """The status of each client's job is that of its newest run, and nothing counts as unfinished."""
        problems = []
        for client in {run["client"] for run in recomputes}:
            status = json.loads(self.world.redis.get(f"job:v1:{client}:inbox-counts-recompute") or "{}")
            if status.get("status") != "completed" or not status.get("finishedAt"):
                problems.append(f"{client}: the job's status is {status}")
        unfinished = self.world.redis.smembers("inbox:v1:status:unfinished")
        return [*problems, f"unfinished: {unfinished}"] if unfinished else problems

    def _once(self, runs: list[dict[str, Any]]) -> list[str]:
        """One run for each request, and one recompute of a client for each second's bucket."""
        problems = []
        started = Counter(run["function"] for run in runs if run["status"] == "Completed")
        if not started[MARK] >= len(self.requests):
            problems.append(f"{started[MARK]} runs for {len(self.requests)} dirty events")
        if self.world.over_http and started[PROCESS] < len(self.processed):
            problems.append(f"{started[PROCESS]} runs for {len(self.processed)} requests for background work")
        return problems
