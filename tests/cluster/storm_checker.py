"""Were the promises kept? Reads the ledger and the HTTP API, and shares no code with the store.

A node that was stopped past its lease goes on for a moment with what it had begun: that can't be helped, and its results are
refused. So a body counts from its first line until it ends, its process dies, or its node is declared dead, whichever is first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from itertools import pairwise
from typing import Any

from storm_api import Api
from storm_app import BACKOFF, BY_EVENT, CAP, CAP_PER_TENANT, MAY_REFUSE, NAP, PACE, RATE, RUN_CAP, THROTTLE

EARLY_US = 15_000
"""By how much the clocks of two nodes may differ, in microseconds of the machine's time."""


class Body:
    """A step body that was executed."""

    def __init__(self, line: dict[str, Any], number: int) -> None:
        self.function, self.run, self.step = line["function"], line["run"], line["step"]
        self.tenant, self.pid, self.node = line["tenant"], line["pid"], line["node"]
        self.at, self.number = line["at"], number
        self.end: float = float("inf")
        self.failed = False


class Checker:
    """Collects what is wrong."""

    def __init__(self, lines: list[dict[str, Any]], api: Api) -> None:
        self._lines = lines
        self._api = api
        self.wrong: list[str] = []
        self.zombies = 0
        """Bodies that went on after their node was declared dead."""
        self.repeats = 0
        """Bodies that were executed again, as their first execution died."""
        self._killed = {line["victim"]: line["at"] for line in lines if line["what"] == "killed"}

    def _expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)

    async def check(self) -> list[str]:
        """Every promise that can be seen from outside; what was broken."""
        nodes = (await self._api.get("/v1/nodes"))["data"]
        self._dead = {node["number"]: _us(node["ended_at"]) for node in nodes if node["ended_at"]}
        self._bodies = self._read_bodies()
        self._caps()
        self._whole_runs()
        self._repeats()
        self._timers()
        self._runs = await self._api.all("/v1/runs?")
        await self._accounted()
        await self._relations()
        self._rates()
        self._ticks()
        return self.wrong

    # -- from the ledger -------------------------------------------------------------------------------------------------

    def _read_bodies(self) -> list[Body]:
        bodies: list[Body] = []
        inside: dict[Any, Body] = {}
        for number, line in enumerate(self._lines):
            what = line["what"]
            key = (line.get("run"), line.get("step"), line["pid"])
            if what == "enter":
                body = inside[key] = Body(line, number)
                bodies.append(body)
            elif what == "leave" and key in inside:
                inside[key].end = line["at"]
            elif what == "refused" and key in inside:
                inside[key].failed = True
        for body in bodies:
            declared, left = self._dead.get(body.node, float("inf")), body.end
            body.end = min(left, self._killed.get(body.pid, float("inf")), declared)
            self.zombies += left > declared and body.pid not in self._killed
        return bodies

    def _live(self) -> list[Body]:
        return [body for body in self._bodies if body.at < body.end]

    def _caps(self) -> None:
        """Promise 7: no more bodies of live leases at once than a limit lets in."""
        self._at_once([body for body in self._live() if body.function == "capped"], lambda body: "", CAP, "bodies")
        self._at_once(
            [body for body in self._live() if body.function == "capped"], lambda body: body.tenant, CAP_PER_TENANT, "bodies"
        )

    def _at_once(self, spans: list[Any], key: Any, limit: int, what: str) -> None:
        inside: dict[str, list[Any]] = defaultdict(list)
        for span in sorted(spans, key=lambda one: one.at):
            value = key(span)
            inside[value] = [one for one in inside[value] if one.end > span.at] + [span]
            count = len(inside[value])
            self._expect(
                count <= limit,
                f"promise 7: {count} {what} of {span.function} {value!r} at once, {limit} are allowed: "
                f"{[(one.run[-6:], one.step, one.node, one.at, one.end) for one in inside[value]]}",
            )

    def _whole_runs(self) -> None:
        """Whole runs at once: of a limit of runs, and of a singleton; from their first body to the end of their last."""
        for function, key, limit in (("whole", lambda run: "", RUN_CAP), ("single", lambda run: run.tenant, 1)):
            runs: dict[str, Body] = {}
            for body in self._live():
                if body.function == function:
                    first = runs.setdefault(body.run, body)
                    first.end = max(first.end, body.end)
            self._at_once(list(runs.values()), key, limit, "runs")
        self._bodies = self._read_bodies()

    def _repeats(self) -> None:
        """Promises 2 and 3: what is recorded doesn't run again, and what runs again is what died before it was recorded."""
        recorded: dict[tuple[str, str], int] = {}
        values: dict[tuple[str, str], set[str]] = defaultdict(set)
        for number, line in enumerate(self._lines):
            if line["what"] == "saw":
                recorded.setdefault((line["run"], line["step"]), number)
                values[line["run"], line["step"]].add(line["value"])
        for key, seen in values.items():
            self._expect(len(seen) == 1, f"promise 4: {len(seen)} results of step {key} were seen")
        by_step: dict[tuple[str, str], list[Body]] = defaultdict(list)
        for body in self._live():
            by_step[body.run, body.step].append(body)
        for key, bodies in by_step.items():
            last = bodies[-1]
            self._expect(
                last.number < recorded.get(key, 1 << 60),
                f"promise 2: step {key} of {last.function} ran again after it was recorded",
            )
            for before, after in pairwise(bodies):
                died = min(self._killed.get(before.pid, 1 << 62), self._dead.get(before.node, 1 << 62))
                self.repeats += not before.failed
                self._expect(
                    before.failed or died <= after.at,
                    f"promise 3: step {key} of {before.function} ran again on node {after.node}, and node {before.node} lived",
                )

    def _timers(self) -> None:
        """Promise 8: not early."""
        begun: dict[str, int] = {}
        refused: dict[str, int] = {}
        for line in self._lines:
            run = line.get("run", "")
            if line["what"] == "sleeping":
                begun.setdefault(run, line["at"])
            elif line["what"] == "woke":
                self._not_early(f"{run} slept", line["at"] - begun[run], NAP)
            elif line["what"] == "refused":
                refused[run] = line["at"]
            elif line["what"] == "enter" and line["step"] == "flaky" and run in refused:
                self._not_early(f"{run} waited for its retry", line["at"] - refused.pop(run), BACKOFF)

    def _not_early(self, what: str, took: int, seconds: float) -> None:
        wanted = int(seconds * 1e6) // PACE
        self._expect(took >= wanted - EARLY_US, f"promise 8: {what} {took} us instead of {wanted}")

    def _ticks(self) -> None:
        """Promise 6: each occurrence once, none skipped."""
        runs: dict[str, set[str]] = defaultdict(set)
        for line in self._lines:
            if line["what"] == "tick":
                runs[line["occurrence"]].add(line["run"])
        for occurrence, started in runs.items():
            self._expect(len(started) == 1, f"promise 6: {occurrence} started {len(started)} runs")
        moments = sorted(_us(occurrence) // 60_000_000 for occurrence in runs)
        gaps = [after - before for before, after in pairwise(moments)]
        self._expect(set(gaps) <= {1}, f"promise 6: occurrences are missing: {moments}")
        fired = [run for run in self._runs if run["function"] == "storm-minutely"]
        self._expect(len(fired) == len(runs), f"promise 6: {len(fired)} runs of {len(runs)} occurrences")
        self.occurrences = len(runs)

    # -- from the API ----------------------------------------------------------------------------------------------------

    async def _accounted(self) -> None:
        """Promises 1 and 5: what was acknowledged was processed, once for each function."""
        for run in self._runs:
            self._expect(
                run["status"] in {"Completed", "Skipped"},
                f"promise 1: run {run['run_id']} of {run['function']} is {run['status']}: {run['error']}",
            )
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for run in self._runs:
            if run["origin"] == "event" and run["status"] != "Skipped":
                found[run["event_id"], run["function"]].append(run["run_id"])
        by_key: dict[str, list[str]] = defaultdict(list)
        for event in await self._api.all("/v1/events?name=storm/job"):
            by_key[event["id"]].append(event["internal_id"])
        acknowledged = {f"job-{line['n']}" for line in self._lines if line["what"] == "acknowledged"}
        self.events = len(acknowledged)
        for key in sorted(acknowledged):
            events = sorted(by_key.get(key, ()))
            self._expect(bool(events), f"promise 1: event {key} was acknowledged and is not there")
            for name in BY_EVENT:
                runs = [run for event in events for run in found.get((event, f"storm-{name}"), ())]
                self._expect(len(runs) <= 1, f"promise 5: event {key} has {len(runs)} runs of {name}")
                if not runs and events:
                    await self._refused(key, name, events[0])

    async def _refused(self, key: str, name: str, event: str) -> None:
        """An event that started nothing says why."""
        skips = (await self._api.get(f"/v1/events/{event}/skips"))["data"]
        said = [skip for skip in skips if skip["function"] == f"storm-{name}"]
        self._expect(name in MAY_REFUSE and bool(said), f"promise 1: event {key} started no run of {name}, because of {said}")

    async def _relations(self) -> None:
        """An invoke made one run, a send step one event."""
        orders = [run["run_id"] for run in self._runs if run["function"] == "storm-order"]
        children = Counter(run["parent_run_id"] for run in self._runs if run["function"] == "storm-pack")
        sent = Counter(event["source_id"] for event in await self._api.all("/v1/events?name=storm/shipped"))
        for run in orders:
            self._expect(children[run] == 1, f"run {run} invoked {children[run]} runs instead of one")
            self._expect(sent[run] == 1, f"run {run} sent {sent[run]} events instead of one")
        self._expect(len(children) == len(orders) == len(sent), f"{len(orders)} orders, {len(children)} packed, {len(sent)} shipped")

    def _rates(self) -> None:
        """A throttle keeps starts apart, a rate limit lets so many be queued in any period of each tenant."""
        starts = sorted(_us(run["started_at"]) for run in self._runs if run["function"] == "storm-spread")
        apart = THROTTLE[1] * 1_000_000 / THROTTLE[0]
        for first, later in pairwise(starts):
            self._expect(later - first >= apart - 2000, f"a throttle let two start within {later - first} us of the nodes' time")
        tenant = {line["run"]: line["tenant"] for line in self._lines if line["what"] == "enter" and line["function"] == "limited"}
        by_tenant: dict[str, list[int]] = defaultdict(list)
        for run in self._runs:
            if run["function"] == "storm-limited" and run["run_id"] in tenant:
                by_tenant[tenant[run["run_id"]]].append(_us(run["queued_at"]))
        for moments in by_tenant.values():
            moments.sort()
            for first, last in zip(moments, moments[RATE[0] :], strict=False):
                self._expect(last - first >= (RATE[1] - 1) * 1_000_000, f"{RATE[0] + 1} runs in {last - first} us of a rate limit")


def _us(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1_000_000)
