"""The durable functions. A finished step is on disk and is not run again, whatever happens to the steps after it."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from examples.common.environment import Reader
from holdfast import (
    AlertRaised,
    AlertResolved,
    Alerts,
    Backoff,
    Concurrency,
    Context,
    Cron,
    CronTick,
    Function,
    FunctionFailed,
    Idempotency,
)

from .background import dirty_clients, recompute_events
from .client import app
from .events import AggregatesRecompute, CountsDirty, CountsRecompute, ProcessRequested
from .messages import Counted
from .resources import Inbox
from .settings import read_limits

LIMITS = read_limits(Reader(os.environ))
BACKOFF = Backoff.exponential(base=timedelta(seconds=1), factor=2, cap=timedelta(minutes=1))
ONE_PER_CLIENT = Concurrency(1, key="event.data.clientId")
ALERTS = Alerts(backlog=LIMITS.backlog_alert, dead_letters=1)


async def note_failure(ctx: Context[FunctionFailed]) -> None:
    """The log of what has failed for good."""
    failed = ctx.event.data
    inbox: Inbox = ctx.resources
    client_id = failed.event["data"].get("clientId")
    ctx.logger.error("%s has failed for good: %s", failed.function_id, failed.error["message"])
    await ctx.step.run(
        "log", inbox.messages.note_failure, failed.run_id, failed.function_id, client_id, failed.error["message"]
    )


# -- counts ----------------------------------------------------------------------------------------------------------


@app.function(CountsDirty, idempotency="event.data.requestId", priority="event.data.priority", on_failure=note_failure)
async def mark_counts_dirty(ctx: Context[CountsDirty]) -> None:
    """Mark a client's counts as dirty, and ask for their recompute."""
    dirty = ctx.event.data
    inbox: Inbox = ctx.resources
    await ctx.step.run("mark", inbox.versions.mark_dirty, dirty.client_id, dirty.request_id)
    recompute = CountsRecompute(
        client_id=dirty.client_id, request_id=dirty.request_id, source=dirty.source, priority=dirty.priority
    )
    await ctx.step.send("request-recompute", recompute)


@app.function(
    CountsRecompute,
    retries=4,
    backoff=BACKOFF,
    run_concurrency=ONE_PER_CLIENT,
    concurrency=LIMITS.recompute_cap,
    idempotency=Idempotency("event.data.clientId", bucket=LIMITS.bucket_seconds, trailing=True),
    priority="event.data.priority",
    alerts=ALERTS,
    on_failure=note_failure,
)
async def inbox_counts_recompute(ctx: Context[CountsRecompute]) -> Counted | None:
    """Work a client's counts out: read the mark, count, raise the version, take the mark away unless it has changed."""
    wanted = ctx.event.data
    inbox: Inbox = ctx.resources
    needed, mark = await ctx.step.run("read-mark", read_mark, inbox, wanted.client_id, wanted.request_id)
    if not needed:
        return None
    counted = await ctx.step.run("recompute", inbox.messages.recompute_counts, wanted.client_id)
    await ctx.step.run("finish", inbox.versions.finish, wanted.client_id, ctx.run_id, wanted.request_id, mark)
    return counted


async def read_mark(inbox: Inbox, client_id: str, request_id: str) -> tuple[bool, str | None]:
    """Whether there is anything to do, and the mark. A copy of a request that was counted for needs nothing."""
    mark = await inbox.versions.dirty(client_id)
    return mark is not None or await inbox.versions.served(client_id) != request_id, mark


# -- analytics -------------------------------------------------------------------------------------------------------


@app.function(
    AggregatesRecompute,
    retries=4,
    backoff=BACKOFF,
    run_concurrency=ONE_PER_CLIENT,
    concurrency=LIMITS.analytics_cap,
    idempotency="event.data.requestId + '/' + event.data.clientId",
    priority="event.data.priority",
    alerts=ALERTS,
    on_failure=note_failure,
)
async def analytics_recompute(ctx: Context[AggregatesRecompute]) -> int:
    """Refresh a client's aggregates, and raise their version."""
    wanted = ctx.event.data
    inbox: Inbox = ctx.resources
    messages = await ctx.step.run("refresh", inbox.messages.refresh_aggregates, wanted.client_id)
    await ctx.step.run("raise-version", inbox.versions.raise_analytics, wanted.client_id, ctx.run_id)
    return messages


@app.function(Cron("*/5 * * * *"))
async def check_analytics(ctx: Context[CronTick]) -> int:
    """Measure the objective, and ask for what has missed it; how many clients that are."""
    inbox: Inbox = ctx.resources
    if not inbox.settings.analytics:
        return 0
    now = await ctx.now()
    stale = await ctx.step.run("measure", inbox.messages.stale_aggregates, now, inbox.settings.analytics_max_age)
    if stale:
        request_id = f"analytics-{now:%Y-%m-%dT%H:%M}"
        events = [
            AggregatesRecompute(client_id=client, request_id=request_id, source="objective-missed") for client in stale
        ]
        await ctx.step.send("request-refresh", events)
    return len(stale)


# -- the sweep -------------------------------------------------------------------------------------------------------


@app.function(Cron("* * * * *"))
async def sweep(ctx: Context[CronTick]) -> None:
    """Once a minute, have everything looked after that is still marked dirty."""
    request_id = f"sweep-{await ctx.now():%Y-%m-%dT%H:%M}"
    # once a minute, whoever else asks for it in that minute
    await ctx.step.send("enqueue", ProcessRequested(request_id=request_id, source="sweep"), id=request_id)


@app.function(
    ProcessRequested,
    retries=4,
    backoff=BACKOFF,
    idempotency="event.data.requestId",
    on_failure=note_failure,
)
async def process_background_jobs(ctx: Context[ProcessRequested]) -> int:
    """One recompute for each client that is marked dirty; how many that are. Once per request."""
    wanted = ctx.event.data
    inbox: Inbox = ctx.resources
    clients = await ctx.step.run("find-dirty", dirty_clients, inbox.versions, wanted.client_id)
    events = recompute_events(clients, wanted.request_id, wanted.source)
    if events:
        await ctx.step.send("request-recompute", events)
    return len(events)


# -- alerts ----------------------------------------------------------------------------------------------------------


@app.function(AlertRaised)
async def alert_raised(ctx: Context[AlertRaised]) -> None:
    """Log that something is in trouble. A pager would be called here."""
    inbox: Inbox = ctx.resources
    alert = ctx.event.data
    await ctx.step.run(
        "log", inbox.messages.note_alert, "raised", alert.function_id, alert.alert, alert.value, alert.threshold
    )


@app.function(AlertResolved)
async def alert_resolved(ctx: Context[AlertResolved]) -> None:
    """Log that it is well again."""
    inbox: Inbox = ctx.resources
    alert = ctx.event.data
    await ctx.step.run(
        "log", inbox.messages.note_alert, "resolved", alert.function_id, alert.alert, alert.value, alert.threshold
    )


functions: list[Function[Any, Any]] = [
    mark_counts_dirty,
    inbox_counts_recompute,
    analytics_recompute,
    check_analytics,
    sweep,
    process_background_jobs,
    alert_raised,
    alert_resolved,
]
