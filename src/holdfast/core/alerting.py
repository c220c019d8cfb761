"""Turning alerts on and off: each change once, with its event, in one commit. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.core.ingest import Accepted, Incoming, accept, reads_of
from holdfast.core.plan import Plan, Read, Refused, Tx
from holdfast.core.rows import AlertRow


class SwitchAlert(Plan[Accepted]):
    """Turn an alert on, or off. Refused where it is so already."""

    __slots__ = ("alert", "incoming", "on")

    def __init__(self, alert: AlertRow, incoming: Incoming, *, on: bool) -> None:
        self.then = None
        self.alert = alert
        self.incoming = incoming
        """The event that tells of it."""
        self.on = on

    def reads(self) -> Iterable[Read]:
        return [(AlertRow, (self.alert.function_id, self.alert.kind)), *reads_of([self.incoming])]

    def decide(self, tx: Tx) -> Accepted | Refused:
        key = (self.alert.function_id, self.alert.kind)
        if (tx.get(AlertRow, key) is not None) == self.on:
            return Refused("it is so already")
        if self.on:
            tx.put(self.alert)
        else:
            tx.delete(AlertRow, key)
        out = Accepted.empty()
        accept(tx, self.incoming, out)
        return out
