"""The nodes that share a store with this one, itself included."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from holdfast.base.version import __version__
from holdfast.engine.engine import Engine
from holdfast.store.reads import NodeView

MOST = 100
"""Nodes that are listed: those alive, and the last that ended."""


async def nodes_of(engine: Engine) -> Sequence[NodeView]:
    """The nodes, those alive first. A file has one owner, so on SQLite it is the only one.

    Raises:
        StoreError: the database can't be read.
    """
    shared = engine.store.shared
    if shared is not None:
        return await shared.nodes(MOST)
    host, pid = socket.gethostname(), os.getpid()
    return [
        NodeView(
            number=engine.store.boot,
            name=f"{host} process {pid}",
            host=host,
            pid=pid,
            version=__version__,
            started_at=engine.began_at,
            seen_at=engine.clock.now(),
            ended_at=None,
            in_flight=engine.in_flight,
            capacity=engine.capacity,
            state="alive",
            leads=True,
            here=True,
        )
    ]
