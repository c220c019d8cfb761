"""`ctx.logger` in an app that is called over HTTP: the program's own logging, silent while memoised steps are replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any


class CallLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the run to each record, and drops what an earlier call has logged already."""

    def __init__(self, function_id: str, run: dict[str, Any], silent: Callable[[], bool]) -> None:
        super().__init__(logging.getLogger(f"holdfast.run.{function_id}"), {})
        self._run = run
        self._silent = silent

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self._silent():
            super().log(level, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **self._run}
        return msg, kwargs
