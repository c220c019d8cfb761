"""Changing flow control while it runs: pausing, limits, and debounces and batches that are not waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from holdfast.base.errors import ConfigurationError
from holdfast.core.claiming import OpenLanes
from holdfast.core.plan import Refused
from holdfast.core.rows import GatherKind
from holdfast.engine.alarms import fire
from holdfast.engine.host import Host
from holdfast.engine.notices import Notice
from holdfast.sdk.outgoing import nearest

_TOGETHER = 500
"""Debounces and batches that are started at once."""
PAUSE_MODES = ("skip", "hold")


async def open_lanes(host: Host, functions: Sequence[int]) -> None:
    """Let whatever waits at a gate of functions look at it again, after their limits have changed in memory.

    A group that was decided by the old limits may still be on its way, and lanes be blocked by it: it is waited for first.
    """
    await host.submit(OpenLanes(()))
    for function_id in functions:
        await host.submit(OpenLanes(host.store.lanes.blocked_of(function_id)))


class FlowControl:
    """What can be changed about a node's functions without changing their code."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def _function(self, slug: str) -> int:
        for function_id, known in self._host.slugs.items():
            if known == slug:
                return function_id
        raise ConfigurationError(f"there is no function {slug!r}{nearest(slug, self._host.slugs.values())}")

    async def pause(self, slug: str, mode: str = "hold") -> None:
        """Start no more runs of a function until it is resumed.

        Args:
            slug: `<app>-<function>`.
            mode: `hold` keeps runs in their queue, those that come and those that go on from a wait; `skip` lets live runs go on, and
                events that come start nothing and say so.

        Raises:
            ConfigurationError: there is no such function or mode.
        """
        if mode not in PAUSE_MODES:
            raise ConfigurationError(f"a function is paused with 'hold' or 'skip', not {mode!r}")
        await self._set(slug, paused=mode)

    async def resume(self, slug: str) -> None:
        """End a pause.

        Raises:
            ConfigurationError: there is no such function.
        """
        await self._set(slug, paused=None)

    async def set_limit(self, slug: str, rule: str, limit: int | None) -> None:
        """Change a limit of a function at once, until it is changed again; None goes back to its code's.

        A throttle begins anew with its new pace, so one start, and those of its burst, may come at once.

        Args:
            slug: `<app>-<function>`.
            rule: concurrency, concurrency-2, run-concurrency, throttle or rate-limit.
            limit: The new limit, 1 or more.

        Raises:
            ConfigurationError: there is no such function or rule, or the limit is out of range.
        """
        function_id = self._function(slug)
        flow = self._host.intake.flows.get(function_id)
        known = {} if flow is None else flow.limit_of
        if flow is None or rule not in known:
            raise ConfigurationError(
                f"function {slug!r} has no limit {rule!r}; it has {', '.join(known) or 'none'}: limits are declared in code"
            )
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ConfigurationError(
                f"a limit is a whole number of 1 or more, not {limit!r}; pause the function to stop it"
            )
        limits = dict(flow.limits)
        limits.pop(rule, None)
        if limit is not None:
            limits[rule] = limit
        await self._set(slug, paused=self._host.store.paused.get(function_id), limits=limits)

    async def _set(self, slug: str, *, paused: str | None, limits: dict[str, int] | None = None) -> None:
        host = self._host
        function_id = self._function(slug)
        flow = host.intake.flows.get(function_id)
        if limits is None:
            limits = dict(flow.limits) if flow is not None else {}
        await host.store.set_function(function_id, paused=paused, limits=limits)
        host.set_state(function_id, paused, limits)
        await open_lanes(host, [function_id])
        host.claim()
        if host.notices.wanted:
            host.notices.publish(Notice("function", slug, function_id))

    async def flush(self, slug: str, key: str | None = None) -> int:
        """Start the runs of a function's debounces and batches now; how many.

        Args:
            slug: `<app>-<function>`.
            key: Only the one of this key; all unless given.

        Raises:
            ConfigurationError: there is no such function.
        """
        function_id = self._function(slug)
        total = 0
        while True:
            gathers = await self._host.store.gathers_of(function_id, _TOGETHER, key)
            answers = await asyncio.gather(*(fire(self._host, gather, flush=True) for gather in gathers))
            started = sum(not isinstance(answer, Refused) for answer in answers)
            total += started
            if not started or len(gathers) < _TOGETHER:
                return total

    async def gathers(self, slug: str) -> list[dict[str, object]]:
        """A function's debounces and batches that wait: kind, key, events so far, when the first came, when it is due."""
        return [
            {
                "kind": GatherKind(gather.kind).name.lower(),
                "key": gather.key,
                "events": gather.count,
                "first_at": gather.first_at,
                "due": gather.due,
                "bytes": gather.bytes,
            }
            for gather in await self._host.store.gathers_of(self._function(slug))
        ]
