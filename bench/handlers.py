"""`python -m bench.handlers`: how soon requests that enqueue are answered, of three example applications as they run.

Each is a process of its own with its engine in it, 100,000 items queued, and two step bodies that compute all the time;
20 requests at once. The bar is 50 ms at p50 and 500 ms at p99. Options: `--quick` for a tenth of the requests and 10,000
messages instead of a million, `--only storefront`, `--idle` for the same without anything queued.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from examples.demo.inbox import Inbox, smtp_server
from examples.demo.outside import Outside
from examples.demo.processes import AppProcess, free_port
from examples.demo.redis_server import redis_running
from examples.demo.serving import served
from examples.storefront.webhook import sign

AT_ONCE = 20
QUEUED = 100_000
BATCH = 1000
BAR_P50, BAR_P99 = 50.0, 500.0

Ask = Callable[[int], Awaitable[None]]


@dataclass
class Place:
    """An application that runs."""

    process: AppProcess
    http: aiohttp.ClientSession
    folder: Path
    outside_url: str

    async def queue(self, count: int) -> None:
        """So many items that wait."""
        for first in range(0, count, BATCH):
            events = [{"name": "bench/burn", "data": {"n": n}} for n in range(first, min(first + BATCH, count))]
            async with self.http.post(f"{self.process.dashboard_url}/e/bench", json=events) as answer:
                assert answer.status == 200, await answer.text()

    async def waiting(self) -> int:
        """How many of them still do."""
        async with self.http.get(f"{self.process.dashboard_url}/metrics") as answer:
            found = re.search(r'^holdfast_backlog\{[^}]*burn"[^}]*\} ([0-9.e+]+)', await answer.text(), re.MULTILINE)
        return round(float(found[1])) if found else 0


# -- what is asked ---------------------------------------------------------------------------------------------------


async def storefront(place: Place, _messages: int) -> Ask:
    """The payment provider's webhook."""

    async def ask(n: int) -> None:
        subject = {"metadata": {"orderId": f"order_{n}"}, "customer_details": {"email": "ada@example.test"}}
        event = {"id": f"evt_{n}", "type": "checkout.session.completed", "data": {"object": subject}}
        payload = json.dumps(event).encode()
        headers = {"Stripe-Signature": sign(payload, "whsec_development", int(time.time()))}
        async with place.http.post(f"{place.process.url}/webhooks/payment", data=payload, headers=headers) as answer:
            assert answer.status == 200, await answer.text()

    return ask


async def catalogue(place: Place, _messages: int) -> Ask:
    """The form that starts an import."""

    async def form(path: str) -> str:
        async with place.http.get(place.process.url + path) as answer:
            found = re.search(r'name="form" value="([^"]+)"', await answer.text())
        assert found
        return found[1]

    account = {"email": "noura@example.test", "password": "catalogue"}
    async with place.http.post(f"{place.process.url}/login", data={**account, "form": await form("/login")}) as answer:
        assert answer.status == 200
    token = await form("/import")

    async def ask(n: int) -> None:
        data = {"url": f"{place.outside_url}/oud?n={n}", "form": token}
        async with place.http.post(f"{place.process.url}/import", data=data, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()

    return ask


async def inbox(place: Place, messages: int) -> Ask:
    """The cron endpoint, over so many messages."""
    with sqlite3.connect(place.folder / "app.db", timeout=60) as database:
        database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
            "INSERT INTO messages (client_id, sender, subject, status, created_at) "
            "SELECT 'c' || (i % 20), 'x', 'y', 'unread', '2026-01-01 00:00:00' FROM n",
            [messages],
        )
    database.close()

    async def ask(n: int) -> None:
        url = f"{place.process.url}/api/cron/background-jobs"
        async with place.http.post(url, params={"requestId": f"r{n}"}) as answer:
            assert answer.status == 202, await answer.text()

    return ask


APPS = {"storefront": storefront, "catalogue": catalogue, "inbox": inbox}


# -- measuring -------------------------------------------------------------------------------------------------------


async def measure(ask: Ask, requests: int) -> list[float]:
    """Milliseconds of each request, sorted; always so many at once."""
    times: list[float] = []
    numbers = iter(range(requests))

    async def caller() -> None:
        for n in numbers:
            began = time.perf_counter()
            await ask(n)
            times.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return sorted(times)


@asynccontextmanager
async def running(name: str, folder: Path) -> AsyncIterator[Place]:
    """An application with its outside world. The mail server takes nothing, so that confirmations wait as well."""
    mail = Inbox(refusal="451 4.3.2 out of order")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(Outside().app()))
        smtp = await stack.enter_async_context(smtp_server(mail))
        process = AppProcess(
            port=free_port(),
            dashboard_port=free_port(),
            environ={
                "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/app.db",
                "HOLDFAST_STORE": f"sqlite:///{folder}/holdfast.db",
                "SMTP_PORT": str(smtp),
                "IMPORT_PLATFORMS": f"Local={url.removeprefix('http://')}",
                "TEXT_MODEL_URL": f"{url}/v1",
                "REDIS_URL": stack.enter_context(redis_running()),
                "BACKGROUND_JOBS_USE_INNGEST": "true",
            },
            log=folder / "app.log",
            module=("bench.burning", name),
        )
        await process.start()
        stack.push_async_callback(process.kill)  # a hundred thousand items are not waited for
        timeout, jar = aiohttp.ClientTimeout(total=300), aiohttp.CookieJar(unsafe=True)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, cookie_jar=jar))
        yield Place(process, http, folder, url)


async def row(name: str, folder: Path, *, queued: int, requests: int, messages: int) -> bool:
    """Measure one application and print the row; whether it is below the bar."""
    async with running(name, folder) as place:
        ask = await APPS[name](place, messages)
        await place.queue(queued)
        times = await measure(ask, requests)
        left = await place.waiting()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    said = f"p50 {p50:7.1f} ms   p99 {p99:7.1f} ms   longest {times[-1]:7.1f} ms"
    print(f"{name:12} {requests:,} requests, {AT_ONCE} at once, {left:,} waiting:  {said}   bar {BAR_P50:g} and {BAR_P99:g} ms", flush=True)
    return p50 <= BAR_P50 and p99 <= BAR_P99


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.handlers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests, 10,000 messages")
    parser.add_argument("--idle", action="store_true", help="nothing queued, nothing that computes")
    parser.add_argument("--only", choices=sorted(APPS), help="one application")
    parser.add_argument("--dir", default=".", help="where the databases are written (default: here, on a real disk)")
    options = parser.parse_args()
    requests, messages = (400, 10_000) if options.quick else (4000, 1_000_000)
    below = []
    for name in [options.only] if options.only else list(APPS):
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir) as folder:
            where = Path(folder).resolve()
            queued = 0 if options.idle else QUEUED
            below.append(asyncio.run(row(name, where, queued=queued, requests=requests, messages=messages)))
    raise SystemExit(0 if all(below) else 1)


if __name__ == "__main__":
    main()
