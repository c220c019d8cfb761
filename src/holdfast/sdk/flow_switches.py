"""The part of an app that changes flow control while it runs."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from holdfast.sdk.functions import Function
from holdfast.sdk.sender import Control

FunctionLike: TypeAlias = Function[Any, Any] | str
"""A function, its id, or `<app>-<id>`."""


class FlowSwitching:
    """Pausing functions, changing their limits, and not waiting for debounces and batches."""

    functions: dict[str, Function[Any, Any]]

    def _control(self) -> Control:
        raise NotImplementedError

    async def pause(self, function: FunctionLike, *, mode: Literal["hold", "skip"] = "hold") -> None:
        """Start no more runs of a function until it is resumed, also after a restart.

        Args:
            function: The function, its id, or `<app>-<id>`.
            mode: `hold` keeps its runs in their queue, those that come and those that go on from a wait. With `skip`, live runs
                go on, and events that come start nothing and say so.

        Raises:
            ConfigurationError: there is no such function or mode.
            NotRunningError: the app only sends from here.
        """
        await self._control().flow_control.pause(self._slug(function), mode)

    async def resume(self, function: FunctionLike) -> None:
        """End a pause; nothing happens when there is none. Errors as for `pause`."""
        await self._control().flow_control.resume(self._slug(function))

    async def set_limit(self, function: FunctionLike, rule: str, limit: int | None) -> None:
        """Change a limit at once, until it is changed again, also after a restart.

        A throttle begins anew with its new pace, so one start, and those of its burst, may come at once.

        Args:
            function: The function, its id, or `<app>-<id>`.
            rule: `concurrency`, `concurrency-2` (the second of two), `run-concurrency`, `throttle` or `rate-limit`.
            limit: 1 or more; None goes back to the code's.

        Raises:
            ConfigurationError: there is no such function, it has no such rule, or the limit is out of range.
            NotRunningError: the app only sends from here.
        """
        await self._control().flow_control.set_limit(self._slug(function), rule, limit)

    async def flush(self, function: FunctionLike, *, key: str | None = None) -> int:
        """Start the runs of a function's debounces and batches now, without waiting for what they wait for.

        Args:
            function: The function, its id, or `<app>-<id>`.
            key: Only the one of this key; all unless given.

        Returns:
            How many runs were started.

        Raises:
            ConfigurationError: there is no such function.
            NotRunningError: the app only sends from here.
        """
        return await self._control().flow_control.flush(self._slug(function), key)

    def _slug(self, function: FunctionLike) -> str:
        if isinstance(function, str):
            known = self.functions.get(function)
            return function if known is None else known.slug
        return function.slug
