"""Bringing the events of outboxes to where they are accepted.

An outbox is read, its events are accepted, and only then are its rows deleted; what is accepted twice on the way is known
by the event's id. A process that dies anywhere leaves the rest to the next look, its own or another's. A send in this
process says that something is about to be committed, so that it is looked for soon; else there is a look once in a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from holdfast.base.clock import Clock
from holdfast.base.errors import EventInvalidError, HoldfastError
from holdfast.base.ids import ulid_text
from holdfast.engine.timers import Timers
from holdfast.sdk.sender import Outgoing
from holdfast.sdk.transactional import decoded

_log = logging.getLogger("holdfast")

AT_ONCE = 100
_FIRST_LOOK_MS = 2
"""After a send, until the first look; doubled with each that doesn't find it."""
_LATEST_LOOK_MS = 1_000
_PATIENCE_MS = 60_000
"""How long a transaction is looked for that has sent something and not committed yet; after that, once in a while will do."""
_MAX_EXPECTED = 10_000

Waiting = tuple[bytes, bytes]
"""An event that waits: its id, and its JSON."""


class Outbox(Protocol):
    """Where events wait."""

    shown: str

    async def pending(self, after: bytes, limit: int) -> list[Waiting]:
        """Events that wait, by rising id, from after one on."""
        ...

    async def deliver(self, events: Sequence[Outgoing]) -> None:
        """Have events accepted. All of them are on disk when it returns, and are gone from here, or known to be.

        Raises:
            EventInvalidError: one can't be accepted, and none was.
            HoldfastError: none was accepted now, or they still wait here.
        """
        ...

    async def close(self) -> None: ...


class Relay:
    """Looks into one outbox.

    Args:
        outbox: Where.
        clock: By which it waits.
        every_ms: How often it looks when nobody says that there is something.
    """

    def __init__(self, outbox: Outbox, clock: Clock, every_ms: int) -> None:
        self._outbox = outbox
        self._clock = clock
        self._every_ms = every_ms
        self._timers = Timers(clock, self._due)
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._expected: set[bytes] = set()
        self._expected_until = 0
        self._delay = _FIRST_LOOK_MS
        self._refused: set[bytes] = set()
        """Events that can't be accepted as they are, and have been complained about."""
        self._away = False
        self._again = False
        """Whether something was said while it was being looked."""
        self._stopping = False
        self.looking = False
        """Whether it is being looked, or something brought, at this moment."""

    def start(self) -> None:
        """Begin, with what may have been left."""
        self._timers.arm(self._clock.now())

    def expect(self, events: Sequence[bytes]) -> None:
        """Events with these ids are about to be committed."""
        now = self._clock.now()
        if len(self._expected) > _MAX_EXPECTED:
            self._expected.clear()  # those that were rolled back add up
        self._expected.update(events)
        self._expected_until = now + _PATIENCE_MS
        self._delay = _FIRST_LOOK_MS
        self._timers.arm(now + self._delay)

    @property
    def expects_something(self) -> bool:
        """Whether something has been sent that has not been seen yet."""
        return bool(self._expected)

    def look_soon(self) -> None:
        """Something has been committed."""
        self._timers.arm(self._clock.now())

    def kill(self) -> None:
        """Look no more; what is on its way may arrive."""
        self._stopping = True
        self._timers.cancel()

    async def stop(self) -> None:
        """Look no more, and close the outbox once the last look is over."""
        self.kill()
        if self._task is not None:
            await asyncio.wait({self._task})
        await self._outbox.close()

    async def flush(self) -> int:
        """Bring everything that waits now; how many events that was."""
        async with self._turn:
            self.looking = True
            try:
                return await self._bring_all()
            finally:
                self.looking = False

    def _due(self) -> None:
        if self._stopping:
            return
        if self._task is not None and not self._task.done():
            self._again = True  # what there is to see may have come after the look in progress has read
            return
        self.looking = True
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            await self.flush()
            self._away = False
        except Exception as error:  # the next look must not be kept from happening
            if not self._away or not isinstance(error, HoldfastError):
                _log.warning("events in the outbox of %s stay there for now: %s", self._outbox.shown, error,
                             exc_info=not isinstance(error, HoldfastError))  # fmt: skip
            self._away = True
        self._arm_next()

    def _arm_next(self) -> None:
        if self._stopping:
            return
        now = self._clock.now()
        if self._again and not self._away:
            self._again = False
            self._timers.arm(now)
        elif self._expected and now < self._expected_until and not self._away:
            self._delay = min(self._delay * 2, _LATEST_LOOK_MS, self._every_ms)
            self._timers.arm(now + self._delay)
        else:
            self._expected.clear()
            self._timers.arm(now + self._every_ms)

    async def _bring_all(self) -> int:
        brought, after = 0, b""
        while not self._stopping:
            waiting = await self._outbox.pending(after, AT_ONCE)
            if not waiting:
                break
            brought += await self._bring(waiting)
            after = waiting[-1][0]
        return brought

    async def _bring(self, waiting: Sequence[Waiting]) -> int:
        now = self._clock.now()
        events = []
        for event_id, kept in waiting:
            try:
                events.append(decoded(event_id, kept, now))
            except EventInvalidError as error:
                self._refuse(event_id, error)
        if not events:
            return 0
        try:
            await self._outbox.deliver(events)
        except EventInvalidError:
            return sum([await self._bring_one(event) for event in events])
        self._expected.difference_update(event_id for event_id, _ in waiting)
        return len(events)

    async def _bring_one(self, event: Outgoing) -> int:
        assert event.internal_id is not None
        try:
            await self._outbox.deliver([event])
        except EventInvalidError as error:
            self._refuse(event.internal_id, error)
            return 0
        self._expected.discard(event.internal_id)
        return 1

    def _refuse(self, event_id: bytes, error: EventInvalidError) -> None:
        self._expected.discard(event_id)
        if event_id not in self._refused:
            self._refused.add(event_id)
            _log.error(
                "event %s in the outbox of %s can't be accepted and stays there: %s; correct its row, or delete it",
                ulid_text(event_id),
                self._outbox.shown,
                error,
            )
