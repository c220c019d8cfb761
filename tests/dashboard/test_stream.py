"""The stream of notices, message by message, on a real engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from dashboard_kit import World, make_app
from holdfast.compose import build_engine
from holdfast.dashboard.stream import KINDS, Change, messages
from holdfast.engine.notices import Notice

pytestmark = pytest.mark.anyio


def change(message: bytes) -> Change:
    assert message.startswith(b"event: change\ndata: ")
    return msgspec.json.decode(message.removeprefix(b"event: change\ndata: "), type=Change)


async def test_silence_is_filled_and_changes_are_put_together(tmp_path: Path):
    app = make_app(World())
    async with build_engine([app], f"sqlite:///{tmp_path / 'shop.db'}") as engine:
        stream = messages(engine, interval=0.2, ping=0.05)
        assert (await anext(stream)).startswith(b"retry: ")
        assert await anext(stream) == b": ping\n\n"
        sent = [(await app.send({"name": "test/hello", "data": {}})).id for _ in range(20)]
        await engine.idle()
        seen = change(await anext(stream))
        more = change(await anext(stream)) if not {"run", "event"} <= set(seen.kinds) else seen
        assert {"run", "event"} <= set(seen.kinds) | set(more.kinds)
        assert set(sent) & (set(seen.ids) | set(more.ids))
        await stream.aclose()
        assert not engine.notices.wanted, "whoever leaves is not told any more"


async def test_a_listener_that_lost_count_takes_anything_as_changed(tmp_path: Path):
    async with build_engine([make_app(World())], f"sqlite:///{tmp_path / 'shop.db'}") as engine:
        stream = messages(engine, interval=0.01, ping=5)
        await anext(stream)
        engine.notices.publish(Notice("run", ""))
        engine.notices.publish(Notice("run", "01HF7YAT000000000000000000"))
        seen = change(await anext(stream))
        if not seen.many:
            seen = change(await anext(stream))
        assert seen.many
        assert set(seen.kinds) == set(KINDS)
        await stream.aclose()
