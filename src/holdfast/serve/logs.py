"""`ctx.logger` in an app that is called over HTTP: the program's own logging, silent while memoised steps are replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from holdfast.base.masks import hide
from holdfast.engine.logs import formatted
from holdfast.engine.tasks import current_step


class CallLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the run to each record, tells the server, and drops what an earlier call has logged already."""

    def __init__(
        self,
        function_id: str,
        run: dict[str, Any],
        silent: Callable[[], bool],
        tell: Callable[[int, str, str | None], None],
        hidden: frozenset[str],
    ) -> None:
        super().__init__(logging.getLogger(f"holdfast.run.{function_id}"), {})
        self._run = run
        self._silent = silent
        self._tell = tell
        self._hidden = hidden

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self._silent():
            text = formatted(msg, args)
            if self._hidden and (covered := hide(text, self._hidden)) != text:
                msg, args, text = covered, (), covered
            self._tell(level, text, current_step.get())
            super().log(level, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **self._run}
        return msg, kwargs
