"""`python -m examples.demo`: every example application with its dashboard and real traffic.

Plays a scenario, prints what came of it, and goes on with a trickle of traffic until Ctrl-C. With --once it stops after
the table, and exits with 1 if anything in it is off.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from .company import Company, company
from .expectations import Observation
from .inbox import BUSY, FULL, Inbox, smtp_server
from .inbox_page import inbox_app
from .landing import Board, landing_app, storefront_exhibit
from .neighbours import Place
from .observers import Api, Database, Mailbox
from .processes import AppProcess, PortTakenError, StartError, check_port
from .sabotaged import SABOTAGES
from .scenario import Sent, Stage, play
from .serving import served
from .table import print_table
from .traffic import Placed, Traffic

SECRET = "whsec_demo"  # noqa: S105 - for a shop that sells nothing
TRICKLE_SECONDS = (1.0, 4.0)
FULL_MAILBOX = "full-mailbox@example.test"
"""Whose e-mails become dead letters, to be redriven by whoever looks at the dashboard."""


@dataclass(frozen=True)
class Options:
    """What the command was called with."""

    once: bool
    sabotage: str | None
    dashboard_port: int
    shop_port: int
    inbox_port: int
    apps_port: int
    app_dashboards_port: int
    landing_port: int
    only_storefront: bool
    data: Path


def parse_options(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description="Every example application with its dashboard and real traffic."
    )
    parser.add_argument("--once", action="store_true", help="play the scenario, print the table, exit")
    parser.add_argument("--sabotage", choices=SABOTAGES, help="break something, to see that the table shows it")
    parser.add_argument("--dashboard-port", type=int, default=8288, help="dashboard and event API; default %(default)s")
    parser.add_argument("--shop-port", type=int, default=8000, help="default %(default)s")
    parser.add_argument("--inbox-port", type=int, default=8025, help="the inbox's page; default %(default)s")
    parser.add_argument(
        "--apps-port", type=int, default=8001, help="catalogue, studio and inbox, from here on; default %(default)s"
    )
    parser.add_argument(
        "--app-dashboards-port", type=int, default=8289, help="and their dashboards; default %(default)s"
    )
    parser.add_argument("--landing-port", type=int, default=8080, help="the page to begin with; default %(default)s")
    parser.add_argument("--only-storefront", action="store_true", help="leave the other applications out")
    parser.add_argument(
        "--data", type=Path, default=Path(".holdfast/demo"), help="default %(default)s; --once empties it"
    )
    given = parser.parse_args(arguments)
    given.data = given.data.resolve()
    return Options(**vars(given))


@dataclass
class Demo:
    """Everything that runs."""

    options: Options
    console: Console
    inbox: Inbox
    storefront: AppProcess
    shop: httpx.AsyncClient
    server: httpx.AsyncClient
    page: httpx.AsyncClient
    company: Company | None
    board: Board

    async def play(self) -> bool:
        """Play the scenario and print what came of it; whether all expectations hold."""
        traffic = Traffic(self.shop, SECRET)
        restart = self.options.sabotage != "server-killed"
        api = Api(self.server)
        sent = await play(Stage(traffic, self.inbox, self.storefront, api, self._tell, restart=restart))
        if self.company is not None:
            # after the storefront's, whose answers are timed: five processes are a lot for two cores
            self._tell("catalogue, studio and inbox")
            await self.company.play()
        return await self._report(sent, traffic, api)

    async def _report(self, sent: Sent, traffic: Traffic, api: Api) -> bool:
        database = Database(self.options.data / "storefront.db")
        seen = Observation(sent, api, Mailbox(self.page), database, traffic.slowest, traffic.answered)
        rows = await seen.rows() + (await self.company.rows() if self.company else [])
        self.board.rows = rows
        print_table(self.console, rows)
        return all(row.holds for row in rows)

    async def trickle(self) -> None:
        """Send a little of everything until it is cancelled."""
        traffic = Traffic(self.shop, SECRET)
        paid: list[Placed] = []
        for number in range(sys.maxsize):
            # every now and then the mail server has a bad moment, and one customer's mailbox is full half of the time
            self.inbox.refusal = BUSY if number % 20 == 19 else None
            self.inbox.rejected = {FULL_MAILBOX: FULL} if number % 30 < 15 else {}
            with contextlib.suppress(httpx.HTTPError):
                await self._one(traffic, paid, number)
            if self.company is not None:
                await self.company.trickle(number)
            await asyncio.sleep(random.uniform(*TRICKLE_SECONDS))

    async def _one(self, traffic: Traffic, paid: list[Placed], number: int) -> None:
        choice = random.random()
        if choice < 0.2:
            await traffic.sign_up(f"visitor-{number}-{random.randrange(10**6)}@example.test", "Visitor")
        elif choice < 0.3 and paid:
            await traffic.refund(paid.pop(), "changed their mind")
        else:
            email = FULL_MAILBOX if 0.3 < choice < 0.36 else f"customer-{number}@example.test"
            order = await traffic.place_order(email, random.choice(["mug", "poster"]))
            answer = await traffic.pay(order)
            paid.append(order)
            if choice > 0.95:
                await traffic.pay(order, answer.event_id)

    def _tell(self, text: str) -> None:
        self.console.print(text, style="dim" if text.startswith(" ") else "", highlight=False)


@asynccontextmanager
async def running(options: Options, console: Console) -> AsyncIterator[Demo]:
    """Everything, up and answering.

    Raises:
        PortTakenError: a port is in use.
        StartError: the storefront did not come up.
    """
    check_port(options.dashboard_port, "the dashboard", "--dashboard-port")
    check_port(options.shop_port, "the shop", "--shop-port")
    check_port(options.inbox_port, "the inbox", "--inbox-port")
    check_port(options.landing_port, "the page to begin with", "--landing-port")
    if options.once:
        shutil.rmtree(options.data, ignore_errors=True)
    options.data.mkdir(parents=True, exist_ok=True)
    inbox, board = Inbox(), Board()
    async with (
        smtp_server(inbox) as smtp_port,
        served(inbox_app(inbox), options.inbox_port) as inbox_url,
        served(landing_app(board), options.landing_port) as landing_url,
    ):
        storefront = _storefront(options, smtp_port)
        await storefront.start()
        clients = [
            httpx.AsyncClient(base_url=url, timeout=10) for url in (storefront.url, storefront.dashboard_url, inbox_url)
        ]
        console.print(f"begin here {landing_url}", style="bold", highlight=False)
        console.print(
            f"dashboard  {storefront.dashboard_url}\ninbox      {inbox_url}\nshop       {storefront.url}/docs",
            highlight=False,
        )
        board.exhibits.append(storefront_exhibit(storefront.url, storefront.dashboard_url, inbox_url))
        try:
            async with AsyncExitStack() as stack:
                others = None
                if not options.only_storefront:
                    place = Place(options.data, options.apps_port, options.app_dashboards_port)
                    others = await stack.enter_async_context(company(place, inbox, smtp_port))
                    console.print("\n".join(others.addresses()), highlight=False)
                    board.exhibits.extend(others.exhibits(inbox_url))
                shop, server, page = clients
                yield Demo(options, console, inbox, storefront, shop, server, page, others, board)
        finally:
            for client in clients:
                await client.aclose()
            await storefront.stop()


def _storefront(options: Options, smtp_port: int) -> AppProcess:
    broken = options.sabotage in {"mail-step", "idempotency"}
    return AppProcess(
        port=options.shop_port,
        dashboard_port=options.dashboard_port,
        environ={
            "DATABASE_URL": f"sqlite+aiosqlite:///{options.data / 'storefront.db'}",
            "HOLDFAST_STORE": f"sqlite:///{options.data / 'holdfast.db'}",
            "SMTP_PORT": str(smtp_port),
            "MAIL_FROM": "Riqle <shop@riqle.example>",
            "MAIL_TIMEOUT": "5",
            "PAYMENT_WEBHOOK_SECRET": SECRET,
        },
        log=options.data / "storefront.log",
        module=("examples.demo.sabotaged", str(options.sabotage)) if broken else ("examples.storefront",),
    )


async def run(options: Options, console: Console) -> int:
    """Run the demo; the exit status."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        async with running(options, console) as demo:
            holds = await demo.play()
            if options.once:
                return 0 if holds else 1
            console.print(
                f"a trickle of traffic goes on; some of it ends in {demo.storefront.dashboard_url}/dead-letters, "
                "to be redriven. Ctrl-C ends it"
            )
            await demo.trickle()
    except asyncio.CancelledError:
        console.print("stopped")
        return 130 if options.once else 0
    except (PortTakenError, StartError) as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        return 2
    return 0


def main() -> int:
    console = Console()
    # a log or a pipe has no width of its own; wrapped rows would be hard to read
    return asyncio.run(run(parse_options(), console if console.is_terminal else Console(width=160)))


if __name__ == "__main__":
    sys.exit(main())
