"""What the calls of one serve route share: its functions, threads, resources, and the way to the server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from hashlib import sha1
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.base.clock import Clock
from holdfast.base.codec import ResultCodec
from holdfast.base.errors import EventInvalidError, NonRetriableError, NotRunningError
from holdfast.engine.threads import Threads
from holdfast.sdk.app import App
from holdfast.sdk.callables import Callables
from holdfast.sdk.functions import Function
from holdfast.sdk.http_sender import HttpSender
from holdfast.sdk.middleware import Middleware, overrides
from holdfast.sdk.receiving import Receiver
from holdfast.sdk.sender import Outgoing, Sender, Sent
from holdfast.serve.client import ServerClient
from holdfast.serve.settings import ServeSettings

_FUNCTION_THREADS = 64
_STEP_THREADS = 32
_NO_KEY = "NO_EVENT_KEY_SET"


class Served:
    """A function of the route, with everything about it that is worked out once."""

    __slots__ = ("app", "codec", "function", "receiver", "step_wrappers", "wrappers")

    def __init__(self, app: App, function: Function[Any, Any]) -> None:
        self.app = app
        self.function = function
        self.codec = ResultCodec.of(function.result_type)
        self.receiver = Receiver(function)
        middleware: tuple[Middleware, ...] = (*app.middleware, *function.options.middleware)
        self.wrappers = [m for m in middleware if overrides(m, "around_function")]
        self.step_wrappers = [m for m in middleware if overrides(m, "around_step")]


class _Lifespan:
    """An app's lifespan on one loop. It is entered and left by a task of its own, as some context managers need it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._resources: Any = None

    async def enter(self, app: App) -> Any:
        async with self._lock:
            if self._holder is None and app.lifespan is not None:
                entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                # in a context of its own, so that it keeps nothing of the call that happened to be first
                holder = asyncio.create_task(self._hold(app.lifespan(app), entered), context=Context())
                self._resources = await entered
                self._holder = holder
        return self._resources

    async def _hold(self, lifespan: AbstractAsyncContextManager[Any], entered: asyncio.Future[Any]) -> None:
        try:
            async with lifespan as resources:
                entered.set_result(resources)
                await self._leaving.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    async def leave(self) -> None:
        async with self._lock:
            self._leaving.set()
            if self._holder is not None:
                await self._holder


class Place:
    """Where the calls of one route are executed."""

    def __init__(self, app: App, settings: ServeSettings, client: ServerClient, clock: Clock) -> None:
        self.app = app
        self.settings = settings
        self.client = client
        self.clock = clock
        self.tells_reports = True
        """False once its server has shown that it doesn't know what to do with it."""
        self.callables = Callables()
        self.threads = Threads(_STEP_THREADS, "holdfast-step")
        self.function_threads = Threads(_FUNCTION_THREADS, "holdfast-function")
        self._served: dict[str, Served] = {}
        self._lifespans: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lifespan] = WeakKeyDictionary()

    def function(self, slug: str) -> Served | None:
        """The function that a call names, by its id or a former one. Functions declared after mounting are found too."""
        served = self._served.get(slug)
        if served is None:
            prefix = f"{self.app.id}-"
            name = slug.removeprefix(prefix)
            functions = self.app.functions
            found = functions.get(name) or next((f for f in functions.values() if name in f.options.aliases), None)
            if found is None or not slug.startswith(prefix):
                return None
            served = self._served[slug] = Served(self.app, found)
        return served

    async def resources(self) -> Any:
        """What the app's lifespan yields, entered with the first call; what it opens belongs to the loop it is opened on."""
        lifespan = self._lifespans.setdefault(asyncio.get_running_loop(), _Lifespan())
        return await lifespan.enter(self.app)

    async def close(self) -> None:
        """Leave the app's lifespan on this loop. A later call enters it again."""
        lifespan = self._lifespans.pop(asyncio.get_running_loop(), None)
        if lifespan is not None:
            await lifespan.leave()

    async def send(self, events: Sequence[Outgoing], run_id: str, key: str) -> list[str]:
        """Send the events of a step: to what the app sends to here, else to the route's server."""
        try:
            sent = await self._send(events, _seed(self.clock.now(), run_id, key))
        except EventInvalidError as error:  # it will be no better the next time
            raise NonRetriableError(str(error)) from error
        return [one.id for one in sent]

    async def _send(self, events: Sequence[Outgoing], seed: str) -> list[Sent]:
        sender = self._sender()
        if not isinstance(sender, HttpSender):
            return await sender.send(events)
        try:
            return await sender.send_seeded(events, seed)
        except NotRunningError:
            # its answer may have been lost; with the same seed the events are the same, and are stored once
            return await sender.send_seeded(events, seed)

    async def send_signal(self, name: str, data: bytes) -> str | None:
        """Give a signal, to the same place; the id of the run that was resumed, if one was."""
        base = self.settings.api_url
        if self.app._senders or base is None:
            return await self.app._sender().send_signal(name, data)
        key = next(iter(self.settings.signing_keys), None)
        return await HttpSender(base, _NO_KEY, key).send_signal(name, data)

    def _sender(self) -> Sender:
        base = self.settings.event_url
        if self.app._senders or base is None:
            return self.app._sender()
        return HttpSender(base, self.settings.event_key or _NO_KEY)


def _seed(now: int, run_id: str, key: str) -> str:
    entropy = sha1(f"{run_id}:{key}".encode(), usedforsecurity=False).digest()[:10]
    return f"{now},{base64.b64encode(entropy).decode()}"
