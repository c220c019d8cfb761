"""Did flow control hold through the storm? Reads the ledger and, with SQL of its own, what became of each event."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from fault_ledger import Ledger

COMPLETED, SKIPPED = 2, 5
PROBE = 1_000_000


class Auditor:
    """Collects what is wrong. The limits are told to it, as the application's author understands them."""

    def __init__(self, database: Path, ledger: Ledger, deaths: dict[int, int]) -> None:
        self._conn = sqlite3.connect(database)
        self._lines = ledger.lines()
        self._deaths = deaths
        """After how many lines of the ledger each process was dead."""
        self.wrong: list[str] = []
        self.most: Counter[Any] = Counter()
        self.probed: Counter[Any] = Counter()

    def _expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)

    def audit(self, caps: dict[str, list[tuple[str | None, int]]], run_caps: dict[str, int]) -> list[str]:
        """Everything that can be seen from outside."""
        self._inside(caps)
        self._whole_runs(run_caps)
        self._everything_ended()
        self._accounted()
        self._conn.close()
        return self.wrong

    def _inside(self, caps: dict[str, list[tuple[str | None, int]]]) -> None:
        """Who is in a body at once: those of a killed process have left with it."""
        inside: dict[Any, dict[str, Any]] = {}
        probing = False
        for number, line in enumerate(self._lines):
            for pid, last in self._deaths.items():
                if last == number:
                    inside = {key: entered for key, entered in inside.items() if entered["pid"] != pid}
            probing = probing or line["what"] == "storm is over"
            if line["what"] not in {"enter", "leave"}:
                continue
            key = (line["run"], line["step"], line["pid"])
            if line["what"] == "leave":
                inside.pop(key, None)
                continue
            inside[key] = line
            for field, limit in caps.get(line["function"], ()):
                value = None if field is None else line[field]
                count = sum(
                    one["function"] == line["function"] and (field is None or one[field] == value) for one in inside.values()
                )
                gate = (line["function"], field)
                self.most[gate] = max(self.most[gate], count)
                if probing:
                    self.probed[gate] = max(self.probed[gate], count)
                self._expect(count <= limit, f"promise 7: {count} bodies of {gate} {value} at once, {limit} are allowed")

    def _whole_runs(self, run_caps: dict[str, int]) -> None:
        for slug, limit in run_caps.items():
            spans = self._rows("SELECT started_at, ended_at FROM runs r JOIN functions f ON f.id = r.function_id WHERE f.slug = ?", slug)
            for moment, _ in spans:
                # runs that end and start within a millisecond look as if they were together: they count as apart
                count = sum(started <= moment < ended for started, ended in spans)
                self._expect(count <= limit, f"{count} runs of {slug} at once, {limit} are allowed")

    def spacing(self, slug: str, limit: int, period: int, burst: int = 0) -> None:
        """Starts are as far apart as a throttle wants it."""
        starts = sorted(at for (at,) in self._rows(
            "SELECT started_at FROM runs r JOIN functions f ON f.id = r.function_id WHERE f.slug = ?", slug))  # fmt: skip
        for i, first in enumerate(starts):
            for apart, later in enumerate(starts[i + 1 : i + 60], 1):
                self._expect(later - first >= (apart - burst) * period / limit - 0.01, f"{slug}: {apart} starts in {later - first} ms")

    def rate(self, slug: str, limit: int, period: int) -> None:
        """No period, of any tenant, has more runs than a rate limit lets pass."""
        by_tenant = defaultdict(list)
        for at, tenant in self._rows(
            "SELECT r.queued_at, json_extract(CAST(e.data AS TEXT), '$.tenant') FROM runs r JOIN events e ON e.id = r.event_id "
            "JOIN functions f ON f.id = r.function_id WHERE f.slug = ?", slug):  # fmt: skip
            by_tenant[tenant].append(at)
        for moments in by_tenant.values():
            for at in moments:
                count = sum(at <= other < at + period for other in moments)
                self._expect(count <= limit, f"{slug}: {count} runs in {period} ms, {limit} are allowed")

    def one_live(self, slug: str) -> None:
        """No two runs of a tenant overlap."""
        by_tenant = defaultdict(list)
        for queued, ended, tenant in self._rows(
            "SELECT r.queued_at, r.ended_at, json_extract(CAST(e.data AS TEXT), '$.tenant') FROM runs r "
            f"JOIN events e ON e.id = r.event_id JOIN functions f ON f.id = r.function_id WHERE f.slug = ? AND r.status <> {SKIPPED}",
            slug):  # fmt: skip
            by_tenant[tenant].append((queued, ended))
        for spans in by_tenant.values():
            spans.sort()
            for (_, ended), (queued, _) in zip(spans, spans[1:], strict=False):
                self._expect(ended <= queued, f"{slug}: a run began while another was live")

    def _everything_ended(self) -> None:
        for status, count in self._rows("SELECT status, count(*) FROM runs GROUP BY status"):
            self._expect(status in {COMPLETED, SKIPPED}, f"{count} runs have status {status}")
        for table in ("queue", "lanes", "gathers", "alarms", "run_counts", "waits"):
            self._expect(self._rows(f"SELECT count(*) FROM {table}") == [(0,)], f"something is left in {table}")
        last = self._lines[-1]
        self._expect(last["what"] == "quiet" and not last["left"] and not last["lanes"], f"places are left over: {last}")

    def _accounted(self) -> None:
        """Each acknowledged event is in one run of each function, or left a reason; and bodies saw no other."""
        functions = self._rows("SELECT id, slug FROM functions")
        for n in sorted({line["n"] for line in self._lines if line["what"] == "acknowledged"}):
            events = [raw for (raw,) in self._rows("SELECT id FROM events WHERE key = ? ORDER BY id", f"job-{n}")]
            self._expect(bool(events), f"promise 1: event {n} was acknowledged and is not there")
            for function_id, slug in functions:
                runs = set()
                for position, raw in enumerate(events):
                    runs |= (mine := self._runs_of(raw, function_id))
                    reason = self._rows("SELECT reason FROM skips WHERE event_id = ? AND function_id = ?", raw, function_id)
                    self._expect(len(mine) + len(reason) == 1, f"event {n} has {len(mine)} runs of {slug} and the reasons {reason}")
                    self._expect(position == 0 or reason == [("duplicate event id",)], f"promise 5: event {n} started {slug} again")
                self._expect(len(runs) <= 1, f"promise 5: event {n} has {len(runs)} runs of {slug}")

    def _runs_of(self, event: bytes, function_id: int) -> set[bytes]:
        single = self._rows(f"SELECT id FROM runs WHERE event_id = ? AND function_id = ? AND batch = 0 AND status <> {SKIPPED}", event, function_id)
        batched = self._rows(
            "SELECT b.run_id FROM batch_events b JOIN runs r ON r.id = b.run_id WHERE b.event_id = ? AND r.function_id = ?", event, function_id
        )
        return {run for (run,) in [*single, *batched]}

    def _rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._conn.execute(statement, parameters).fetchall()
