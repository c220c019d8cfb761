"""How often events came in that clients have sent again because they didn't hear the answer (protocol section 1.2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

_MAX = 10_000


class Receipts:
    """Counts what came in again with the id that the client's seed gives it. Such an event is stored once; the count is for lists,
    is kept in memory and is of the last ten thousand of them.
    """

    def __init__(self) -> None:
        self._again: OrderedDict[str, int] = OrderedDict()

    def again(self, event_ids: Iterable[str]) -> None:
        """These came in once more."""
        for event_id in event_ids:
            self._again[event_id] = self._again.pop(event_id, 0) + 1
        while len(self._again) > _MAX:
            self._again.popitem(last=False)

    def of(self, event_id: str) -> int:
        """How often an event came in."""
        return 1 + self._again.get(event_id, 0)
