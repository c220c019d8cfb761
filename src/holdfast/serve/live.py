"""A run's status on an application's own page, live: the application checks who asks, this streams what becomes of the run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import StreamingResponse

from holdfast.base.clock import iso, monotonic
from holdfast.base.errors import NotRunningError, RunNotFoundError
from holdfast.sdk.sender import RunInfo

PING_SECONDS = 10.0
"""Silence after which a comment keeps proxies from closing the connection."""


def public_status(run: RunInfo) -> dict[str, Any]:
    """What may be shown of a run to the person it is for: how it stands and how far it is, no error text and no ids."""
    progress = run.progress
    return {
        "status": run.status,
        "ended": run.ended,
        "progress": None if progress is None else {"fraction": progress.fraction, "text": progress.text},
        "startedAt": iso(run.started_at),
        "finishedAt": iso(run.ended_at),
        "failedBefore": run.error is not None,
    }


def stream_run(
    runs: AsyncIterator[RunInfo],
    *,
    document: Callable[[RunInfo], Mapping[str, Any]] = public_status,
    seconds: float = 15.0,
) -> StreamingResponse:
    """Server-sent events named `run`: where a run stands, then each change, until it has ended.

    ```python
    @web.get("/jobs/{job_id}/live")
    async def live(job: Annotated[Job, Depends(job_of_user)]) -> Response:   # refuses whoever may not see it
        return stream_run(app.runs.watch(job.run_id))
    ```

    Args:
        runs: What `app.runs.watch` gives.
        document: What of each state the page gets, as JSON; by default nothing that only developers should see.
        seconds: After this the connection is closed and the browser opens another: a server that is to stop waits for
            open ones, and somebody whose access has ended is asked again.
    """
    return StreamingResponse(
        _messages(runs, document, seconds),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _messages(
    runs: AsyncIterator[RunInfo], document: Callable[[RunInfo], Mapping[str, Any]], seconds: float
) -> AsyncIterator[bytes]:
    until = monotonic() + seconds
    upcoming: asyncio.Task[RunInfo | None] | None = None
    yield b"retry: 1000\n\n"
    try:
        while (left := until - monotonic()) > 0:
            upcoming = upcoming or asyncio.ensure_future(_next(runs))
            await asyncio.wait({upcoming}, timeout=min(left, PING_SECONDS))
            if not upcoming.done():
                yield b": ping\n\n"
                continue
            run, upcoming = upcoming.result(), None
            if run is None:
                return
            yield b"event: run\ndata: " + json.dumps(dict(document(run)), ensure_ascii=False).encode() + b"\n\n"
    finally:
        if upcoming is not None:
            upcoming.cancel()
            with suppress(asyncio.CancelledError):
                await upcoming
        close = getattr(runs, "aclose", None)
        if close is not None:
            await close()


async def _next(runs: AsyncIterator[RunInfo]) -> RunInfo | None:
    """The next state; None when nothing more can be told: it has ended, was removed, or the engine stops."""
    try:
        return await anext(runs, None)
    except (RunNotFoundError, NotRunningError):
        return None
