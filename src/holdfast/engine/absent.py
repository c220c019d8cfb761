"""Functions that are in force and that this node can't execute: their events start runs all the same, which others take up.

They are those of other nodes on the same store, and those of an app that could not be loaded here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.core.flow_config import FlowReader
from holdfast.engine.intake import Intake

_log = logging.getLogger("holdfast")


class Absent:
    """Routes events to functions that are executed elsewhere."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._known: dict[int, bytes] = {}

    def follow(self, functions: Iterable[tuple[int, int, bytes]], here: Iterable[int]) -> bool:
        """Take up which functions there are; whether anything has changed.

        Args:
            functions: Id, version and registration document of those in force.
            here: Ids of those that this node executes, or calls, itself.
        """
        mine = frozenset(here)
        wanted = {one[0]: one for one in functions if one[0] not in mine}
        gone = [function_id for function_id in self._known if function_id not in wanted]
        for function_id in gone:
            # one that is executed here by now has routes of its own
            self._forget(function_id, routed=function_id in mine)
        changed = bool(gone)
        for function_id, version, config in wanted.values():
            if self._known.get(function_id) != config:
                self._forget(function_id)
                self._route(function_id, version, config)
                changed = True
        return changed

    def _forget(self, function_id: int, *, routed: bool = False) -> None:
        if self._known.pop(function_id, None) is not None and not routed:
            self._intake.router.remove(function_id)
            self._intake.flows.pop(function_id, None)

    def _route(self, function_id: int, version: int, config: bytes) -> None:
        self._known[function_id] = config
        document = msgspec.json.decode(config)
        try:
            for trigger in document.get("triggers") or ():
                if trigger.get("event"):
                    self._intake.router.add(trigger["event"], function_id, version, trigger.get("expression"))
            flow = FlowReader(document, function_id).read()
        except ConfigurationError as error:  # of a newer node
            _log.warning("events for %s, which runs on other nodes, are not routed here: %s", document.get("id"), error)
            self._intake.router.remove(function_id)
            return
        if not flow.empty:
            self._intake.control(flow, lambda row: msgspec.json.decode(row.data))
