"""The owner's side: a Unix socket beside the database on which the other processes ask."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.base.errors import HoldfastError, NotRunningError, StoreError
from holdfast.base.forks import close_after_fork
from holdfast.neighbours.frames import (
    CANCEL,
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    PROTOCOL,
    Answer,
    Call,
    Hello,
    Outcome,
    failure_of,
    frame,
    raw,
)
from holdfast.neighbours.methods import METHODS, Method

_log = logging.getLogger("holdfast")
_NOTHING = raw(None)
ONLY_WAIT = frozenset({"result", "execute"})
"""Calls that end when nobody waits for them any more."""


class Reception:
    """Answers the other processes for as long as this one owns the store.

    Args:
        control: What is asked: the engine.
        path: The socket. Whoever owns the store may replace it.
        apps: The ids of the apps that run here.
        ready: Whether the engine takes calls; while it doesn't, callers are told to ask the next owner.
        server: Whether this is a server process, which comes back when it is restarted.
        methods: What may be asked; they are called with `control`.
    """

    def __init__(
        self,
        control: Any,
        path: Path,
        apps: Sequence[str],
        ready: Callable[[], bool],
        *,
        server: bool = False,
        methods: Mapping[str, Method] = METHODS,
    ) -> None:
        self._control = control
        self.path = path
        self._apps = list(apps)
        self._ready = ready
        self._is_server = server
        self._methods = methods
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._guests: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen.

        Raises:
            StoreError: there can be no socket at the path.
        """
        self._socket = self._bind()
        self._server = await asyncio.start_unix_server(self._connected, sock=self._socket)
        close_after_fork(self)

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.unlink(missing_ok=True)  # a dead owner's: this process holds the lock
            sock.bind(str(self.path))
            self.path.chmod(0o600)  # before it listens: nobody can have come in
        except OSError as error:
            sock.close()
            raise StoreError(
                f"other processes of the application can't be let in at {self.path}: {error.strerror}; "
                "may this process write to the directory of the store, and is it on a local file system?"
            ) from error
        sock.setblocking(False)
        return sock

    def shut(self) -> None:
        """Let nobody in any more; those who are in stay. To be called before the store is given up."""
        if self._server is not None:
            self.path.unlink(missing_ok=True)
            self._server.close()
            self._server = self._socket = None

    async def disconnect(self) -> None:
        """Send everybody to the next owner. To be called once the store is given up."""
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._guests, return_exceptions=True)

    def descriptors(self) -> list[int]:
        """See `forks.Holder`."""
        sockets = [writer.get_extra_info("socket") for writer in self._writers]
        return [sock.fileno() for sock in (*sockets, self._socket) if sock is not None and sock.fileno() >= 0]

    # -- one connection --------------------------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        guest = asyncio.current_task()
        assert guest is not None
        self._guests.add(guest)
        guest.add_done_callback(self._guests.discard)
        calls: dict[int, asyncio.Task[None]] = {}
        waits: set[asyncio.Task[None]] = set()
        try:
            writer.write(frame(Hello(PROTOCOL, os.getpid(), self._apps, self._is_server)))
            while True:
                size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
                if size > MAX_FRAME_BYTES:
                    raise msgspec.ValidationError(f"a frame of {size} bytes")
                call = msgspec.msgpack.decode(await reader.readexactly(size), type=Call)
                if call.method == CANCEL:
                    if (task := calls.get(call.id)) is not None:
                        task.cancel()
                    continue
                task = asyncio.create_task(self._answer(call, writer))
                calls[call.id] = task
                task.add_done_callback(lambda _, number=call.id: calls.pop(number, None))  # type: ignore[misc]
                if call.method in ONLY_WAIT:
                    waits.add(task)
                    task.add_done_callback(waits.discard)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other process has ended, or needs nothing more
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            _log.error("a process at %s does not speak as this holdfast does, and was sent away: %s", self.path, error)
        finally:
            self._writers.discard(writer)
            for task in list(waits):  # what was asked to be done is done all the same
                task.cancel()
            writer.close()

    async def _answer(self, call: Call, writer: asyncio.StreamWriter) -> None:
        answer = await self._perform(call)
        if not writer.is_closing():
            writer.write(answer)

    async def _perform(self, call: Call) -> bytes:
        method = self._methods.get(call.method)
        if not self._ready() and not (method is not None and method.while_stopping):
            return frame(Answer(call.id, Outcome.GONE, _NOTHING))
        try:
            if method is None:
                raise HoldfastError(f"process {os.getpid()}, which owns the store, does not know {call.method!r}")
            args = msgspec.msgpack.decode(call.args, type=method.args)
            return frame(Answer(call.id, Outcome.DONE, raw(await method.call(self._control, *args))))
        except Exception as error:
            if isinstance(error, NotRunningError) and not self._ready():
                return frame(Answer(call.id, Outcome.GONE, _NOTHING))
            if not isinstance(error, HoldfastError | TimeoutError):
                _log.exception("%s, asked for by another process, failed", call.method)
            return frame(Answer(call.id, Outcome.FAILED, raw(failure_of(error))))
