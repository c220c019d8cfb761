"""A process that works through the owner of the store, and takes over from it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self, TypeAlias

from holdfast.base.clock import SystemClock, monotonic
from holdfast.base.errors import NotRunningError, OwnerLostError, StoreInUseError
from holdfast.base.ids import IdFactory, ulid_text
from holdfast.neighbours.connection import Connection, Gone, Lost
from holdfast.neighbours.methods import METHODS
from holdfast.sdk.app import App
from holdfast.sdk.sender import BulkInfo, Control, Edit, FlowSwitches, Outgoing, RunInfo, Sent
from holdfast.store.sqlite.connection import StoreHeldError

_log = logging.getLogger("holdfast")

PATIENCE_SECONDS = 30.0
"""How long a call waits for an owner, and for its answer, before it fails."""
START_SECONDS = 120.0
"""How long a process that begins waits for an owner that is still starting, migrating its database or entering its app's lifespan."""
SERVER_RETURNS_SECONDS = 15.0
"""How long a server process that has left may take to come back to its store before somebody else takes it over."""
_RETRY_SECONDS = 0.02
_PAUSE_SECONDS = 1.0
"""After an attempt to take over that failed for another reason than that somebody else has."""

Ask: TypeAlias = Callable[[str, Sequence[Any]], Awaitable[Any]]
Own: TypeAlias = Callable[[], AbstractAsyncContextManager[Control]]
"""Becomes the owner for as long as the block lasts; StoreInUseError while somebody else is."""


