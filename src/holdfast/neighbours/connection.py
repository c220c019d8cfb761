"""A connection to the process that owns the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from holdfast.base.errors import StoreInUseError
from holdfast.base.forks import close_after_fork
from holdfast.neighbours.frames import (
    CANCEL,
    HEADER_BYTES,
    PROTOCOL,
    Answer,
    Call,
    Failure,
    Hello,
    Outcome,
    error_of,
    frame,
    raw,
)
from holdfast.neighbours.methods import METHODS, Method

_NO_ARGS = raw(())


class Gone(Exception):  # noqa: N818 - not an error: somebody else is to be asked
    """Whoever was asked has done nothing, and will not."""


class Lost(Exception):  # noqa: N818
    """Whoever was asked has ended; whether it has done it isn't known."""


class Connection:
    """Asks the owner. Many calls may be under way at once."""

    def __init__(
        self,
        hello: Hello,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        methods: Mapping[str, Method] = METHODS,
    ) -> None:
        self.hello = hello
        self._methods = methods
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._count = 0
        self.closed = asyncio.Event()
        """Set once the owner has let go: the store can be had."""
        self._task = asyncio.create_task(self._read())
        close_after_fork(self)

    @classmethod
    async def open(cls, path: Path, apps: Sequence[str], methods: Mapping[str, Method] = METHODS) -> Self:
        """Connect to ask for the methods given.

        Raises:
            OSError: nobody listens there.
            StoreInUseError: somebody does who runs other applications, or is another user's or another version's process.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except PermissionError as error:
            raise StoreInUseError(
                f"the process that owns the store is another user's: {path} can't be opened; run both as the same user"
            ) from error
        try:
            hello = msgspec.msgpack.decode(await _frame(reader), type=Hello)
            check_hello(hello, path, apps)
        except asyncio.IncompleteReadError as error:
            writer.close()
            raise ConnectionError("the owner ended") from error
        except BaseException:
            writer.close()
            raise
        return cls(hello, reader, writer, methods)

    async def ask(self, name: str, args: Sequence[Any]) -> Any:
        """The answer to a call; raises what the owner's engine raised.

        Raises:
            Gone: it was not done.
            Lost: it may have been done.
        """
        if self.closed.is_set():
            raise Gone
        self._count += 1
        number = self._count
        self._writer.write(frame(Call(number, name, raw(args))))
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        try:
            answer = await waiter
        except asyncio.CancelledError:
            if not self.closed.is_set():
                self._writer.write(frame(Call(number, CANCEL, _NO_ARGS)))
            raise
        finally:
            self._waiting.pop(number, None)
        return read_answer(answer, self._methods[name].answer)

    async def close(self) -> None:
        """Leave."""
        self._writer.close()
        await self.closed.wait()

    def descriptors(self) -> list[int]:
        """See `forks.Holder`."""
        sock = self._writer.get_extra_info("socket")
        return [] if self.closed.is_set() or sock is None or sock.fileno() < 0 else [sock.fileno()]

    async def _read(self) -> None:
        try:
            while True:
                answer = msgspec.msgpack.decode(await _frame(self._reader), type=Answer)
                waiter = self._waiting.get(answer.id)
                if waiter is not None and not waiter.done():
                    waiter.set_result(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed.set()
            self._writer.close()
            for waiter in self._waiting.values():
                if not waiter.done():
                    waiter.set_exception(Lost())


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(HEADER_BYTES), "big")
    return await reader.readexactly(size)


def check_hello(hello: Hello, path: Path, apps: Sequence[str]) -> None:
    """Whether an owner is one that these apps can ask.

    Raises:
        StoreInUseError: it isn't, and why.
    """
    store = str(path).removesuffix("-socket")
    theirs = ", ".join(hello.apps) or "none"
    if hello.protocol != PROTOCOL:
        raise StoreInUseError(
            f"{store} is in use by process {hello.pid} of another version of holdfast: stop that process, or run the same version"
        )
    if not set(apps) <= set(hello.apps):
        missing = ", ".join(sorted(set(apps) - set(hello.apps)))
        raise StoreInUseError(
            f"{store} is in use by process {hello.pid}, which runs app {theirs} and not {missing}: stop that process, run the same "
            "apps in both, or give this one a store of its own with --store or store="
        )


def read_answer(answer: Answer, kind: Any) -> Any:
    """The value of an answer; raises what it tells of.

    Raises:
        Gone: the call was not done.
    """
    if answer.outcome is Outcome.GONE:
        raise Gone
    if answer.outcome is Outcome.FAILED:
        raise error_of(msgspec.msgpack.decode(answer.value, type=Failure))
    return msgspec.msgpack.decode(answer.value, type=kind)
