"""`ctx.logger`: the program's own logging, the run's page, and silence on replay."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from holdfast.base.masks import hide
from holdfast.core.reporting import MAX_LINE
from holdfast.core.rows import LogRow
from holdfast.engine.host import Run
from holdfast.engine.tasks import current_step

_MAX_BUFFERED = 1000


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the run to each record and keeps its lines for the next commit."""

    def __init__(self, live: Run) -> None:
        super().__init__(logging.getLogger(f"holdfast.run.{live.fn.function.id}"), {})
        self._live = live
        self._hidden = live.hidden
        self._lines: list[LogRow] = []
        self._base = live.host.clock.now() << 20
        self._count = 0

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        live = self._live
        if live.recorded:  # pending steps included: the code before them was logged when they began
            return
        if len(self._lines) < _MAX_BUFFERED or self._hidden:
            text = formatted(msg, args)
            if self._hidden and (covered := hide(text, self._hidden)) != text:
                msg, args, text = covered, (), covered
        if len(self._lines) < _MAX_BUFFERED:
            self._count += 1
            text = text.encode(errors="replace").decode()[:MAX_LINE]
            self._lines.append(
                LogRow(live.run.id, self._base + self._count, live.host.clock.now(), level, text, current_step.get())
            )
        super().log(level, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        live = self._live
        kwargs["extra"] = {
            **(kwargs.get("extra") or {}),
            "run_id": live.run_id,
            "function_id": live.fn.function.slug,
            "attempt": live.attempt,
        }
        return msg, kwargs

    def take(self) -> list[Any]:
        """Lines not yet written."""
        lines, self._lines = self._lines, []
        return lines


def formatted(msg: object, args: tuple[object, ...]) -> str:
    """A line with its arguments. As in logging itself, a bad format is shown, not raised."""
    try:
        return str(msg) % args if args else str(msg)
    except Exception as error:
        return f"{msg!s} {args!r} ({error})"
