"""Ports for programs that are told where to listen."""

from __future__ import annotations

import os
import random
import socket

_BANDS, _WIDTH, _FIRST = 3, 4_000, 20_000
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody has, and that stays free until the program that is meant to have it starts.

    It lies below those that systems give out by themselves, so that no connection of another process takes it meanwhile,
    not even while a program that was killed is away; and in a band of this test worker's own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    band = _FIRST + worker % _BANDS * _WIDTH
    while True:
        port = band + random.randrange(_WIDTH)
        try:
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError:
            continue
        if port not in _given:
            _given.add(port)
            return port
