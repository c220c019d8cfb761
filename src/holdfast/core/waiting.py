"""Steps that wait: for an event, a moment, or the result of another run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from holdfast.core.ingest import (
    PAUSED,
    Accepted,
    Incoming,
    admit_invoked,
    event_json,
    lookups_of,
    matches,
    note_match,
    reads_of,
    resolve,
    watched,
)
from holdfast.core.machine import Lease, holds
from holdfast.core.plan import STALE, EventsSince, Plan, Read, Refused, Tx
from holdfast.core.rows import ItemRow, LogRow, RunRow, StepRow, StepState, WaitRow

replace = msgspec.structs.replace

CHILD_LOOKUP = "inngest/function.finished\0run\0"
"""Prefix of the lookup under which an invoking step waits for its run; followed by the run's id in hex."""


class Register(Plan[Accepted]):
    """Register something a run waits for: a timer, an event, the result of a run it invokes."""

    __slots__ = ("child", "lease", "logs", "lookback", "step", "wait")

    def __init__(
        self,
        lease: Lease,
        step: StepRow,
        wait: WaitRow | None = None,
        *,
        child: Incoming | None = None,
        lookback: EventsSince | None = None,
        logs: Sequence[LogRow] = (),
    ) -> None:
        self.then = None
        self.lease = lease
        self.step = step
        self.wait = wait
        self.child = child
        """The invoked run's event; its one match is the run."""
        self.lookback = lookback
        """Earlier events that may satisfy the wait as well."""
        self.logs = logs

    def reads(self) -> Iterable[Read]:
        reads: list[Read] = [(ItemRow, self.lease.item_id), (RunRow, self.lease.run_id)]
        if self.lookback is not None:
            reads.append(self.lookback)
        if self.child is not None:
            reads.extend(reads_of([self.child]))
        return reads

    def awaits(self) -> Sequence[str]:
        if self.child is not None:  # it can't be over before the plan that starts it
            return watched([self.child])
        return () if self.wait is None else (self.wait.lookup,)

    def decide(self, tx: Tx) -> Accepted | Refused:
        if holds(tx, self.lease) is None:
            return STALE
        out = Accepted.empty()
        tx.insert(self.step)
        for line in self.logs:
            tx.put(line)
        if self.wait is not None and self.child is not None:
            self._invoke(tx, self.wait, self.child, out)
        elif self.wait is not None:
            tx.insert(self.wait)
            if self.lookback is not None:
                self._look_back(tx, self.wait, self.lookback, out)
        return out

    def _invoke(self, tx: Tx, wait: WaitRow, child: Incoming, out: Accepted) -> None:
        tx.insert(child.event)
        admit_invoked(tx, child.matches[0], child.event, out)
        if out.refused:
            tx.insert(wait)
            resolve(tx, wait, None, refusal(out.refused[0]), out)
            return
        # a batch or a debounce has an id for its run already
        tx.insert(replace(wait, lookup=CHILD_LOOKUP + out.runs[-1].hex()))

    def _look_back(self, tx: Tx, wait: WaitRow, lookback: EventsSince, out: Accepted) -> None:
        run = tx.get(RunRow, wait.run_id)
        for event in tx.find(lookback):
            if run is not None and event.id == run.event_id:
                continue
            if wait.lookup in lookups_of(event, {wait.lookup.split("\0")[1]} if "\0" in wait.lookup else {""}):
                body = event_json(event)
                if matches(wait, body) and resolve(tx, wait, body, None, out):
                    note_match(tx, wait, event)
                    return


def refusal(words: str) -> bytes:
    """The error of an invoking step whose callee's rules let no run start (protocol section 2.6)."""
    said = {"rate limited": "is rate limited", PAUSED: "is paused"}.get(words, f"is not started: {words}")
    return msgspec.json.encode(
        {
            "name": "InvokeRefusedError",
            "message": f"invoked function {said}",
            "chain": ["holdfast.base.errors.StepError"],
        }
    )


class TimeOut(Plan[StepRow]):
    """A wait's time has run out: recorded as its result, unless what it waits for came first."""

    __slots__ = ("lease", "step")

    def __init__(self, lease: Lease, step: StepRow) -> None:
        self.then = None
        self.lease = lease
        self.step = step
        """The step with its time-out result."""

    def reads(self) -> Iterable[Read]:
        key = (self.lease.run_id, self.step.key)
        return ((ItemRow, self.lease.item_id), (RunRow, self.lease.run_id), (WaitRow, key), (StepRow, key))

    def decide(self, tx: Tx) -> StepRow | Refused:
        run = tx.get(RunRow, self.lease.run_id)
        if holds(tx, self.lease) is None or run is None:
            return STALE
        key = (self.lease.run_id, self.step.key)
        current = tx.get(StepRow, key)
        if current is not None and current.state != StepState.PENDING:
            return current
        run.steps += 1
        self.step.seq = run.steps
        tx.delete(WaitRow, key)
        tx.put(self.step)
        return self.step
