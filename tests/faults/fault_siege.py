"""An application under siege: its processes are killed in the middle of their work and started again, while customers go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from examples.demo.inbox import Inbox  # noqa: E402
from examples.demo.waiting import until  # noqa: E402

T = TypeVar("T")
MOMENTS = ("asked", "done", "answered", "random", "random")
"""When a process is killed: the outside world was asked, has acted and not answered, has just answered; or any time."""
PATIENCE = 180.0
"""Seconds for whatever must come true at last."""


class Victim(Protocol):
    """A process that can be killed and started."""

    @property
    def pid(self) -> int: ...
    async def start(self) -> None: ...
    async def kill(self) -> None: ...


class Tripwire:
    """Strikes at the n-th time that the outside world gets to a moment."""

    def __init__(self) -> None:
        self._moment = ""
        self._left = 0
        self._strike: Callable[[], None] | None = None

    def arm(self, moment: str, nth: int, strike: Callable[[], None]) -> None:
        self._moment, self._left, self._strike = moment, nth, strike

    def disarm(self) -> None:
        self._strike = None

    def crossed(self, moment: str) -> None:
        """The outside world has got to this moment."""
        if self._strike is None or moment != self._moment:
            return
        self._left -= 1
        if self._left == 0:
            strike, self._strike = self._strike, None
            strike()


def wired(app: Any, tripwire: Tripwire) -> Any:
    """A web application of the outside world, with the wire across its requests."""

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        tripwire.crossed("asked")

        async def watched_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                tripwire.crossed("done")
            await send(message)

        await app(scope, receive, watched_send)
        tripwire.crossed("answered")

    return watched


class WiredInbox(Inbox):
    """A mail server with the wire across its mails."""

    def __init__(self, tripwire: Tripwire) -> None:
        super().__init__()
        self.tripwire = tripwire

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.tripwire.crossed("asked")
        answer = await super().handle_DATA(server, session, envelope)
        self.tripwire.crossed("done")
        asyncio.get_running_loop().call_later(0.002, self.tripwire.crossed, "answered")
        return answer


class HoldfastProcess:
    """`holdfast dev` as a process of its own, that calls an application over HTTP."""

    def __init__(self, port: int, folder: Path, route: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            sys.executable, "-m", "holdfast", "dev", "-u", route, "--port", str(port), "--store", f"sqlite:///{folder}/server.db",
            "--no-reload", "--no-discovery", "--retry-interval", "1",
        ]  # fmt: skip
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("INNGEST_", "HOLDFAST_"))}
        self._environ = {**clean, "PYTHONPATH": str(ROOT / "src")}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it has not been started"
        return self._process.pid

    async def start(self) -> None:
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        assert await until(self._answers, PATIENCE), self.words()

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    async def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.words()
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            try:
                functions = await client.get(f"{self.url}/v1/functions")
            except httpx.TransportError:
                return False
        # an event that comes before the application has registered starts nothing
        return functions.status_code == 200 and bool(functions.json()["data"])

    def words(self) -> str:
        """The end of what it printed."""
        return (self._folder / "server.log").read_text(errors="replace")[-3000:]


async def insist(ask: Callable[[], Awaitable[httpx.Response]]) -> Any:
    """Ask until there is an answer, as whoever wants something done does; its JSON."""
    while True:
        try:
            answer = await ask()
        except httpx.TransportError:
            await asyncio.sleep(0.03)
            continue
        if answer.status_code == 503:  # too much at once, says the application
            await asyncio.sleep(0.1)
            continue
        assert answer.status_code < 400, (str(answer.request.url), answer.status_code, answer.text)
        return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer


class Siege:
    """The kills, and the customers who don't mind."""

    def __init__(self, victims: list[Victim], tripwire: Tripwire, chosen: random.Random) -> None:
        self._victims = victims
        self._tripwire = tripwire
        self._chosen = chosen
        self.hits: list[str] = []
        """At which moments there was a kill."""

    async def kill(self) -> None:
        """One process dies at some moment, and is started again."""
        victim, moment = self._chosen.choice(self._victims), self._chosen.choice(MOMENTS)
        struck = asyncio.Event()

        def strike() -> None:
            os.kill(victim.pid, signal.SIGKILL)
            struck.set()

        if moment != "random":
            self._tripwire.arm(moment, self._chosen.randint(1, 6), strike)
            try:
                await asyncio.wait_for(struck.wait(), 3)
            except TimeoutError:
                moment += ", missed"
                self._tripwire.disarm()
        else:
            await asyncio.sleep(self._chosen.uniform(0.02, 0.6))
        if not struck.is_set():
            strike()
        await victim.kill()
        self.hits.append(moment)
        await victim.start()

    async def withstand(self, kills: int, act: Callable[[int], Awaitable[None]], customers: int = 3, acts: int = 6) -> None:
        """So many kills while customers act, and go on until each has acted at least so often."""
        over = asyncio.Event()

        async def customer(number: int) -> None:
            done = 0
            while done < acts or not over.is_set():
                await act(number)
                done += 1
                await asyncio.sleep(self._chosen.uniform(0.02, 0.4))

        async def attack() -> None:
            for _ in range(kills):
                await self.kill()
            over.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(attack())
            for number in range(customers):
                tasks.create_task(customer(number))


class Server:
    """What the REST API of a server says; it is asked until it answers."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def all(self, path: str, **where: str) -> list[dict[str, Any]]:
        """All pages of a list, in the order of the API."""
        found: list[dict[str, Any]] = []
        where = {"limit": "50", **where}
        while True:
            answer = await insist(lambda: self.client.get(path, params=where))
            found += answer["data"]
            cursor = answer["metadata"].get("next_cursor")
            if not cursor:
                return found
            where["cursor"] = cursor

    async def runs(self, **where: str) -> list[dict[str, Any]]:
        """Runs with their outputs."""
        return [await self.run(run["run_id"]) for run in await self.all("/v1/runs", **where)]

    async def run(self, run_id: str) -> dict[str, Any]:
        """One run with its output."""
        return (await insist(lambda: self.client.get(f"/v1/runs/{run_id}")))["data"]

    async def send(self, name: str, event_id: str, data: dict[str, Any]) -> Any:
        """Send an event from outside, until it is accepted."""
        body = {"name": name, "data": data, "id": event_id}
        return await insist(lambda: self.client.post("/e/siege", json=body))

    async def redrive_killed(self, *errors: str) -> list[str]:
        """Redrive the dead letters that the kills are to blame for, as an operator would; what the others say."""
        others = []
        for letter in await self.all("/v1/dead-letters", state="dead"):
            run = await self.run(letter["run_id"])
            if any(error in str(run["error"]) for error in errors):
                await insist(lambda run=run: self.client.post(f"/v1/runs/{run['run_id']}/redrive"))
            else:
                others.append(f"{run['function']}: {run['error']}")
        return others
