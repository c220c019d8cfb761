"""The engine and the loop of a server process, or of a worker of its."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.cli.settings import ProcessSettings
from holdfast.engine.engine import EngineOptions
from holdfast.engine.outbound import EVERYTHING, PrivateNetworks


def engine_options(settings: ProcessSettings) -> EngineOptions:
    """How the engine of a server process behaves."""
    interval = settings.retry_interval
    options = EngineOptions(
        drain_seconds=settings.drain_seconds,
        retry_interval_ms=None if interval is None else round(interval * 1000),
        private_networks=private_networks(settings),
    )
    if settings.capacity is not None:
        options.capacity = settings.capacity
    return options


def private_networks(settings: ProcessSettings) -> PrivateNetworks:
    """What of private networks may be called for applications: in production, what is allowed, and what was named with -u."""
    if settings.mode == "dev":
        return EVERYTHING
    return PrivateNetworks.parse(settings.allow_private_networks).naming(*settings.urls)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Makes the fastest loop there is here."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop
