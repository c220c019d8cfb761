"""A process that executes nothing itself: its transactions' events are brought to a server, and steps of served functions are done once."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from parity_functions import points
from protocol_server import Run

from holdfast import App, Context, Event
from holdfast.compose import build_engine
from holdfast.engine.engine import EngineOptions
from holdfast.sdk.http_sender import seed_of
from holdfast.server.seed import Seed
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


class Go(Event, name="tx/go"):
    n: int


def test_a_seed_gives_the_id_it_was_made_for() -> None:
    for event_id in (bytes(5) + bytes([1]) + bytes(10), b"\x01" * 6 + b"\xff" * 10, bytes(range(16))):
        seed = Seed.of_header(seed_of(event_id))
        assert seed is not None
        assert seed.id(1) == event_id


async def test_events_of_transactions_are_brought_to_the_server(tmp_path: Path, monkeypatch) -> None:
    """The answer to the first delivery is lost, so it is made again; the event is there once, under the id that was given."""
    path = tmp_path / "shop.db"
    sender = App("sender", databases=[f"sqlite:///{path}"])
    handled: list[int] = []
    app = App("handler")

    @app.function(Go)
    async def handle(ctx: Context[Go]) -> None:
        handled.append(ctx.event.data.n)

    async with build_engine([app], f"sqlite:///{tmp_path / 'holdfast.db'}", options=EngineOptions()) as engine:
        async with serving(engine, ServerSettings.at("127.0.0.1:0")) as server:
            monkeypatch.setenv("INNGEST_BASE_URL", server.url)
            async with sender.relaying():
                relays = sender.transactional._relaying[-1]
                outbox = relays._outboxes[0]._opened
                delete, outbox.delete_events = outbox.delete_events, lambda ids: (_ for _ in ()).throw(OSError("killed"))
                conn = sqlite3.connect(path)
                sent = sender.send_sync(Go(n=1), connection=conn)
                conn.commit()
                with pytest.raises(OSError, match="killed"):
                    await relays.flush()
                outbox.delete_events = delete
                await until(lambda: not conn.execute("SELECT id FROM holdfast_outbox").fetchall())
                conn.close()
        await engine.idle()
        events = (await engine.reader.events(limit=10))[0]
        assert [event.internal_id for event in events if event.name == "tx/go"] == [sent.id]
        assert handled == [1]


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_step_whose_answer_was_lost_is_not_done_again(protocol, served) -> None:
    """The server calls for the same step a second time, as it does when it never heard of the first."""
    database = points()
    app = App("tx")
    calls: list[str] = []

    def add(conn: sqlite3.Connection, who: str) -> str:
        calls.append(who)
        conn.execute("INSERT INTO points VALUES (?)", [who])
        return f"points for {who}"

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        return await ctx.step.transaction("add", database, add, "ada")

    server = protocol()
    served(app, server)
    run = Run(server, fn.slug, {"name": "tx/go", "data": {"n": 1}})
    (item,) = run.queue
    first, again = await asyncio.to_thread(run.call, item), await asyncio.to_thread(run.call, item)
    assert first.named == again.named == ["StepRun add"]
    assert first.body[0]["data"] == again.body[0]["data"] == "points for ada"
    assert calls == ["ada"]
    with sqlite3.connect(database.address.path) as conn:
        assert conn.execute("SELECT who FROM points").fetchall() == [("ada",)]
    conn.close()
