"""A web application that `uvicorn --workers` runs in several processes, on one SQLite file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fault_app import Order, Report, make_app
from fault_ledger import Ledger
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast import HoldfastError
from holdfast.neighbours.follower import Follower

ledger = Ledger(Path(os.environ["FAULT_LEDGER"]))
app = make_app(ledger)
KINDS = {"order": Order, "report": Report}


@asynccontextmanager
async def lifespan(web: Starlette) -> AsyncIterator[None]:
    async with app.running(store=os.environ["FAULT_STORE"]):
        ledger.write("up", pid=os.getpid())
        yield
    ledger.write("down", pid=os.getpid())


async def send(request: Request) -> JSONResponse:
    """Send an event without an id of its own: whoever answers 200 has accepted it once."""
    kind = KINDS[request.path_params["kind"]]
    try:
        receipt = await app.send(kind(n=int(request.path_params["n"])))
    except HoldfastError as error:
        return JSONResponse({"code": error.code, "error": str(error)}, 503)
    return JSONResponse({"id": receipt.id, "pid": os.getpid()})


async def who(request: Request) -> JSONResponse:
    """Which process this is, and whether it owns the store."""
    return JSONResponse({"pid": os.getpid(), "owner": not isinstance(app._sender(), Follower)})


async def open_runs(request: Request) -> JSONResponse:
    """How many runs have not ended."""
    left = 0
    for status in ("QUEUED", "RUNNING", "WAITING"):
        left += len([run async for run in app.runs(status=status, limit=1000)])
    return JSONResponse({"left": left})


web = Starlette(
    routes=[
        Route("/send/{kind}/{n}", send, methods=["POST"]),
        Route("/who", who),
        Route("/open", open_runs),
    ],
    lifespan=lifespan,
)
