"""A Django project with a serve route, configured when it is imported: one per process."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import Any

import django_once  # noqa: F401 - configures Django
from django.http import HttpResponse
from django.urls import path

from holdfast import App, Context, SyncContext
from holdfast.serve.django import serve

@asynccontextmanager
async def lifespan(app: App):
    yield {"loop": asyncio.get_running_loop()}


app = App("dj", lifespan=lifespan)


@app.function("dj/go", id="asynchronous")
async def asynchronous(ctx: Context[Any]) -> list[Any]:
    first = await ctx.step.run("first", lambda: ctx.event.data["n"])
    both = await asyncio.gather(ctx.step.run("a", lambda: 1), ctx.step.run("b", lambda: 2))
    # what the lifespan opened and the function are on one loop, on every call
    return [first, *both, ctx.resources["loop"] is asyncio.get_running_loop()]


@app.function("dj/go", id="synchronous")
def synchronous(ctx: SyncContext[Any]) -> list[Any]:
    from django.db import connection

    def query() -> int:
        with connection.cursor() as cursor:  # refused where a loop runs
            return cursor.execute("SELECT 41 + 1").fetchone()[0]

    return [ctx.step.run("query", query), ctx.step.run("thread", lambda: threading.current_thread() is not threading.main_thread())]


urlpatterns = [path("", lambda request: HttpResponse("home")), serve(app, dev=True, base_url="http://127.0.0.1:9")]
