"""Waiting for facts, with an end to it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def until(fact: Callable[[], bool | Awaitable[bool]], seconds: float, every: float = 0.05) -> bool:
    """Wait until something is true, at most this long; whether it became true."""
    deadline = time.monotonic() + seconds
    while True:
        found = fact()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(every)
