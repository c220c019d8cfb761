"""Looking at what came of it, from outside: the inbox's and the server's HTTP, and the shop's database file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass
class Api:
    """The server's REST API."""

    client: httpx.AsyncClient

    async def runs(self, **where: str) -> list[dict[str, Any]]:
        """Runs, newest first."""
        return await self._list("/v1/runs", {**where, "limit": "100"})

    async def runs_of_event_id(self, event_id: str) -> list[dict[str, Any]]:
        """The runs that events with this id started, the sender's or the internal one."""
        return await self.runs(event_id=event_id)

    async def runs_of_event(self, internal_id: str) -> list[dict[str, Any]]:
        """The runs that an event started."""
        return await self._list(f"/v1/events/{internal_id}/runs", {})

    async def run_of_event(self, internal_id: str) -> str:
        """The id of the one run that an event started, redrives aside; empty if it started none or several."""
        runs = [run for run in await self.runs_of_event(internal_id) if run["origin"] == "event"]
        return str(runs[0]["run_id"]) if len(runs) == 1 else ""

    async def events(self, name: str) -> list[dict[str, Any]]:
        """All events of a name, newest first."""
        found: list[dict[str, Any]] = []
        where = {"name": name, "limit": "50"}
        while True:
            answer = await self._get("/v1/events", where)
            found += answer["data"]
            cursor = answer["metadata"].get("next_cursor")
            if not cursor:
                return found
            where["cursor"] = cursor

    async def history(self, run_id: str) -> dict[str, Any]:
        """A run with its steps and their attempts."""
        history: dict[str, Any] = (await self._get(f"/v1/runs/{run_id}/steps", {}))["data"]
        return history

    async def dead_letters(self, state: str) -> list[dict[str, Any]]:
        """Dead letters, newest first."""
        return await self._list("/v1/dead-letters", {"state": state, "limit": "100"})

    async def redrive(self, run_id: str) -> str:
        """Redrive a dead letter; the id of the new run."""
        response = await self.client.post(f"/v1/runs/{run_id}/redrive")
        response.raise_for_status()
        return str(response.json()["data"]["run_id"])

    async def _list(self, path: str, where: dict[str, str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await self._get(path, where))["data"]
        return rows

    async def _get(self, path: str, where: dict[str, str]) -> dict[str, Any]:
        response = await self.client.get(path, params=where)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


@dataclass
class Mailbox:
    """The inbox, as its page's JSON has it."""

    client: httpx.AsyncClient

    async def mails(self) -> list[dict[str, Any]]:
        """All e-mails, oldest first."""
        response = await self.client.get("/api/mails")
        response.raise_for_status()
        mails: list[dict[str, Any]] = response.json()
        return mails


@dataclass
class Database:
    """An application's SQLite file."""

    path: Path

    def rows(self, query: str, *values: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    def execute(self, statement: str) -> None:
        """Change something in it, as an operator's mistake would."""
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            connection.execute(statement)

    def orders(self) -> dict[str, dict[str, Any]]:
        """Orders by id."""
        return {row["id"]: row for row in self.rows("SELECT id, status, fulfilled_at, refunded_at FROM orders")}

    def email_log(self, order_id: str) -> list[dict[str, Any]]:
        """An order's rows of `email_log`, oldest first."""
        return self.rows("SELECT kind, status, attempt, error FROM email_log WHERE order_id = ? ORDER BY id", order_id)
