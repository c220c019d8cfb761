"""A process that executes the application, and can be told where to die.

It is forked from a parent that has imported everything and started nothing: no thread, no loop, no engine. That makes
a fresh process cost milliseconds, so that every crash point can have its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_disk
import fault_postgres
from fault_app import Doom, Order, Phases, Report, make_app
from fault_ledger import Ledger
from holdfast import App
from holdfast.base.clock import SystemClock
from holdfast.compose import build_engine
from holdfast.engine.engine import Engine, EngineOptions
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings

EXIT_AT_POINT = 77


class ShiftedClock(SystemClock):
    """The wall clock, so many milliseconds on, and more when told: what takes a minute to come can come at once."""

    __slots__ = ("offset",)

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def now(self) -> int:
        return super().now() + self.offset

    def call_at(self, when: int, callback: Callable[[], None]) -> PatientTimer:
        return PatientTimer(self, when, callback)


class PatientTimer:
    """Looks at the clock often enough to notice that it was set forward."""

    def __init__(self, clock: ShiftedClock, when: int, callback: Callable[[], None]) -> None:
        self._clock, self._when, self._callback = clock, when, callback
        self._arm()

    def _arm(self) -> None:
        delay = min(max(0, self._when - self._clock.now()), 20)
        self._handle = asyncio.get_running_loop().call_later(delay / 1000, self._look)

    def _look(self) -> None:
        if self._clock.now() >= self._when:
            self._callback()
        else:
            self._arm()

    def cancel(self) -> None:
        self._handle.cancel()


class Aim(Phases):
    """Announces one chosen moment and waits there to be killed."""

    def __init__(self, phase: str | None, nth: int) -> None:
        self._phase = phase
        self._left = nth

    def reached(self, phase: str) -> None:
        if phase == self._phase:
            self._left -= 1
            if self._left == 0:
                announce(reached=phase)
                time.sleep(60)
                raise SystemExit("nobody killed this process")


def announce(**fields: Any) -> None:
    """Tell the test; one write, so that lines of several processes don't mix."""
    os.write(1, (json.dumps({"pid": os.getpid(), **fields}) + "\n").encode())


def watch_commits(engine: Engine, config: dict[str, Any], aim: Aim) -> None:
    """Put the seams in place as soon as the store takes plans."""
    start = engine.store.start
    point = config.get("point")

    def started(*args: Any) -> None:
        start(*args)
        group = engine.store.group
        if point or config.get("one_by_one"):
            group.max_group = 1
        commits = 0

        def before() -> None:
            nonlocal commits
            commits += 1
            if point and point["side"] == "before" and commits == point["n"]:
                os._exit(EXIT_AT_POINT)
            for plan in group.committing:
                aim.reached(f"{type(plan).__name__} before")

        def after() -> None:
            if point and point["side"] == "after" and commits == point["n"]:
                os._exit(EXIT_AT_POINT)
            for plan in group.committing:
                aim.reached(f"{type(plan).__name__} after")

        group.before_commit = before
        group.after_commit = after

    engine.store.start = started


async def as_client(app: App, engine: Engine, ledger: Ledger, store: str) -> None:
    """Send what has no answer yet, wait for all work, cure and redrive what died, and wait again."""
    to_the_next_minute(engine, ledger)
    answered = [line["id"] for line in ledger.lines() if line["what"] == "acknowledged"]
    for event, key in [
        (Order(n=1), "order-1"),
        (Order(n=1), "order-1"),
        (Report(n=1), "report-1"),
        (Doom(n=1), "doom-1"),
    ]:
        if key in answered:
            answered.remove(key)
            continue
        await app.send(event, id=key)
        ledger.write("acknowledged", id=key, event=event.__holdfast_event__)
    await quiet(engine, store)
    ledger.write("cured")
    await redrive_all(engine, ledger, store)
    await quiet(engine, store)
    ledger.write("quiet")


async def redrive_all(engine: Engine, ledger: Ledger, store: str) -> None:
    """Redrive each dead letter, twice by accident."""
    from holdfast.base.ids import ulid_text

    for (run_id,) in rows(store, "SELECT run_id FROM dead_letters"):
        text = ulid_text(run_id)
        first = await engine.redrive(text)
        ledger.write("redriven", run=text, as_run=first)
        again = await engine.redrive(text)
        ledger.write("redriven", run=text, as_run=again)


