"""Sending from a script without a loop: a blocking connection to whoever owns the store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from holdfast.base.clock import SystemClock, monotonic
from holdfast.base.errors import OwnerLostError
from holdfast.base.ids import IdFactory
from holdfast.neighbours.connection import Gone, check_hello, read_answer
from holdfast.neighbours.follower import PATIENCE_SECONDS, receipts, with_ids
from holdfast.neighbours.frames import HEADER_BYTES, Answer, Call, Hello, frame, raw
from holdfast.neighbours.methods import METHODS
from holdfast.sdk.sender import Outgoing, Sent

_RETRY_SECONDS = 0.05


class Visitor:
    """Sends events and signals to the process that owns a store; it starts and reads nothing.

    Args:
        path: The owner's socket.
        patience: Seconds for which it waits for an owner, and for its answers.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE_SECONDS) -> None:
        self._path = path
        self._patience = patience
        self._ids = IdFactory()
        self._clock = SystemClock()

    async def send(self, events: Sequence[Outgoing]) -> list[Sent]:
        """See `Sender.send`."""
        return await asyncio.to_thread(self.send_threadsafe, events)

    def send_threadsafe(self, events: Sequence[Outgoing]) -> list[Sent]:
        """See `Sender.send_threadsafe`. Events are accepted once, as with `Follower.send`.

        Raises:
            OwnerLostError: no process owned the store in time.
        """
        given = with_ids(events, self._ids, self._clock.now())
        return receipts(given, self._call("send", given)) if given else []

    async def send_signal(self, name: str, data: bytes) -> str | None:
        """See `Sender.send_signal`."""
        given: str | None = await asyncio.to_thread(self._call, "send_signal", name, data, repeatable=False)
        return given

    def _call(self, name: str, *args: Any, repeatable: bool = True) -> Any:
        deadline = monotonic() + self._patience
        while True:
            asked = False
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    sock.settimeout(self._patience)
                    sock.connect(str(self._path))
                    check_hello(msgspec.msgpack.decode(_receive(sock), type=Hello), self._path, ())
                    asked = True
                    sock.sendall(frame(Call(1, name, raw(args))))
                    return read_answer(msgspec.msgpack.decode(_receive(sock), type=Answer), METHODS[name].answer)
            except (OSError, EOFError, Gone) as error:
                lost = asked and not isinstance(error, Gone) and not repeatable
                if lost or monotonic() > deadline:
                    raise OwnerLostError(
                        f"the process that owns {str(self._path).removesuffix('-socket')} is gone or does not answer "
                        f"({type(error).__name__}: {error}); whether {name!r} was done isn't known"
                    ) from error
            Event().wait(_RETRY_SECONDS)


def _receive(sock: socket.socket) -> bytes:
    return _exactly(sock, int.from_bytes(_exactly(sock, HEADER_BYTES), "big"))


def _exactly(sock: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        chunk = sock.recv(min(size - len(got), 1 << 20))
        if not chunk:
            raise EOFError("the connection ended")
        got += chunk
    return bytes(got)
