"""Were the promises kept? Reads the database with SQL of its own and the ledger; shares no code with holdfast."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_ledger import Ledger

QUEUED, RUNNING, COMPLETED, FAILED = 0, 1, 2, 3
DONE, STEP_FAILED, PENDING = 0, 1, 2
RUN, SLEEP, WAIT, INVOKE, SEND = 0, 1, 2, 4, 5
BY_CRON, BY_REDRIVE = 4, 3


def copy_files(database: Path, copy: Path) -> bool:
    """Copy an SQLite database with its log, as a crash left them; whether there was one."""
    if not database.exists():
        return False
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.exists():
            shutil.copy(source, copy.with_name(copy.name + suffix))
    return True


class Observed:
    """What was on disk at each death: those steps must never run again."""

    def __init__(self, copy: Callable[[Path], bool], ledger: Ledger) -> None:
        self._copy = copy
        self._ledger = ledger
        self.recorded: dict[tuple[str, str], int] = {}
        """How many ledger lines there were when a step was first seen recorded."""

    def look(self) -> None:
        """After a death, before the restart. Looks at a copy, so that opening it changes nothing."""
        lines = len(self._ledger.lines())
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "copy.db"
            if not self._copy(copy):
                return
            conn = sqlite3.connect(copy)
            try:
                if conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'steps'").fetchone() is None:
                    return
                for run, key in conn.execute("SELECT run_id, key FROM steps WHERE state = 0 AND kind = 0"):
                    self.recorded.setdefault((_ulid(run), key), lines)
            finally:
                conn.close()


class Checker:
    """Collects what is wrong."""

    def __init__(self, database: Path, ledger: Ledger, expected: dict[str, dict[str, int]]) -> None:
        self._conn = sqlite3.connect(database)
        self._conn.row_factory = sqlite3.Row
        self._lines = ledger.lines()
        self._expected = expected
        self.wrong: list[str] = []

    def check(self, observed: Observed | None = None) -> list[str]:
        """Every promise that can be checked from outside; the list of what was broken."""
        try:
            self._integrity()
            self._acknowledged()
            self._ends()
            self._records()
            self._sightings()
            if observed is not None:
                self._repeats(observed)
            self._timers()
            self._crons()
            self._children_and_sends()
            self._dead_letters()
        finally:
            self._conn.close()
        return self.wrong

    def _rows(self, statement: str, *parameters: Any) -> list[sqlite3.Row]:
        return self._conn.execute(statement, parameters).fetchall()

    def _expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)

    def _integrity(self) -> None:
        result = [row[0] for row in self._rows("PRAGMA integrity_check")]
        self._expect(result == ["ok"], f"the database is damaged: {result[:3]}")

    def _acknowledged(self) -> None:
        """Promises 1 and 5: what was acknowledged is processed, once for each function."""
        for key, name in {(line["id"], line["event"]) for line in self._lines if line["what"] == "acknowledged"}:
            self._expect(
                bool(self._rows("SELECT 1 FROM events WHERE key = ? AND name = ?", key, name)),
                f"promise 1: event {key} was acknowledged and is not there",
            )
            runs = self._rows(
                "SELECT f.slug FROM runs r JOIN events e ON e.id = r.event_id JOIN functions f ON f.id = r.function_id "
                "WHERE e.key = ? AND r.origin = 0",
                key,
            )
            found = Counter(row["slug"] for row in runs)
            wanted = self._expected.get(name, {})
            self._expect(
                found == wanted,
                f"promises 1 and 5: event {key} has the runs {dict(found)}, expected are {dict(wanted)}",
            )

    def _ends(self) -> None:
        """Promise 1: processed, not stranded."""
        for row in self._rows("SELECT r.id, r.status, f.slug FROM runs r JOIN functions f ON f.id = r.function_id"):
            wanted = {COMPLETED, FAILED} if row["slug"] == "faults-doomed" else {COMPLETED}
            self._expect(
                row["status"] in wanted,
                f"promise 1: run {_ulid(row['id'])} of {row['slug']} has status {row['status']}",
            )
        for table in ("queue", "waits", "lanes"):
            left = self._rows(f"SELECT count(*) AS n FROM {table}")[0]["n"]
            self._expect(left == 0, f"{left} rows are left in {table} after all runs ended")
        unfinished = self._rows("SELECT run_id, key FROM steps WHERE state = 2")
        self._expect(not unfinished, f"steps without a result in ended runs: {[row['key'] for row in unfinished]}")

    def _records(self) -> None:
        """Promise 4: one record per step, of a value that a body really returned."""
        for row in self._rows("SELECT run_id, key, count(*) AS n FROM steps GROUP BY run_id, key HAVING n > 1"):
            self.wrong.append(
                f"promise 4: step {row['key']} of run {_ulid(row['run_id'])} is recorded {row['n']} times"
            )
        returned = {line["value"] for line in self._lines if line["what"] == "end"}
        for row in self._rows("SELECT run_id, key, data FROM steps WHERE state = 0 AND kind = 0 AND key <> 'cure'"):
            value = json.loads(row["data"])
            self._expect(value in returned, f"step {row['key']} is recorded with {value!r}, which no body returned")
        for row in self._rows("SELECT run_id, seq, count(*) AS n FROM steps WHERE seq > 0 GROUP BY 1, 2 HAVING n > 1"):
            self.wrong.append(f"run {_ulid(row['run_id'])} has {row['n']} steps numbered {row['seq']}")

    def _sightings(self) -> None:
        """What a function saw of a step is what is on record, each time."""
        record = {
            (_ulid(row["run_id"]), row["key"]): json.loads(row["data"] or b"null")
            for row in self._rows("SELECT run_id, key, data FROM steps WHERE state = 0")
        }
        for line in self._lines:
            if line["what"] != "saw" or line["run"].startswith("doom-"):
                continue
            stored = record.get((line["run"], line["step"]))
            if line["step"] == "shipped":
                stored = stored and stored["data"]["n"]
            self._expect(
                stored == line["value"],
                f"promise 2: run {line['run']} went on with {line['value']!r} of step {line['step']}, on record is {stored!r}",
            )

    def _repeats(self, observed: Observed) -> None:
        """Promise 2: a recorded step never runs again."""
        for number, line in enumerate(self._lines):
            if line["what"] == "start":
                since = observed.recorded.get((line["run"], line["step"]))
                self._expect(
                    since is None or number < since,
                    f"promise 2: step {line['step']} of run {line['run']} ran again after it was recorded",
                )

    def _timers(self) -> None:
        """Promise 8: not early."""
        offset = self._clock_offset()
        for row in self._rows(f"SELECT run_id, started_at, ended_at FROM steps WHERE kind = {SLEEP} AND state = 0"):
            due = row["started_at"] + 30
            self._expect(row["ended_at"] >= due, f"promise 8: a sleep ended {due - row['ended_at']} ms early")
            woke = [
                line["at"] + offset
                for line in self._lines
                if line["what"] == "woke" and line["run"] == _ulid(row["run_id"])
            ]
            self._expect(bool(woke) and min(woke) >= due, "promise 8: a function went on before its sleep was over")
        for row in self._rows(
            "SELECT run_id, key, retry_at FROM attempts WHERE key = 'flaky' AND retry_at IS NOT NULL"
        ):
            tries = [
                line["at"] + offset
                for line in self._lines
                if line["what"] == "retried" and line["run"] == _ulid(row["run_id"])
            ]
            self._expect(
                bool(tries) and min(tries) >= row["retry_at"], "promise 8: a retry came before its delay was over"
            )

    def _clock_offset(self) -> int:
        """How far the worker's clock is ahead of the ledger's; exact, as it is given and not measured."""
        return next((line["offset"] for line in self._lines if line["what"] == "clock"), 0)

    def _crons(self) -> None:
        """Promise 6: at most once, none skipped silently."""
        fires = self._rows("SELECT * FROM cron_fires ORDER BY function_id, schedule, occurrence")
        moments: dict[Any, list[int]] = defaultdict(list)
        for row in fires:
            moments[row["function_id"], row["schedule"]].append(row["occurrence"])
        for occurrences in moments.values():
            gaps = {b - a for a, b in zip(occurrences, occurrences[1:], strict=False)}
            self._expect(gaps <= {60_000}, f"promise 6: occurrences are missing or doubled: {occurrences}")
        runs = {row["id"] for row in self._rows(f"SELECT id FROM runs WHERE origin = {BY_CRON}")}
        fired = [row["run_id"] for row in fires if row["run_id"] is not None]
        self._expect(len(fired) == len(set(fired)), "promise 6: two occurrences share a run")
        self._expect(set(fired) == runs, f"promise 6: {len(fired)} occurrences fired and there are {len(runs)} runs")
        for row in self._rows("SELECT * FROM crons"):
            mine = moments.get((row["function_id"], row["schedule"]), [])
            if mine:
                self._expect(row["last_at"] == mine[-1], "promise 6: the schedule's place is not its last occurrence")
                self._expect(row["next_at"] == mine[-1] + 60_000, "promise 6: the schedule passes over an occurrence")

    def _children_and_sends(self) -> None:
        """An invoke made one run, a send step one event: no more, no less."""
        orders = self._rows(
            "SELECT r.id FROM runs r JOIN functions f ON f.id = r.function_id WHERE f.slug = 'faults-order' AND r.origin = 0"
        )
        for row in orders:
            children = self._rows("SELECT count(*) AS n FROM runs WHERE parent_id = ? AND origin = 1", row["id"])[0][
                "n"
            ]
            self._expect(children == 1, f"run {_ulid(row['id'])} invoked {children} runs instead of one")
            sent = self._rows("SELECT id FROM events WHERE source = ? AND name = 'shop/shipped'", row["id"])
            self._expect(len(sent) == 1, f"run {_ulid(row['id'])} sent {len(sent)} events instead of one")
            for event in sent:
                n = self._rows("SELECT count(*) AS n FROM runs WHERE event_id = ? AND origin = 0", event["id"])[0]["n"]
                self._expect(n == 1, f"the sent event started {n} runs instead of one")

    def _dead_letters(self) -> None:
        """Promise 10: all there, and redriven once; finished steps are not repeated."""
        doomed = self._rows(
            "SELECT r.id, r.status FROM runs r JOIN functions f ON f.id = r.function_id WHERE f.slug = 'faults-doomed' AND r.origin = 0"
        )
        letters = {row["run_id"]: row for row in self._rows("SELECT * FROM dead_letters")}
        for row in doomed:
            run = _ulid(row["id"])
            letter = letters.get(row["id"])
            if row["status"] != FAILED or letter is None:
                self.wrong.append(f"promise 10: run {run} failed for good and is no dead letter")
                continue
            redriven = self._rows(
                f"SELECT id, status FROM runs WHERE parent_id = ? AND origin = {BY_REDRIVE}", row["id"]
            )
            self._expect(len(redriven) == 1, f"promise 10: dead letter {run} was redriven as {len(redriven)} runs")
            self._expect(
                all(again["id"] == letter["redriven_as"] and again["status"] == COMPLETED for again in redriven),
                f"promise 10: dead letter {run} does not name its redriven run, or that did not succeed",
            )
            answers = {line["as_run"] for line in self._lines if line["what"] == "redriven" and line["run"] == run}
            self._expect(len(answers) == 1, f"promise 10: redriving {run} was answered with {answers}")
            hooks = self._rows(
                "SELECT count(*) AS n FROM runs r JOIN functions f ON f.id = r.function_id JOIN events e ON e.id = r.event_id "
                "WHERE f.slug = 'faults-doomed-failure' AND json_extract(CAST(e.data AS TEXT), '$.run_id') = ?",
                run,
            )[0]["n"]
            self._expect(hooks == 1, f"the failure handler of {run} has {hooks} runs instead of one")
        seen: dict[str, set[Any]] = defaultdict(set)
        for line in self._lines:
            if line["what"] == "saw" and line["run"].startswith("doom-"):
                seen[line["run"]].add(line["value"])
        for run, values in seen.items():
            self._expect(
                len(values) == 1, f"promise 2: {run} and its redriven run saw {len(values)} results of one step"
            )


_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _ulid(raw: bytes) -> str:
    number = int.from_bytes(raw, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
