"""What a function that is called over HTTP says beside its answer: `ctx.progress`, and the lines of `ctx.logger`.

The protocol has no operation for either, so they are told as metadata of the run (protocol section 1.5). Another server may
have no such route, or keep such metadata without showing it: nothing of the run hangs on it. Lines go to servers only
that show them, which say so in their calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextvars import Context
from typing import Final

from holdfast.base.errors import HoldfastError
from holdfast.core.reporting import MAX_LINE, Progress
from holdfast.serve.place import Place
from holdfast.wire.metadata import MAX_LEVEL, LogValues, encode_reports, metadata_path

_log = logging.getLogger("holdfast.serve")

INTERVAL_SECONDS: Final = 0.25
MAX_LINES: Final = 1000
"""Lines that wait to be told; more of them are only in the application's own log."""
_UNKNOWN: Final = frozenset({404, 405, 501})
"""What a server answers that has no such route: it is not asked again."""
_PATIENCE_SECONDS: Final = 2.0
"""How long the end of a call waits for the server to take the last report."""


class Metadata:
    """What one call says beside its answer. `progress` and `line` may be called from any thread, the rest from the loop."""

    def __init__(self, place: Place, run_id: str, loop: asyncio.AbstractEventLoop, *, lines: bool) -> None:
        """Prepare them.

        Args:
            place: Where the call is executed.
            run_id: The run's id.
            loop: The call's loop.
            lines: Whether the server shows lines.
        """
        self._place = place
        self._run_id = run_id
        self._loop = loop
        self._takes_lines = lines
        self._said: Progress | None = None
        self._lines: list[LogValues] = []
        self._armed = False
        self._over = False
        self._posting: asyncio.Task[None] | None = None

    def progress(self, progress: Progress) -> None:
        """Tell this, instead of what was said before and is not told yet."""
        if self._place.tells_reports:
            self._said = progress
            self._arm()

    def line(self, level: int, message: str, step: str | None) -> None:
        """Tell a line that was logged."""
        if self._takes_lines and self._place.tells_reports and len(self._lines) < MAX_LINES:
            clean = message.encode(errors="replace").decode()[:MAX_LINE]
            self._lines.append(LogValues(self._place.clock.now(), min(max(level, 0), MAX_LEVEL), clean, step))
            self._arm()

    def _arm(self) -> None:
        if not self._armed and not self._over:
            self._armed = True
            with contextlib.suppress(RuntimeError):  # a body that was given up, after its call and the call's loop
                self._loop.call_soon_threadsafe(self._wait)

    def _wait(self) -> None:
        # in a context of its own: what it starts is no task of the function
        self._loop.call_later(INTERVAL_SECONDS, self._post_soon, context=Context())

    def _post_soon(self) -> None:
        self._armed = False
        if self._posting is not None and not self._posting.done():
            self._armed = True  # one at a time, so that the latest is the last
            self._wait()
        elif self._said is not None or self._lines:
            self._posting = self._loop.create_task(self._post())

    async def _post(self) -> None:
        said, self._said = self._said, None
        lines, self._lines = self._lines, []
        for body in encode_reports(None if said is None else (said.fraction, said.text), lines):
            try:
                answer = await self._place.client.post(metadata_path(self._run_id), body, timeout=_PATIENCE_SECONDS)
            except HoldfastError as error:
                _log.warning("run %s: its progress, or what it logs, could not be told: %s", self._run_id, error)
                return
            if not answer.ok:
                self._place.tells_reports = answer.status not in _UNKNOWN
                _log.warning("run %s: the server does not take its progress, which is shown nowhere: %s", self._run_id, answer.reason)
                return

    async def close(self) -> None:
        """Tell what is not told yet. Called before the call is answered, so that nothing of it comes after its end."""
        if self._posting is not None:
            await asyncio.wait({self._posting})
        if self._place.tells_reports:
            await self._post()
        self._over = True
