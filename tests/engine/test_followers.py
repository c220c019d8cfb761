"""Several owners-to-be of one SQLite file: who is not the owner works through the one that is, and takes over from it.

The parts are the same in one process as in several, so most of it is tested in one; tests/cluster has the processes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast import (
    App,
    ConfigurationError,
    Context,
    Debounce,
    Event,
    EventInvalidError,
    NotRunningError,
    OverloadedError,
    OwnerLostError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    StoreInUseError,
    Throttle,
)
from holdfast.base.clock import SystemClock
from holdfast.base.ids import IdFactory
from holdfast.compose import build_engine, received
from holdfast.engine.engine import EngineOptions
from holdfast.neighbours import address
from holdfast.neighbours.address import LONGEST_PATH, socket_path
from holdfast.neighbours.connection import Connection, Gone, Lost
from holdfast.neighbours.follower import Follower
from holdfast.neighbours.methods import METHODS
from holdfast.neighbours.visitor import Visitor
from holdfast.sdk.sender import Outgoing

pytestmark = pytest.mark.anyio


class Go(Event, name="near/go"):
    n: int = 0


class Fail(Event, name="near/fail"):
    pass


class Wait(Event, name="near/wait"):
    pass


class Grouped(Event, name="near/grouped"):
    pass


def make_app(name: str = "near") -> App:
    app = App(name, retries=0)

    @app.function(Go, throttle=Throttle(1000, "1m"))
    async def double(ctx: Context[Go]) -> int:
        return 2 * await ctx.step.run("n", lambda: ctx.event.data.n)

    @app.function(Fail)
    async def fail(ctx: Context[Fail]) -> None:
        raise ValueError("as it should")

    @app.function(Wait)
    async def wait(ctx: Context[Wait]) -> str:
        given = await ctx.step.wait_for_signal("bell", "bell", type=str, timeout="1h")
        return given or "nothing"

    @app.function(Grouped, debounce=Debounce("1h"))
    async def grouped(ctx: Context[Grouped]) -> str:
        return "grouped"

    return app


def url(database: Path) -> str:
    return f"sqlite:///{database}"


async def until(fact, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.01)


@pytest.fixture
async def pair(database: Path):
    """Two apps on one file: the first owns it."""
    owner, follower = make_app(), make_app()
    async with owner.running(store=url(database)), follower.running(store=url(database)):
        yield owner, follower


async def test_an_app_offers_everything_without_owning_the_store(pair, query):
    _, app = pair
    assert isinstance(app._sender(), Follower)
    handle = await app.start(app.functions["double"], Go(n=21))
    assert await handle.result(timeout=10) == 42
    info = await handle.info()
    assert (info.status, info.function) == ("COMPLETED", "near-double")
    assert isinstance(info.duration, timedelta)
    assert [run.id async for run in app.runs(status="COMPLETED")] == [handle.id]
    receipts = await app.send_many([Go(n=1), Go(n=2)])
    assert [receipt.duplicate for receipt in receipts] == [False, False]
    again = await app.rerun(handle.id)
    assert await app.handle(again, app.functions["double"]).result(timeout=10) == 42
    bulk = await app.bulk("rerun", {"ids": [handle.id]})
    await until_async(lambda: bulk.info(), lambda info: info.state == "done")
    assert (await bulk.info()).done == 1
    assert await bulk.cancel() is False
    assert {event for (event,) in query("SELECT hex(id) FROM events")} >= {r.raw_id.hex().upper() for r in receipts}


async def until_async(ask, fact) -> None:
    async with asyncio.timeout(30):
        while not fact(await ask()):
            await asyncio.sleep(0.01)


async def test_flow_control_is_changed_through_the_owner(pair):
    _, app = pair
    await app.pause("double")
    handle = await app.start(app.functions["double"], Go(n=1))
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.2)
    await app.set_limit("double", "throttle", 500)
    await app.resume("double")
    assert await handle.result(timeout=10) == 2
    grouped = await app.start(app.functions["grouped"], Grouped())
    assert await app.flush("grouped") == 1
    assert await grouped.result(timeout=10) == "grouped"


async def test_a_signal_is_given_and_a_run_cancelled_through_the_owner(pair):
    _, app = pair
    handle = await app.start(app.functions["wait"], Wait())
    assert await app.send_signal("nobody", "x") is None
    await until_async(lambda: app.send_signal("bell", "ding"), lambda given: given == handle.id)
    assert await handle.result(timeout=10) == "ding"
    second = await app.start(app.functions["wait"], Wait())
    assert await second.cancel() is True
    assert await second.cancel() is False
    with pytest.raises(RunCancelledError):
        await second.result(timeout=10)


async def test_a_run_is_watched_through_the_owner(pair):
    _, app = pair
    handle = await app.start(app.functions["wait"], Wait())
    seen = []

    async def watch() -> None:
        async for info in handle.watch():
            seen.append(info.status)

    watching = asyncio.create_task(watch())
    await until(lambda: "WAITING" in seen or "RUNNING" in seen)
    await until_async(lambda: app.send_signal("bell", "ding"), lambda given: given == handle.id)
    await asyncio.wait_for(watching, 20)
    assert seen[-1] == "COMPLETED"


async def test_errors_arrive_as_what_they_are(pair):
    _, app = pair
    with pytest.raises(RunFailedError) as failed:
        await (await app.start(app.functions["fail"], Fail())).result(timeout=10)
    assert (failed.value.name, failed.value.message) == ("ValueError", "as it should")
    assert failed.value.stack
    with pytest.raises(RunNotFoundError):
        await app.handle("01ARZ3NDEKTSV4RRFFQ69G5FAV").info()
    with pytest.raises(ConfigurationError, match="no-such"):
        await app.pause("no-such")
    with pytest.raises(EventInvalidError, match="before Jan 1, 1980") as invalid:
        await app._sender().send([Outgoing("near/go", b"{}", ts=5)])
    assert invalid.value.status == 400


async def test_an_overload_is_told_with_when_to_try_again(database):
    owner, app = make_app(), make_app()
    async with owner.running(store=url(database), options=EngineOptions(max_unsent=0)):
        async with app.running(store=url(database)):
            with pytest.raises(OverloadedError) as refused:
                await app.send(Go())
    assert refused.value.retry_after == 1.0


async def test_duplicates_are_told(pair):
    owner, app = pair
    assert not (await app.send(Go(), id="a")).duplicate
    assert (await app.send(Go(), id="a")).duplicate
    assert (await owner.send(Go(), id="a")).duplicate
    first = await app.start(app.functions["double"], Go(n=1), id="b")
    assert (await app.start(app.functions["double"], Go(n=1), id="b")).id == first.id


async def test_sending_from_threads(pair):
    _, app = pair
    assert len((await asyncio.to_thread(app.send_sync, Go())).id) == 26
    with pytest.raises(NotRunningError, match="would block the loop"):
        app.send_sync(Go())


async def test_when_the_owner_stops_a_follower_goes_on_with_its_runs(database):
    owner, second, third = make_app(), make_app(), make_app()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        await first.enter_async_context(owner.running(store=url(database)))
        await stack.enter_async_context(second.running(store=url(database)))
        await stack.enter_async_context(third.running(store=url(database)))
        handle = await second.start(second.functions["wait"], Wait())
        results = asyncio.gather(handle.result(timeout=30), third.handle(handle.id).result(timeout=30))
        await asyncio.sleep(0)
        await first.aclose()
        await until(lambda: any(not isinstance(app._sender(), Follower) for app in (second, third)))
        await until_async(lambda: third.send_signal("bell", "still here"), lambda given: given == handle.id)
        assert await results == ["still here"] * 2, "who waited for a result waits on through the change"
        assert await (await third.start(third.functions["double"], Go(n=4))).result(timeout=10) == 8


async def test_sends_during_the_change_wait_and_are_accepted_once(database, query):
    owner, app, other = make_app(), make_app(), make_app()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(AsyncExitStack())
        await first.enter_async_context(owner.running(store=url(database)))
        await stack.enter_async_context(app.running(store=url(database)))
        await stack.enter_async_context(other.running(store=url(database)))
        sent: list[str] = []

        async def send(through: App, count: int) -> None:
            for n in range(count):
                sent.append((await through.send(Go(n=n))).id)

        sending = asyncio.gather(send(app, 100), send(other, 100), send(app, 100))
        await until(lambda: len(sent) > 20)
        await first.aclose()
        await sending
    assert len(set(sent)) == 300
    assert query("SELECT count(*) FROM events WHERE name = 'near/go'") == [(300,)]


class Broken:
    """An owner that takes calls, does them, and dies before it answers the first ones."""

    def __init__(self, control, times: int) -> None:
        self.control = control
        self.times = times
        self.calls = 0

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            done = await getattr(self.control, name)(*args, **kwargs)
            self.calls += 1
            if self.calls <= self.times:
                raise Lost
            return done

        return call


@pytest.mark.parametrize("times", [1, 3])
async def test_what_is_asked_again_after_a_lost_answer_is_done_once(pair, query, times):
    owner, app = pair
    follower = app._sender()
    broken = Broken(owner._sender(), times)
    through = follower._ask

    async def ask(name, args):
        try:
            return await METHODS[name].call(broken, *args)
        finally:
            asyncio.get_running_loop().call_soon(follower._found_owner, ask)  # the next owner is there soon

    follower._found_owner(ask)
    receipt = await app.send(Go(n=7))
    assert not receipt.duplicate
    assert broken.calls == times + 1
    broken.calls = 0
    handle = await app.start(app.functions["double"], Go(n=5))
    assert broken.calls == times + 1
    assert await handle.result(timeout=10) == 10
    broken.calls = 0
    with pytest.raises(OwnerLostError, match="look whether it was done"):
        await app.rerun(handle.id)
    assert broken.calls == 1, "what may have been done is not done again"
    follower._found_owner(through)
    await until(lambda: query("SELECT count(*) FROM runs WHERE status = 2") == [(3,)])
    assert query("SELECT count(*) FROM events WHERE CAST(data AS TEXT) LIKE '%7%'") == [(1,)]


async def test_without_an_owner_calls_fail_in_time_and_say_so(tmp_path):
    app = make_app()
    follower = Follower([app], tmp_path / "a.db-socket", lambda: received(build_engine([app], url(tmp_path / "a.db"))), patience=5)
    async with follower:
        follower._owner_left()
        follower._patience = 0.1
        with pytest.raises(OwnerLostError, match="nobody has owned .*a.db for 0.1 s; nothing was done") as lost:
            await app._senders[0].send([Outgoing("near/go", b"{}")])
        assert lost.value.code == "owner_lost"


async def test_an_owner_that_does_not_answer_is_not_waited_for_forever(pair):
    _, app = pair
    follower = app._sender()
    follower._patience = 0.1

    async def never(name, args):
        await asyncio.Event().wait()

    follower._found_owner(never)
    with pytest.raises(OwnerLostError, match="has not answered in 0.1 s; whether it was done isn't known"):
        await app.send(Go())


async def test_another_application_is_refused(database):
    owner, other = make_app(), make_app("other")
    async with owner.running(store=url(database)):
        with pytest.raises(StoreInUseError, match=r"in use by process \d+, which runs app near and not other"):
            async with other.running(store=url(database)):
                pass
        assert not other._senders


async def test_who_does_not_let_others_in_is_not_waited_for(database):
    owner, app = make_app(), make_app()
    async with build_engine([owner], url(database)):
        with pytest.raises(StoreInUseError, match=r"in use by process \d+ \(app near\): stop that process"):
            async with app.running(store=url(database)):
                pass


async def test_a_stale_socket_is_replaced_and_ours_is_private_and_removed(database):
    path = socket_path(database)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    app, second = make_app(), make_app()
    async with app.running(store=url(database)):
        assert path.stat().st_mode & 0o777 == 0o600
        async with second.running(store=url(database)):
            assert await (await second.start(second.functions["double"], Go(n=1))).result(timeout=10) == 2
    assert not path.exists()


async def test_a_path_too_long_for_a_socket_has_it_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(address.tempfile, "gettempdir", lambda: str(tmp_path))
    deep = tmp_path / ("long" * 25)
    deep.mkdir()
    database = deep / "shop.db"
    path = socket_path(database)
    assert len(os.fsencode(path)) <= LONGEST_PATH or path.parent.parent == tmp_path
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert socket_path(deep / "other.db") != path
    path.parent.chmod(0o755)
    with pytest.raises(ConfigurationError, match="too long for a socket beside it"):
        socket_path(database)


async def test_a_long_path_works(monkeypatch):
    import tempfile

    with tempfile.TemporaryDirectory(prefix="hf") as directory:
        database = Path(directory) / ("deep" * 30) / "shop.db"
        owner, app = make_app(), make_app()
        async with owner.running(store=url(database)), app.running(store=url(database)):
            assert await (await app.start(app.functions["double"], Go(n=1))).result(timeout=10) == 2


async def test_a_script_without_a_loop_sends_through_whoever_has_the_store(pair, database, query, monkeypatch):
    monkeypatch.setenv("HOLDFAST_STORE", url(database))
    script = make_app()
    receipt = await asyncio.to_thread(script.send_sync, Go(n=3), id="once")
    again = await asyncio.to_thread(script.send_sync, Go(n=3), id="once")
    assert (receipt.duplicate, again.duplicate) == (False, True)
    assert query("SELECT count(*) FROM events WHERE key = 'once'") == [(2,)]
    assert await script.send_signal("nobody", 1) is None
    with pytest.raises(NotRunningError, match="can only send from here"):
        await script.start(script.functions["double"], Go())


async def test_a_script_finds_no_owner(database, monkeypatch):
    monkeypatch.setenv("HOLDFAST_STORE", url(database))
    with pytest.raises(NotRunningError, match="not running here"):
        await make_app().send(Go())
    visitor = Visitor(socket_path(database), patience=0.1)
    with pytest.raises(OwnerLostError, match="is gone or does not answer"):
        await visitor.send([Outgoing("near/go", b"{}")])


async def test_who_is_stopping_sends_callers_on(database):
    app = make_app()
    engine = build_engine([app], url(database), shared=True)
    async with received(engine):
        connection = await Connection.open(socket_path(database), ["near"])
        out = Outgoing("near/go", b"{}", internal_id=IdFactory().new(SystemClock().now()))
        (sent,) = await connection.ask("send", [[out]])
        assert sent.raw_id == out.internal_id
        engine.draining = True
        with pytest.raises(Gone):
            await connection.ask("send", [[out]])
        engine.draining = False
    await connection.closed.wait()
    with pytest.raises(Gone):
        await connection.ask("run_info", ["x"])


async def test_who_reads_no_answers_does_not_hold_an_owner_up(database):
    app = make_app()
    engine = build_engine([app], url(database), shared=True)
    async with received(engine):
        await asyncio.gather(*(app.start(app.functions["double"], Go(n=1)) for _ in range(50)))
        connection = await Connection.open(socket_path(database), ["near"])
        connection._writer.transport.pause_reading()
        asked = [asyncio.ensure_future(connection.ask("list_runs", [{"limit": 100}])) for _ in range(200)]
        await until(lambda: connection._writer.transport.get_write_buffer_size() == 0)
        await engine.idle()
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_follower_does_not_take_a_servers_store_while_it_restarts(database):
    app = make_app()
    engine = build_engine([make_app()], url(database), shared=True)
    async with AsyncExitStack() as stack:
        async with received(engine, server=True):
            await stack.enter_async_context(app.running(store=url(database)))
        sending = asyncio.create_task(app.send(Go(n=9)))
        again = build_engine([make_app()], url(database), shared=True)  # nobody has taken the lock meanwhile
        async with received(again, server=True):
            await asyncio.wait_for(sending, 10)
            assert isinstance(app._sender(), Follower)
            assert await app.handle((await app.start(app.functions["double"], Go(n=1))).id).result(timeout=10) == 2


async def test_a_new_owner_serves_the_port(database):
    owner, app = make_app(), make_app()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    serve = f"127.0.0.1:{port}"

    def answers() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    async with AsyncExitStack() as stack:
        async with owner.running(store=url(database), serve=serve):
            await stack.enter_async_context(app.running(store=url(database), serve=serve))
            assert isinstance(app._sender(), Follower)
            assert answers()
        await until(answers)
        assert not isinstance(app._sender(), Follower)


async def test_a_forked_process_is_refused_and_keeps_nothing_open(database):
    owner, app = make_app(), make_app()
    async with owner.running(store=url(database)), app.running(store=url(database)):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                coroutine = app._sender().send([Outgoing("near/go", b"{}")])
                coroutine.send(None)
            except NotRunningError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.close(write)
        said = await asyncio.to_thread(os.read, read, 1000)
        os.close(read)
        os.waitpid(pid, 0)
        assert b"this process was forked" in said
        assert await (await app.start(app.functions["double"], Go(n=1))).result(timeout=10) == 2
