"""Asking applications to register: at start, and again so that changes of their code are seen (protocol section 1.3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import aiohttp
import msgspec

from holdfast.base.errors import AddressRefusedError
from holdfast.base.findings import Finding, Level, wrong
from holdfast.engine.engine import Engine
from holdfast.server.settings import ServerSettings
from holdfast.wire import headers as h
from holdfast.wire.canonical import canonicalise
from holdfast.wire.diagnosis import Seen, Silence, diagnose_sync, no_answer
from holdfast.wire.signatures import sign

_log = logging.getLogger("holdfast")
_TIMEOUT_SECONDS = 10.0
_MAX_REDIRECTS = 5
_MAX_ANSWER = 65536
ENDPOINT_PORTS = (3000, 3001, 3002, 3003, 3004, 3005, 3006, 4321, 5000, 5173, 5999, 8000, 8080, 8081, 8787, 8888, 9000)
"""Ports on which development servers usually are."""
ENDPOINT_PATHS = ("/api/inngest", "/x/inngest", "/.netlify/functions/inngest", "/.redwood/functions/inngest")


class Asker:
    """Asks serve routes to register, and keeps with the engine what went wrong.

    Args:
        engine: Where they register.
        settings: The server's.
    """

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self._engine = engine
        self._settings = settings

    async def sync(self, url: str) -> Finding:
        """Ask one serve route now, and note what came of it."""
        finding = await self.ask(url)
        await self._engine.applications.asked(url, finding)
        return finding

    async def ask(self, url: str) -> Finding:
        """Ask one serve route to register; what came of it."""
        body = canonicalise(msgspec.json.encode({"url": url}))
        headers = {"Content-Type": "application/json", h.SERVER_KIND: self._settings.kind}
        if self._settings.signing_key and self._settings.mode == "start":
            headers[h.SIGNATURE] = sign(body, self._settings.signing_key, self._engine.clock.now())
        try:
            return diagnose_sync(await self._put(url, body, headers))
        except AddressRefusedError as error:
            return wrong("address", error.problem, f"{error.remedy[0].upper()}{error.remedy[1:]}.")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return no_answer(url, _silence(error), str(error) or type(error).__name__, _TIMEOUT_SECONDS)

    async def _put(self, url: str, body: bytes, headers: dict[str, str]) -> Seen:
        """Ask; redirects that keep the method are followed, others tell of a wall or a wrong address."""
        request = self._engine.outbound.request(
            "PUT", url, data=body, headers=headers, seconds=_TIMEOUT_SECONDS, redirects=_MAX_REDIRECTS,
            following=frozenset({307, 308}), same_request=True,
        )  # fmt: skip
        async with request as response:
            return Seen(
                str(response.url),
                response.status,
                {name.lower(): value for name, value in response.headers.items()},
                await response.content.read(_MAX_ANSWER),
                "PUT",
            )


class Syncing:
    """Pings serve routes, so that they register with this server.

    Args:
        engine: Where they register.
        settings: The server's.
        urls: The addresses of serve routes.
        every: Seconds between two rounds; 0 asks those again that could not be reached, and nobody else.
        discover: Whether to look for serve routes on the usual ports of this machine as well.
    """

    def __init__(
        self, engine: Engine, settings: ServerSettings, urls: Sequence[str], *, every: float, discover: bool = False
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._asker = Asker(engine, settings)
        self._urls = list(dict.fromkeys(urls))
        self._every = every
        self._discover = discover
        self._failing: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        if self._urls or self._discover:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        first = True
        while True:
            wanted = self._urls if first or self._every else list(self._failing)
            await asyncio.gather(*(self._ping(url) for url in wanted))
            if self._discover and self._settings.mode != "start":
                await self._look_around()
            first = False
            await asyncio.sleep(self._every or 5.0)

    async def _ping(self, url: str) -> None:
        finding = await self._asker.sync(url)
        problem = None if finding.level is Level.FINE else finding.sentence
        if problem is None:
            if self._failing.pop(url, None) is not None:
                _log.info("%s has been synced", url)
        elif self._failing.get(url) != problem:
            _log.warning("%s could not be synced: %s", url, problem)
            self._failing[url] = problem

    async def _look_around(self) -> None:
        own = self._settings.port
        known = set(self._urls) | {record.url for record in self._engine.applications.apps.values()}
        ports = [port for port in ENDPOINT_PORTS if port != own and await _open(port)]
        for port in ports:
            for path in ENDPOINT_PATHS:
                url = f"http://localhost:{port}{path}"
                if url in known or f"http://127.0.0.1:{port}{path}" in known:
                    break
                if await self._is_sdk(url):
                    _log.info("found an application at %s", url)
                    self._urls.append(url)
                    await self._ping(url)
                    break

    async def _is_sdk(self, url: str) -> bool:
        request = self._engine.outbound.request(
            "GET", url, data=None, headers={}, seconds=_TIMEOUT_SECONDS, redirects=_MAX_REDIRECTS
        )
        try:
            async with request as response:
                return h.SDK in response.headers and response.status < 500
        except (AddressRefusedError, aiohttp.ClientError, TimeoutError, OSError):
            return False


def _silence(error: BaseException) -> Silence:
    if isinstance(error, TimeoutError):
        return Silence.TIMED_OUT
    if isinstance(error, aiohttp.ClientSSLError):
        return Silence.TLS
    refused = isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError)
    return Silence.REFUSED if refused else Silence.OTHER


async def _open(port: int) -> bool:
    try:
        async with asyncio.timeout(0.2):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
