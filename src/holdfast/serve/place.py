"""What the calls of one serve route share: its functions, threads, resources, and the way to the server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from contextlib import AsyncExitStack
from hashlib import sha1
from typing import Any
from weakref import WeakKeyDictionary

from holdfast.base.clock import Clock
from holdfast.base.codec import ResultCodec
from holdfast.base.ids import ulid_bytes, ulid_ms
from holdfast.engine.threads import Threads
from holdfast.sdk.app import App
from holdfast.sdk.callables import Callables
from holdfast.sdk.functions import Function
from holdfast.sdk.http_sender import HttpSender
from holdfast.sdk.middleware import Middleware, overrides
from holdfast.sdk.receiving import Receiver
from holdfast.sdk.sender import Outgoing
from holdfast.serve.client import ServerClient
from holdfast.serve.settings import ServeSettings

_FUNCTION_THREADS = 64
_STEP_THREADS = 32


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
    """An app's lifespan on one loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._stack: AsyncExitStack | None = None
        self._resources: Any = None

    async def enter(self, app: App) -> Any:
        async with self._lock:
            if self._stack is None:
                stack = AsyncExitStack()
                if app.lifespan is not None:
                    self._resources = await stack.enter_async_context(app.lifespan(app))
                self._stack = stack
        return self._resources

    async def leave(self) -> None:
        async with self._lock:
            stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()


class Place:
    """Where the calls of one route are executed."""

    def __init__(self, app: App, settings: ServeSettings, client: ServerClient, clock: Clock) -> None:
        self.app = app
        self.settings = settings
        self.client = client
        self.clock = clock
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
        """Send the events of a step: to what the app sends to here, else to the route's server.

        A step that is tried again because its answer was lost sends the same events with the same internal ids.
        """
        sender = self._sender()
        if isinstance(sender, HttpSender):
            sent = await sender.send_seeded(events, _seed(run_id, key))
        else:
            sent = await sender.send(events)
        return [one.id for one in sent]

    def _sender(self) -> Any:
        if self.app._senders or self.settings.event_url is None:
            return self.app._sender()
        return HttpSender(self.settings.event_url, self.settings.event_key or "NO_EVENT_KEY_SET")


def _seed(run_id: str, key: str) -> str:
    try:
        ms = ulid_ms(ulid_bytes(run_id))
    except ValueError:  # a server whose run ids are no ULIDs
        ms = 0
    entropy = sha1(f"{run_id}:{key}".encode(), usedforsecurity=False).digest()[:10]
    return f"{ms},{base64.b64encode(entropy).decode()}"
