"""When a schedule fires, and what becomes of occurrences that were not fired in time: jitter and catch-up. Pure."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass

from holdfast.core.cron import Schedule

MIN_JITTER_MS = 1000
MAX_JITTER_MS = 300_000
DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
GRACE_MS = 60_000
"""With catch-up `skip`, an occurrence that is this late or less still fires: a restart is no downtime."""
RECENT = 100
"""How many of the missed occurrences get a row of their own; all of them are counted."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the occurrences that are due."""

    fire: list[int]
    """Those that start a run, oldest first."""
    missed: list[int]
    """The latest of those that do not, oldest first."""
    missed_count: int
    """How many do not."""
    next_at: int
    """The first occurrence that is still to be decided."""


@dataclass(frozen=True, slots=True)
class Firing:
    """How a schedule of a function fires.

    Attributes:
        schedule: When its occurrences are.
        function: The function's slug: different functions of one schedule are spread differently.
        jitter_ms: An occurrence fires up to this much later, always by the same amount; 0 for at once.
        catch_up: `skip`, `once` or `all`.
        limit: With `all`, how many missed occurrences fire at most.
    """

    schedule: Schedule
    function: str = ""
    jitter_ms: int = 0
    catch_up: str = "once"
    limit: int = DEFAULT_LIMIT

    def due(self, occurrence: int) -> int:
        """When an occurrence fires: later than itself if there is jitter, and never later than the next one occurs."""
        if not self.jitter_ms:
            return occurrence
        span = min(self.jitter_ms, self.schedule.after(occurrence) - occurrence)
        text = f"{self.function}\0{self.schedule.text}\0{occurrence}"
        return occurrence + 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % span

    def decide(self, next_at: int, now: int) -> Decision:
        """Decide every occurrence from `next_at` on that is due."""
        # one more than are shown: the last may turn out not to be due yet
        latest: deque[int] = deque(maxlen=max(self.limit, RECENT) + RECENT + 1)
        count, following = 0, next_at
        for occurrence in self.schedule.following(next_at - 1):
            following = occurrence
            # an earlier one is due by the time the next one occurs
            if occurrence > now:
                break
            latest.append(occurrence)
            count += 1
        if latest and self.due(latest[-1]) > now:
            following = latest.pop()
            count -= 1
        passed = list(latest)
        kept = min(self._kept(passed, now), len(passed))
        fire = passed[len(passed) - kept :]
        missed = passed[: len(passed) - kept]
        return Decision(fire, missed[-RECENT:], count - kept, following)

    def _kept(self, passed: list[int], now: int) -> int:
        """How many of the latest occurrences fire."""
        if not passed:
            return 0
        if self.catch_up == "all":
            return self.limit
        late = self.catch_up == "skip" and now - self.due(passed[-1]) > GRACE_MS
        return 0 if late else 1
