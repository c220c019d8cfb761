"""Following one run: where it stands now, then each change, until it has ended. For pages, the API and `app.runs.watch`.

What is told is read from the store, so it is true whatever was missed. Notices say when to read; a look once in a while
finds what other nodes did, and what no notice tells, such as that a run has gone to sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from holdfast.base.errors import NotRunningError, RunNotFoundError
from holdfast.engine.host import Host
from holdfast.engine.notices import Subscription
from holdfast.store.reads import FinishedStep, RunView

LOOK_SECONDS = 2.0
"""How long nothing is heard before the run is looked at again, where no other node has a part in it."""
LOOK_AMONG_NODES_SECONDS = 0.5
INTERVAL_SECONDS = 0.1
"""The shortest time between two looks: what changes within it is one change."""
_PAGE = 500
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "SKIPPED"})


class RunChange(msgspec.Struct, frozen=True):
    """Where a run stands, and the steps that have finished since the change before."""

    run: RunView
    steps: tuple[FinishedStep, ...] = ()


async def follow(
    host: Host, run_id: str, *, after: int | None = None, quiet: float | None = None
) -> AsyncGenerator[RunChange | None, None]:
    """The run as it is, then again at each change; the last has an end.

    Args:
        host: The node that is asked.
        run_id: The run.
        after: The number of the last finished step that the reader knows of, to be told of those after it; None for those
            that finish from now on.
        quiet: Seconds without a change after which None comes, as a sign of life; None for no such signs.

    Raises:
        RunNotFoundError: there is no such run, or retention has removed it meanwhile.
        NotRunningError: the engine has stopped.
    """
    run_id = run_id.upper()
    # listening before the first look, so that no change falls between
    with host.notices.follow(run_id) as notices:
        last: RunView | None = None
        silent = 0.0
        while True:
            _refuse_stopped(host)
            view = await host.reader.run_view(run_id)
            if view is None:
                raise RunNotFoundError(f"there is no run {run_id}; it may have been removed by retention")
            after = view.steps if after is None else after
            steps = await _finished(host, run_id, after) if view.steps > after else ()
            if steps or view != last:
                yield RunChange(view, steps)
                last, silent = view, 0.0
                after = steps[-1].seq if steps else after
            if view.status in ENDED:
                return
            silent += await _next_look(host, notices)
            if quiet is not None and silent >= quiet:
                yield None
                silent = 0.0


async def _finished(host: Host, run_id: str, after: int) -> tuple[FinishedStep, ...]:
    steps: list[FinishedStep] = []
    while page := await host.reader.finished_steps(run_id, after=after, limit=_PAGE):
        steps += page
        after = page[-1].seq
        if len(page) < _PAGE:
            break
    return tuple(steps)


def _refuse_stopped(host: Host) -> None:
    if not host.running:
        raise NotRunningError("the engine stopped; the run goes on when it is started again")


async def _next_look(host: Host, notices: Subscription) -> float:
    """Wait for a notice about the run, or until it is time to look; the seconds that went by in silence."""
    shared = host.store.shared
    limit = LOOK_SECONDS if shared is None or shared.alone else LOOK_AMONG_NODES_SECONDS
    try:
        async with asyncio.timeout(limit):
            await anext(notices)
    except TimeoutError:
        return limit
    gathered: asyncio.Future[None] = host.loop.create_future()
    host.loop.call_later(INTERVAL_SECONDS, _let_go, gathered)
    await gathered
    return 0.0


def _let_go(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
