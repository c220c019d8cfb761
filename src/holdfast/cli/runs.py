"""`holdfast runs`."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import quote

import click
import msgspec
from rich.console import RenderableType
from rich.live import Live

from holdfast.base.clock import SystemClock
from holdfast.cli.api import ServerApi, signing_key_option, url_option
from holdfast.cli.api_objects import History, Run
from holdfast.cli.console import out
from holdfast.cli.run_tables import history_view, runs_table

STATUSES = ("QUEUED", "RUNNING", "WAITING", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED")

T = TypeVar("T")
_REFRESH_SECONDS = 1.0
_PAUSE = threading.Event()
"""Never set: waiting for it is a pause that Ctrl-C ends."""
_PAGE = 100


@click.command("runs")
@click.argument("run_id", required=False)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(STATUSES, case_sensitive=False),
    help="Only runs that are there now. May be repeated.",
)
@click.option("--function", metavar="ID", help="Only runs of this function: fulfil, or shop-fulfil.")
@click.option("--event", metavar="NAME", help="Only runs that this event started.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@click.option("--watch", is_flag=True, help="Keep the list up to date until Ctrl-C; a single run, until it has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON as the API answers it.")
@url_option
@signing_key_option
def command(
    run_id: str | None,
    statuses: tuple[str, ...],
    function: str | None,
    event: str | None,
    limit: int,
    watch: bool,
    as_json: bool,
    url: str,
    signing_key: str | None,
) -> None:
    """List runs, or show one with its steps.

    Without RUN_ID the newest are listed first. A run is one execution of a function for one event. WAITING runs sleep,
    or wait for an event; nothing executes for them meanwhile. A FAILED run is also a dead letter, which
    `holdfast redrive` runs again.

    \b
      holdfast runs
      holdfast runs --status FAILED --function fulfil
      holdfast runs --watch
      holdfast runs 01JB8Z5T2M6W0Q4X9C3V7N1K8R
    """  # noqa: D301
    api = ServerApi(url, signing_key)
    if run_id is not None:
        _one(api, run_id, watch=watch, as_json=as_json)
        return
    where = {"status": [status.upper() for status in statuses], "function": function, "event": event}
    if as_json:
        click.echo(msgspec.json.encode(list_runs(api, msgspec.Raw, where, limit)))
    elif watch:
        _follow_list(lambda: list_runs(api, Run, where, limit))
    else:
        found = list_runs(api, Run, where, limit)
        if found:
            out().print(runs_table(found, _now()))
        else:
            click.echo(_nothing(narrowed=any(where.values())), err=True)


def list_runs(api: ServerApi, kind: type[T], where: Mapping[str, Any], limit: int) -> list[T]:
    """Up to `limit` runs, newest first, page by page."""
    found: list[T] = []
    cursor: str | None = None
    while len(found) < limit:
        size = min(_PAGE, limit - len(found))
        page = api.get("/v1/runs", list[kind], **where, limit=size, cursor=cursor)  # type: ignore[valid-type]
        found += page.data
        cursor = page.metadata.next_cursor
        if cursor is None:
            break
    return found


def _one(api: ServerApi, run_id: str, *, watch: bool, as_json: bool) -> None:
    path = f"/v1/runs/{quote(run_id, safe='')}/steps"

    if as_json:
        click.echo(msgspec.json.encode(api.get(path, msgspec.Raw).data))
    elif watch:
        _follow_one(lambda: api.get(path, History).data)
    else:
        out().print(history_view(api.get(path, History).data, _now()))


def _follow_list(read: Callable[[], list[Run]]) -> None:
    with _view() as show:
        while True:
            runs = read()
            show(runs, runs_table(runs, _now()))
            if _nobody_reads():
                return
            _PAUSE.wait(_REFRESH_SECONDS)


def _follow_one(read: Callable[[], History]) -> None:
    with _view() as show:
        history = read()
        while not history.run.ended:
            show([history.run], history_view(history, _now()))
            _PAUSE.wait(_REFRESH_SECONDS)
            history = read()
        show([history.run], history_view(history, _now()))
    if not out().is_terminal:
        out().print(history_view(history, _now()))


@contextmanager
def _view() -> Iterator[Callable[[Sequence[Run], RenderableType], None]]:
    """Shows what is given to it: in place on a terminal, as a line for each change elsewhere; Ctrl-C ends it."""
    with suppress(KeyboardInterrupt):
        if out().is_terminal:
            with Live(console=out(), auto_refresh=False, vertical_overflow="visible") as live:
                yield lambda _runs, view: live.update(view, refresh=True)
        else:
            known: dict[str, str] = {}
            yield lambda runs, _view: _print_changes(runs, known)


def _nobody_reads() -> bool:
    """Whether the program that our output goes to has ended; without a change to print, no write would tell."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _print_changes(runs: Sequence[Run], known: dict[str, str]) -> None:
    for run in reversed(runs):
        line = f"{run.run_id}  {run.status.upper():<9}  {run.function}  {run.error or ''}".rstrip()
        if known.get(run.run_id) != line:
            known[run.run_id] = line
            click.echo(line)


def _now() -> int:
    return SystemClock().now()


def _nothing(*, narrowed: bool) -> str:
    if narrowed:
        return "No run matches. `holdfast runs` lists all."
    return 'No runs yet. Send an event: holdfast send shop/order.paid \'{"order_id": "o1"}\''