async def quiet(engine: Engine, store: str) -> None:
    """Wait until nothing is queued and the schedule has fired, if it is about to."""
    while True:
        await engine.idle()
        ((queued,),) = rows(store, "SELECT count(*) FROM queue")
        ((next_cron,),) = rows(store, "SELECT min(next_at) FROM crons")
        if queued == 0 and next_cron - engine.clock.now() > 2000:
            return
        await asyncio.sleep(0.005)


def store_of(config: dict[str, Any]) -> str:
    """The URL of the store: a database of its own, unless the configuration names one."""
    return config.get("store") or f"sqlite:///{config['database']}"


def rows(store: str, statement: str) -> list[tuple[Any, ...]]:
    """Read a store with plain SQL."""
    if not store.startswith("sqlite:///"):
        return fault_postgres.rows_of(store, statement)
    conn = sqlite3.connect(store.removeprefix("sqlite:///"))
    try:
        return conn.execute(statement).fetchall()
    finally:
        conn.close()


def clock_offset(ledger: Ledger) -> int:
    """How far an earlier process of this database has set the clock forward."""
    return next((line["offset"] for line in ledger.lines() if line["what"] == "clock"), 0)


def to_the_next_minute(engine: Engine, ledger: Ledger) -> None:
    """Set the clock forward, once, to just before the schedules of the application are due."""
    clock = engine.clock
    assert isinstance(clock, ShiftedClock)
    if clock.offset == 0:
        clock.offset = 60_000 - clock.now() % 60_000 - 100
        ledger.write("clock", offset=clock.offset)


async def main(config: dict[str, Any]) -> None:
    """One life of the process."""
    store = store_of(config)
    ledger = Ledger(Path(config["ledger"]))
    aim = Aim(config.get("phase"), config.get("nth", 1))
    app = make_app(ledger, aim)
    options = EngineOptions(linger_ms=config.get("linger_ms", 0), max_crashes=config.get("max_crashes", 5))
    engine = build_engine(
        [app],
        store,
        clock=ShiftedClock(clock_offset(ledger)),
        options=options,
        synchronous=config.get("synchronous", "FULL"),
    )
    watch_commits(engine, config, aim)
    async with engine:
        if "port" in config:
            await as_server(engine, ledger, store, config)
        else:
            await as_client(app, engine, ledger, store)


async def as_server(engine: Engine, ledger: Ledger, store: str, config: dict[str, Any]) -> None:
    """Serve until the file that says so is there, then finish all work (or, if it says so, nothing) and end."""
    finish = Path(config["finish"])
    async with serving(engine, ServerSettings(host="127.0.0.1", port=config["port"])):
        announce(serving=config["port"])
        while not finish.exists():
            await asyncio.sleep(0.01)
        if finish.read_text() == "at once":
            return
        await quiet(engine, store)
        ledger.write("cured")
        await redrive_all(engine, ledger, store)
        await quiet(engine, store)
        ledger.write("quiet")


def life(config: dict[str, Any]) -> None:
    """What a forked child does; it never returns."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: don't outlive the test
    log = os.open(config["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable()
    faulthandler.dump_traceback_later(config.get("patience", 60), exit=True)
    status = 1
    try:
        if "counters" in config:
            fault_disk.attach(Path(config["database"]), Path(config["counters"]))
        run = config.get("main")
        if run is None:
            asyncio.run(main(config))
        else:
            module, _, name = run.partition(":")
            asyncio.run(getattr(__import__(module), name)(config))
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def zygote() -> None:
    """Fork a child for each line of JSON on standard input; tell of each birth and death on standard output."""

    def reap(*_: Any) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            os.write(1, (json.dumps({"pid": pid, "exit": os.waitstatus_to_exitcode(status)}) + "\n").encode())

    signal.signal(signal.SIGCHLD, reap)
    for line in sys.stdin:
        config = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            life(config)
        os.write(1, (json.dumps({"pid": pid, "born": config["ticket"]}) + "\n").encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


if __name__ == "__main__":
    # under its own name, so that a child that imports it gets this very module
    sys.modules["fault_worker"] = sys.modules["__main__"]
    zygote()
