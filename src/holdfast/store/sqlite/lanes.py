"""The lanes in memory: which may be served, in whose turn, and which wait at which gate. Mirrors the table `lanes`."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import msgspec

from holdfast.core.flow import lane_function
from holdfast.core.rows import SUSPECT_LANE, LaneRow

_SUSPECT = -1
"""Stands for the function of the lane of suspects."""


class Lanes:
    """Lanes that have items. Ready ones are found by turn, blocked ones by gate, without looking at any other."""

    __slots__ = ("_counts", "_ready", "_timed", "_turns", "_waiting", "rows")

    def __init__(self, rows: Iterable[LaneRow]) -> None:
        self.rows: dict[str, LaneRow] = {}
        self._turns: dict[int, list[tuple[int, str]]] = {}
        self._ready: dict[int, int] = {}
        self._timed: list[tuple[int, str]] = []
        self._waiting: dict[str, list[tuple[int, str]]] = {}
        self._counts: dict[str, int] = {}
        for row in rows:
            # counts of leases begin at none: whatever waited for a place may look again
            self.put(LaneRow(row.lane, row.turn) if row.blocked == 1 else row)

    def __bool__(self) -> bool:
        return bool(self.rows)

    def get(self, lane: str) -> LaneRow | None:
        """The row of a lane, if it has items."""
        return self.rows.get(lane)

    def put(self, row: LaneRow) -> None:
        """A lane was written."""
        lane = row.lane
        self._leave(self.rows.get(lane))
        self.rows[lane] = row
        if row.blocked == 1:
            heapq.heappush(self._waiting.setdefault(row.gate, []), (row.turn, lane))
            self._counts[row.gate] = self._counts.get(row.gate, 0) + 1
            return
        if row.blocked == 2:
            heapq.heappush(self._timed, (row.until, lane))
            return
        function = _function(lane)
        self._ready[function] = self._ready.get(function, 0) + 1
        heapq.heappush(self._turns.setdefault(function, []), (row.turn, lane))

    def remove(self, lane: str) -> None:
        """A lane has no items left."""
        self._leave(self.rows.pop(lane, None))

    def _leave(self, row: LaneRow | None) -> None:
        if row is None:
            return
        if row.blocked == 0:
            function = _function(row.lane)
            self._ready[function] -= 1
            if not self._ready[function]:
                del self._ready[function]
                self._turns.pop(function, None)
        elif row.blocked == 1:
            self._counts[row.gate] -= 1
            if not self._counts[row.gate]:
                del self._counts[row.gate]
                del self._waiting[row.gate]

    def promote(self, now: int) -> None:
        """Lanes whose time has come are ready."""
        while self._timed and self._timed[0][0] <= now:
            until, lane = heapq.heappop(self._timed)
            row = self.rows.get(lane)
            if row is not None and row.blocked == 2 and row.until == until:
                self.put(msgspec.structs.replace(row, blocked=0))

    def next_until(self) -> int | None:
        """When the first of the lanes that wait for a moment may be served."""
        while self._timed:
            until, lane = self._timed[0]
            row = self.rows.get(lane)
            if row is not None and row.blocked == 2 and row.until == until:
                return until
            heapq.heappop(self._timed)
        return None

    def backlog(self, functions: frozenset[int]) -> bool:
        """Whether lanes of these functions may be served. Suspects are served one at a time and hold nobody up."""
        return any(function in functions for function in self._ready)

    def waiting(self, gate: str, count: int, functions: frozenset[int]) -> list[LaneRow]:
        """Lanes that wait at a gate, in their turn: `count` of these functions, and the others on the way."""
        waiting = self._waiting.get(gate, [])
        taken: dict[tuple[int, str], None] = {}
        while waiting and count > 0:
            entry = heapq.heappop(waiting)
            row = self.rows.get(entry[1])
            # what has left, or came back with another turn, is in the heap still; so is, twice, what came back with the same
            if row is None or row.blocked != 1 or row.gate != gate or row.turn != entry[0] or entry in taken:
                continue
            taken[entry] = None
            if row.lane == SUSPECT_LANE or _function(row.lane) in functions:
                count -= 1
        for entry in taken:
            heapq.heappush(waiting, entry)
        return [self.rows[lane] for _, lane in taken]

    def blocked_of(self, function_id: int) -> tuple[str, ...]:
        """Lanes of a function that wait for a place or a moment; that of suspects too, as it has runs of any function."""
        functions = (function_id, _SUSPECT)
        return tuple(lane for lane, row in self.rows.items() if row.blocked and _function(lane) in functions)

    def ready(self, functions: frozenset[int], *, suspect: bool, count: int) -> list[LaneRow]:
        """The lanes whose turn it is, at most `count`."""
        wanted = [function for function in self._ready if function in functions or (suspect and function == _SUSPECT)]
        taken: dict[tuple[int, str], None] = {}  # a lane that came back in the same millisecond is in the heap twice
        fronts = [(*front, function) for function in wanted if (front := self._front(function)) is not None]
        heapq.heapify(fronts)
        while fronts and len(taken) < count:
            turn, lane, function = heapq.heappop(fronts)
            heapq.heappop(self._turns[function])
            taken[turn, lane] = None
            front = self._front(function)
            if front is not None:
                heapq.heappush(fronts, (*front, function))
        for entry in taken:
            heapq.heappush(self._turns[_function(entry[1])], entry)
        return [self.rows[lane] for _, lane in taken]

    def _front(self, function: int) -> tuple[int, str] | None:
        turns = self._turns.get(function, [])
        while turns:
            turn, lane = turns[0]
            row = self.rows.get(lane)
            if row is not None and row.blocked == 0 and row.turn == turn:
                return turns[0]
            heapq.heappop(turns)
        return None

    def __iter__(self) -> Iterator[LaneRow]:
        return iter(self.rows.values())


def _function(lane: str) -> int:
    return _SUSPECT if lane == SUSPECT_LANE else lane_function(lane)