class Follower:
    """Everything that an app offers, through whichever process owns the store: another one, or in the end this one.

    Args:
        apps: The apps of this process.
        path: The owner's socket.
        own: How this process becomes the owner.
        patience: Seconds that calls wait for an owner.
    """

    def __init__(self, apps: Sequence[App], path: Path, own: Own, *, patience: float = PATIENCE_SECONDS) -> None:
        self._apps = apps
        self._path = path
        self._own = own
        self._patience = patience
        self._ids = IdFactory()
        self._clock = SystemClock()
        self._pid = os.getpid()
        self._ask: Ask | None = None
        self._found = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ready: asyncio.Future[None]
        self._loop: asyncio.AbstractEventLoop
        self._returns_until: float | None = None
        """Until when a server process that has left is expected back."""
        self._following: asyncio.Task[None] | None = None
        self.flow_control: FlowSwitches = _Switches(self._call)

    # -- life ------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Find the owner, or become it.

        Raises:
            StoreInUseError: who has the store can't be asked, or doesn't answer.
            HoldfastError: this process has to be the owner, and can't.
        """
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        for app in self._apps:
            app.bind(self)  # below the engine that this process may come to have
        self._following = asyncio.create_task(self._follow(), name="holdfast-follower")
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.shield(self._ready)
        except TimeoutError:
            await self._leave()
            raise StoreInUseError(
                f"the process that has {self._store} open did not answer at {self._path} in {START_SECONDS:g} s: "
                "is it still starting, or stopped in a debugger? Its id stands in the file that ends in -lock"
            ) from None
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._leave()

    async def _leave(self) -> None:
        for app in self._apps:
            app.unbind(self)
        self._stopping.set()
        if self._following is not None:
            await asyncio.gather(self._following, return_exceptions=True)
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()

    @property
    def _store(self) -> str:
        return str(self._path).removesuffix("-socket")

    async def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                if not await self._work_through_another() and not await self._take_over():
                    await self._pause(_RETRY_SECONDS)
            except Exception as error:
                if not self._ready.done():
                    self._ready.set_exception(error)
                    return
                _log.exception("%s has no owner, and this process can't take it over; it tries again", self._store)
                await self._pause(_PAUSE_SECONDS)

    async def _work_through_another(self) -> bool:
        """Be a client until the owner lets go; False when there is none."""
        try:
            connection = await Connection.open(self._path, [app.id for app in self._apps])
        except OSError:
            return False
        hello = connection.hello
        _log.debug("working through process %d, which owns %s", hello.pid, self._store)
        self._found_owner(connection.ask)
        stopping = asyncio.create_task(self._stopping.wait())
        letting_go = asyncio.create_task(connection.closed.wait())
        await asyncio.wait({stopping, letting_go}, return_when=asyncio.FIRST_COMPLETED)
        self._owner_left()
        self._returns_until = monotonic() + SERVER_RETURNS_SECONDS if hello.server else None
        for task in (stopping, letting_go):
            task.cancel()
        await connection.close()
        return True

    async def _take_over(self) -> bool:
        """Own the store until this process stops; False when somebody else has it."""
        if self._returns_until is not None and monotonic() < self._returns_until:
            return False
        try:
            async with self._own() as control:
                if self._ready.done():
                    _log.warning("process %d has taken over %s from an owner that is gone", self._pid, self._store)
                self._found_owner(lambda name, args: METHODS[name].call(control, *args))
                try:
                    await self._stopping.wait()
                finally:
                    self._owner_left()
        except StoreHeldError as held:
            if not self._ready.done() and not held.shared:
                raise
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _found_owner(self, ask: Ask) -> None:
        self._ask = ask
        self._returns_until = None
        self._found.set()
        if not self._ready.done():
            self._ready.set_result(None)

    def _owner_left(self) -> None:
        self._ask = None
        self._found.clear()

    # -- asking ----------------------------------------------------------------------------------------------------------

    async def _call(self, name: str, *args: Any, bounded: bool = True) -> Any:
        if os.getpid() != self._pid:
            raise NotRunningError(
                "this process was forked from one that works through the owner of its store: enter `app.running()` after the fork "
                "(with uvicorn or gunicorn, in the application's lifespan)"
            )
        done = "nothing was done"
        while True:
            ask = await self._owner(done)
            try:
                async with asyncio.timeout(self._patience if bounded else None) as scope:
                    return await ask(name, args)
            except Gone:
                self._not_there(ask)
            except Lost as error:
                self._not_there(ask)
                if not METHODS[name].repeatable:
                    raise OwnerLostError(
                        f"the process that owned {self._store} ended while it worked on {name!r}: look whether it was done, "
                        "and ask again if it wasn't"
                    ) from error
                done = "whether it was done isn't known"
            except TimeoutError as error:
                if not scope.expired():
                    raise
                raise OwnerLostError(
                    f"the process that owns {self._store} took {name!r} on and has not answered in {self._patience:g} s; "
                    "whether it was done isn't known"
                ) from error

    def _not_there(self, ask: Ask) -> None:
        if self._ask == ask:
            self._owner_left()

    async def _owner(self, done: str) -> Ask:
        try:
            async with asyncio.timeout(self._patience):
                while self._ask is None:
                    if self._stopping.is_set():
                        raise NotRunningError("the app stops here and takes no more calls")
                    await self._found.wait()
                return self._ask
        except TimeoutError as error:
            raise OwnerLostError(
                f"nobody has owned {self._store} for {self._patience:g} s; {done}. The log of its processes says why "
                "none of them takes it over"
            ) from error

    # -- what an app asks for ----------------------------------------------------------------------------------------------

    async def send(self, events: Sequence[Outgoing]) -> list[Sent]:
        """See `Sender.send`.

        The events have their ids before they are sent, so that what an owner accepted before it died is not accepted again by
        the next. An event with an id of the sender's own is then answered as a duplicate.

        Raises:
            OwnerLostError: nobody has owned the store for a while, or the owner does not answer.
        """
        given = with_ids(events, self._ids, self._clock.now())
        return receipts(given, await self._call("send", given)) if given else []

    def send_threadsafe(self, events: Sequence[Outgoing]) -> list[Sent]:
        """See `Sender.send_threadsafe`."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            raise NotRunningError("send_sync would block the loop it waits for; use `await app.send(...)` here")
        return asyncio.run_coroutine_threadsafe(self.send(events), self._loop).result()

    async def send_signal(self, name: str, data: bytes) -> str | None:
        """See `Sender.send_signal`."""
        given: str | None = await self._call("send_signal", name, data)
        return given

    async def start(self, function: str, event: Outgoing) -> str:
        """See `Control.start`."""
        if event.id is None:
            event.id = ulid_text(self._ids.new(self._clock.now()))
        run_id: str = await self._call("start", function, event)
        return run_id

    async def result(self, run_id: str, timeout: float | None) -> bytes:
        """See `Control.result`."""
        async with asyncio.timeout(timeout):
            data: bytes = await self._call("result", run_id, None, bounded=False)
            return data

    async def run_info(self, run_id: str) -> RunInfo:
        """See `Control.run_info`."""
        info: RunInfo = await self._call("run_info", run_id)
        return info

    async def list_runs(self, **where: Any) -> AsyncIterator[RunInfo]:
        """See `Control.list_runs`."""
        for info in await self._call("list_runs", where):
            yield info

    async def cancel(self, run_id: str) -> bool:
        """See `Control.cancel`."""
        return bool(await self._call("cancel", run_id))

    async def rerun(self, run_id: str, edit: Edit | None = None) -> str:
        """See `Control.rerun`."""
        return str(await self._call("rerun", run_id, edit))

    async def redrive(self, run_id: str, edit: Edit | None = None) -> str:
        """See `Control.redrive`."""
        return str(await self._call("redrive", run_id, edit))

    async def bulk(self, action: str, where: Mapping[str, Any], *, rate: str | None = None) -> str:
        """See `Control.bulk`."""
        return str(await self._call("bulk", action, dict(where), rate))

    async def bulk_info(self, bulk_id: str) -> BulkInfo:
        """See `Control.bulk_info`."""
        info: BulkInfo = await self._call("bulk_info", bulk_id)
        return info

    async def cancel_bulk(self, bulk_id: str) -> bool:
        """See `Control.cancel_bulk`."""
        return bool(await self._call("cancel_bulk", bulk_id))


class _Switches:
    """See `FlowSwitches`."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call

    async def pause(self, slug: str, mode: str = "hold") -> None:
        await self._call("pause", slug, mode)

    async def resume(self, slug: str) -> None:
        await self._call("resume", slug)

    async def set_limit(self, slug: str, rule: str, limit: int | None) -> None:
        await self._call("set_limit", slug, rule, limit)

    async def flush(self, slug: str, key: str | None = None) -> int:
        return int(await self._call("flush", slug, key))


def with_ids(events: Sequence[Outgoing], ids: IdFactory, now: int) -> list[Outgoing]:
    """The events with internal ids."""
    given = list(events)
    for event in given:
        if event.internal_id is None:
            event.internal_id = ids.new(now)
    return given


def receipts(events: Sequence[Outgoing], sent: Sequence[Sent]) -> list[Sent]:
    """The receipts of events that got their internal ids here: only one with an id of its sender's can have come before."""
    for event, receipt in zip(events, sent, strict=True):
        receipt.duplicate = receipt.duplicate and event.id is not None
    return list(sent)

