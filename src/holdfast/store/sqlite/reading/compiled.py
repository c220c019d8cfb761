"""The compiled flow control of stored functions."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.core.flow import Flow
from holdfast.core.flow_config import FlowReader

PAUSES = (None, "skip", "hold")
"""How a function is paused, as the column has it."""


MAX_CACHED = 4000
"""Lanes whose gates are kept worked out."""


def flow_of(function_id: int, config: str, limits: str) -> Flow:
    """The flow control in a registration document, with the limits that were changed since.

    A document of another version that this one can't read has no rules here; the engine says so when it starts.
    """
    flow = _compiled(function_id, config, limits)
    if len(flow.cache) > MAX_CACHED:
        flow.cache = {}
    return flow


@lru_cache(maxsize=1024)
def _compiled(function_id: int, config: str, limits: str) -> Flow:
    try:
        flow = FlowReader(msgspec.json.decode(config), function_id).read()
    except (ConfigurationError, msgspec.DecodeError):
        return Flow(function_id, limits={}, cache={})
    flow.change_limits(msgspec.json.decode(limits))
    return flow
