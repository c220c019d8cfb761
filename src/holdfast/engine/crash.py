"""Ending an engine as the death of its process would, within a process that lives on. For tests of durability."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.base.errors import NotRunningError

if TYPE_CHECKING:
    from holdfast.engine.engine import Engine


def kill(engine: Engine) -> None:
    """From here on nothing of this engine is committed, started or answered. Finish with `reap`.

    The code of its runs is cancelled, since it can't be made to vanish: its cleanup runs, its results are refused.
    """
    engine.draining = True
    engine.running = False
    for app in engine.apps.values():
        app.unbind(engine)
    engine.relays.kill(engine.apps.values())
    engine.crons.stop()
    if engine.cluster is not None:
        engine.cluster.stop()
    engine.timers.cancel()
    engine.bulks.kill()
    for watch in engine._watches:
        watch.stop()
    for mirror in engine.mirrors:
        mirror.kill()
    for live in list(engine.live.values()):
        live.abandon()
        if live.root is not None and live.root.done():
            live.gone()  # it only waited for its lease to end
    error = NotRunningError("the engine died before it could answer; whether this was recorded is not known")
    engine.store.group.kill(error)
    engine.control.close(error)


async def reap(engine: Engine, seconds: float = 10.0) -> None:
    """Wait until the code of a killed engine has ended, then give up what the operating system would have taken back.

    Raises:
        TimeoutError: code of a run goes on though it was cancelled; after so many seconds.
    """
    async with asyncio.timeout(seconds):
        await engine.dispatch.emptied()
        await engine.bulks.stop()
        if engine._pruning is not None:
            await asyncio.wait({engine._pruning})
        await engine.relays.stop(())
        for threads in (engine.threads, engine.function_threads):
            await threads.ended()
    for mirror in engine.mirrors:
        await mirror.disconnect()
    engine._retention.cancel()
    engine._factory.remove()
    engine._interpreter.restore()
    await engine.reader.close()
    await engine.store.abandon()
    await engine._leave()
