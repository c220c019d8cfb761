"""Functions that must give the same result in process and over HTTP, each with its event and what it is to give."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from holdfast import (
    App,
    Backoff,
    Context,
    Database,
    Event,
    FunctionRef,
    InvokeTimeoutError,
    NonRetriableError,
    RetryAfterError,
    StepError,
    SyncContext,
    database_schema,
)

NOW = Backoff.constant(0)
spans: dict[Any, Any] = {}
"""Spans of time to take in place of those in the table, where no clock jumps over them."""


def span(of: Any) -> Any:
    return spans.get(of, of)



class Go(Event, name="par/go"):
    n: int = 0


class Reply(Event, name="par/reply"):
    n: int
    who: str = ""


class CardDeclined(Exception):
    pass


class Expired(CardDeclined):
    pass


@dataclass
class Receipt:
    total: int
    at: date = date(2030, 1, 2)


@dataclass
class Approval:
    who: str
    n: int


@dataclass
class Case:
    """A function of the table."""

    name: str
    define: Callable[[App, list[Any]], Any]
    """Declares it on an app, with a list to note what happens in it; gives the function to start."""
    output: Any = None
    error: tuple[str, str] | None = None
    """Name and message of its failure, where it is to fail."""
    notes: list[Any] | None = None
    """What it is to have noted."""
    replies: list[dict[str, Any]] = field(default_factory=list)
    """Events that come in while it waits."""
    signals: list[tuple[str, Any]] = field(default_factory=list)
    """And signals."""
    sent: list[dict[str, Any]] = field(default_factory=list)
    """Events that it is to have sent."""


CASES: list[Case] = []


def case(**expected: Any) -> Callable[[Callable[[App, list[Any]], Any]], None]:
    def add(define: Callable[[App, list[Any]], Any]) -> None:
        CASES.append(Case(define.__name__, define, **expected))

    return add


@case(output=None)
def no_steps_and_no_result(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        assert ctx.event.data.n == 7
        assert ctx.event.name in {"par/go", "inngest/function.invoked"}
        assert ctx.attempt == 0

    return fn


@case(output=[14, 15, 14], notes=[7, 14, 7])
def steps_one_after_the_other(app: App, notes: list[Any]) -> Any:
    def double(n: int) -> int:
        notes.append(n)
        return n * 2

    async def add(n: int, *, more: int = 0) -> int:
        notes.append(n)
        return n + more

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        first = await ctx.step.run("double", double, ctx.event.data.n)
        return [first, await ctx.step.run("add", add, first, more=1), await ctx.step.run("again", double, 7)]

    return fn


@case(output=["a0", "a1", "a2"], notes=["a0", "a1", "a2"])
def one_id_in_a_loop(app: App, notes: list[Any]) -> Any:
    def note(text: str) -> str:
        notes.append(text)
        return text

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[str]:
        return [await ctx.step.run("note", note, f"a{n}") for n in range(3)]

    return fn


@case(output=["Receipt", 5, "2030-01-02", "datetime", "tuple", "2031-01-01", {"$type": "x", "$value": 1}])
def typed_results(app: App, notes: list[Any]) -> Any:
    def receipt() -> Receipt:
        return Receipt(5)

    def untyped_moment():
        return datetime(2031, 1, 1, tzinfo=UTC)

    def untyped_tuple():
        return (1, 2)

    def confusing():
        return {"$type": "x", "$value": 1}

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[Any]:
        paid = await ctx.step.run("receipt", receipt)
        moment = await ctx.step.run("moment", untyped_moment)
        pair = await ctx.step.run("pair", untyped_tuple)
        odd = await ctx.step.run("odd", confusing)
        await ctx.step.sleep("nap", span("1h"))
        return [type(paid).__name__, paid.total, str(paid.at), type(moment).__name__, type(pair).__name__, str(moment.date()), odd]

    return fn


@case(output=[True, True])
def sleeps(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[bool]:
        before = await ctx.now()
        await ctx.step.sleep("nap", span(timedelta(hours=1, minutes=30)))
        after = await ctx.now()
        await ctx.step.sleep_until("past", datetime(2020, 1, 1, tzinfo=UTC))
        return [after >= before, before == await ctx.step.run("same", lambda: before)]

    return fn


@case(output=[10, 20, 30], notes=["a", "b", "c", "end"])
def gather(app: App, notes: list[Any]) -> Any:
    async def value(name: str, n: int) -> int:
        notes.append(name)
        return n

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        found = await asyncio.gather(
            ctx.step.run("a", value, "a", 10), ctx.step.run("b", value, "b", 20), ctx.step.run("c", value, "c", 30)
        )
        await ctx.step.run("end", value, "end", 0)
        return list(found)

    return fn


@case(output={"a": 2, "b": 4}, notes=["a1", "b1", "a2", "b2"])
def task_group_of_chains(app: App, notes: list[Any]) -> Any:
    def note(name: str, n: int) -> int:
        notes.append(name)
        return n

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> dict[str, int]:
        async def chain(name: str, n: int) -> int:
            first = await ctx.step.run(f"{name}1", note, f"{name}1", n)
            return first + await ctx.step.run(f"{name}2", note, f"{name}2", n)

        async with asyncio.TaskGroup() as group:
            a, b = group.create_task(chain("a", 1)), group.create_task(chain("b", 2))
        return {"a": a.result(), "b": b.result()}

    return fn


@case(output="quick")
def race_of_a_step_and_a_sleep(app: App, notes: list[Any]) -> Any:
    def quick() -> str:
        return "quick"

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str | None:
        return await ctx.step.race("first", ctx.step.run("quick", quick), ctx.step.sleep("slow", span("1h")))

    return fn


@case(output=["late", "after"])
def race_won_by_the_shorter_sleep(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[str]:
        won = await ctx.step.race("first", ctx.step.sleep("long", span("2h")), _late(ctx))
        return [won, await ctx.step.run("after", lambda: "after")]

    def _late(ctx: Context[Go]) -> Any:
        return ctx.step.run("late", lambda: "late")

    return fn


@case(output=[3, "ann"], replies=[{"name": "par/reply", "data": {"n": 99, "who": "bob"}}, {"name": "par/reply", "data": {"n": 3, "who": "ann"}}])
def wait_with_where(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[Any]:
        reply = await ctx.step.wait_for_event("reply", Reply, where={"who": "ann", "n": 3}, timeout="1h")
        assert reply is not None
        assert reply.name == "par/reply"
        return [reply.data.n, reply.data.who]

    return fn


@case(output=7, replies=[{"name": "par/reply", "data": {"n": 6}}, {"name": "par/reply", "data": {"n": 7}}])
def wait_with_match_and_if(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        reply = await ctx.step.wait_for_event("reply", "par/reply", match="data.n", if_="async.data.n > 6", timeout="1h")
        assert reply is not None
        return reply.data["n"]

    return fn


@case(output=[["ann", 3], None, None], signals=[("approve", {"who": "ann", "n": 3})])
def signals(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[Any]:
        approval = await ctx.step.wait_for_signal("approval", "approve", type=Approval, timeout="1h")
        assert isinstance(approval, Approval)
        late = await ctx.step.wait_for_signal("late", "never", timeout=span("1h"), on_conflict="replace")
        return [[approval.who, approval.n], late, await ctx.step.send_signal("tell", "nobody-waits", {"a": 1})]

    return fn


@case(output="nobody")
def wait_that_times_out(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        return "nobody" if await ctx.step.wait_for_event("reply", Reply, timeout=span("2d")) is None else "somebody"

    return fn


@case(output=[1, 2], sent=[{"name": "par/reply", "data": {"n": 1, "who": ""}}, {"name": "par/reply", "data": {"n": 2, "who": "x"}}, {"name": "other/event", "data": {}}])
def sends(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        one = await ctx.step.send("one", Reply(n=1))
        two = await ctx.step.send("two", [Reply(n=2, who="x"), {"name": "other/event"}])
        assert all(len(sent) == 26 for sent in (*one, *two))
        return [len(one), len(two)]

    return fn


@case(output=[8, "Receipt", "CardDeclined", True, "could not find function with ID: par-nowhere"])
def invokes(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def add(ctx: Context[Go]) -> int:
        return await ctx.step.run("add", lambda: ctx.event.data.n + 1)

    @app.function(Go, retries=0)
    async def paid(ctx: Context[Go]) -> Receipt:
        return Receipt(ctx.event.data.n)

    @app.function(Go, retries=0)
    async def declined(ctx: Context[Go]) -> None:
        raise CardDeclined("no funds")

    @app.function("never/sent")
    async def fn(ctx: Context[Any]) -> list[Any]:
        total = await ctx.step.invoke("add", add, Go(n=ctx.event.data["n"]))
        receipt = await ctx.step.invoke("paid", paid, Go(n=1))
        out: list[Any] = [total, type(receipt).__name__]
        try:
            await ctx.step.invoke("declined", declined, Go())
        except StepError as error:
            out += [error.name, error.matches(CardDeclined)]
        try:
            await ctx.step.invoke("nowhere", FunctionRef("par/nowhere", Go, int), Go())
        except StepError as error:
            out.append(error.message)
        return out

    return fn


@case(output=["timed out", "InvokeTimeoutError", True])
def invoke_that_takes_too_long(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def slow(ctx: Context[Go]) -> None:
        await ctx.step.sleep("long", "1h")

    @app.function("never/sent")
    async def fn(ctx: Context[Any]) -> list[Any]:
        try:
            await ctx.step.invoke("slow", slow, Go(), timeout="1s")
        except InvokeTimeoutError as error:
            return ["timed out", error.name, error.matches(InvokeTimeoutError)]
        return []

    return fn


@case(output="third", notes=[1, 2, 3])
def a_step_that_recovers(app: App, notes: list[Any]) -> Any:
    def flaky() -> str:
        notes.append(len(notes) + 1)
        if len(notes) < 3:
            raise ConnectionError("down")
        return "third"

    @app.function(Go, retries=3, backoff=NOW)
    async def fn(ctx: Context[Go]) -> str:
        return await ctx.step.run("flaky", flaky)

    return fn


@case(output=["Expired", "card ended", True, True, False, "step 'charge' failed: Expired: card ended"], notes=["charge", "charge"])
def a_step_that_fails_for_good_and_is_handled(app: App, notes: list[Any]) -> Any:
    def charge() -> None:
        notes.append("charge")
        raise Expired("card ended")

    @app.function(Go, retries=1, backoff=NOW)
    async def fn(ctx: Context[Go]) -> list[Any]:
        try:
            await ctx.step.run("charge", charge)
        except StepError as error:
            await ctx.step.sleep("later", span("1h"))
            return [error.name, error.message, error.matches(Expired), error.matches(CardDeclined), error.matches(OSError), str(error)]
        return []

    return fn


@case(error=("CardDeclined", "no funds"), notes=["charge", "charge"])
def a_step_that_fails_the_function(app: App, notes: list[Any]) -> Any:
    def charge() -> None:
        notes.append("charge")
        raise CardDeclined("no funds")

    @app.function(Go, retries=1, backoff=NOW)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("charge", charge)

    return fn


@case(error=("NonRetriableError", "never"), notes=[1])
def a_step_that_is_not_worth_retrying(app: App, notes: list[Any]) -> Any:
    def never() -> None:
        notes.append(1)
        raise NonRetriableError("never")

    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("never", never)

    return fn


@case(output="caught never", notes=[1])
def not_worth_retrying_but_handled(app: App, notes: list[Any]) -> Any:
    def never() -> None:
        notes.append(1)
        raise NonRetriableError("never")

    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> str:
        try:
            await ctx.step.run("never", never)
        except StepError as error:
            return f"caught {error.message}"
        return ""

    return fn


@case(error=("ValueError", "outside steps"), notes=[0, 1, 2])
def a_function_that_fails(app: App, notes: list[Any]) -> Any:
    @app.function(Go, retries=2, backoff=NOW)
    async def fn(ctx: Context[Go]) -> None:
        notes.append(ctx.attempt)
        raise ValueError("outside steps")

    return fn


@case(output=["done", 1], notes=["once"])
def a_function_that_fails_between_steps_and_recovers(app: App, notes: list[Any]) -> Any:
    def once() -> str:
        notes.append("once")
        return "done"

    @app.function(Go, retries=2, backoff=NOW)
    async def fn(ctx: Context[Go]) -> list[Any]:
        found = await ctx.step.run("once", once)
        if ctx.attempt == 0:
            raise RetryAfterError("busy", span(30))
        return [found, ctx.attempt]

    return fn


@case(error=("NonRetriableError", "never"), notes=[0])
def a_function_that_is_not_worth_retrying(app: App, notes: list[Any]) -> Any:
    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> None:
        notes.append(ctx.attempt)
        raise NonRetriableError("never")

    return fn


@case(output=["ok", "ValueError"], notes=["good", "bad"])
def one_of_several_parallel_steps_fails(app: App, notes: list[Any]) -> Any:
    def good() -> str:
        notes.append("good")
        return "ok"

    def bad() -> str:
        notes.append("bad")
        raise ValueError("bad")

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> list[Any]:
        first, second = await asyncio.gather(ctx.step.run("good", good), ctx.step.run("bad", bad), return_exceptions=True)
        assert isinstance(second, StepError)
        return [first, second.name]

    return fn


@case(error=("ValueError", "bad"), notes=["bad"])
def a_task_group_with_a_failing_step(app: App, notes: list[Any]) -> Any:
    def bad() -> None:
        notes.append("bad")
        raise ValueError("bad")

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step.run("bad", bad))
                group.create_task(ctx.step.sleep("long", span("1h")))
        except* StepError as group_error:
            raise group_error.exceptions[0] from None

    return fn


@case(output=[14, True, 3, "ValueError", "done"], notes=[True], replies=[{"name": "par/reply", "data": {"n": 3}}])
def plain_def(app: App, notes: list[Any]) -> Any:
    import threading

    def double(n: int) -> int:
        notes.append(threading.current_thread() is not threading.main_thread())
        return n * 2

    async def asynchronous() -> bool:
        await asyncio.sleep(0)
        return True

    def bad() -> None:
        raise ValueError("bad")

    @app.function(Go, retries=0)
    def fn(ctx: SyncContext[Go]) -> list[Any]:
        first = ctx.step.run("double", double, ctx.event.data.n)
        ctx.step.sleep("nap", span("1h"))
        second = ctx.step.run("async", asynchronous)
        reply = ctx.step.wait_for_event("reply", Reply, timeout="1d")
        assert reply is not None
        assert ctx.now() <= ctx.now()
        ctx.step.send("send", Reply(n=1))
        name = ""
        try:
            ctx.step.run("bad", bad)
        except StepError as error:
            name = error.name
        return [first, second, reply.data.n, name, ctx.step.options(timeout="5s").run("done", lambda: "done")]

    return fn


@case(error=("StepTimeoutError", "step 'slow' took longer than its timeout of 0.05 s"))
def a_body_that_takes_too_long(app: App, notes: list[Any]) -> Any:
    async def slow() -> None:
        await asyncio.Event().wait()

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.options(timeout=0.05).run("slow", slow)

    return fn


@case(error=("StepUsageError", "step 'outer' was"))
def wrong_use_in_a_body(app: App, notes: list[Any]) -> Any:
    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> None:
        raise_in = ctx.step.run("outer", lambda: 1)
        await raise_in
        await raise_in

    return fn


@case(error=("NotSerializableError", "step 'nan'"))
def a_result_that_has_no_json_form(app: App, notes: list[Any]) -> Any:
    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("nan", lambda: float("nan"))

    return fn


@case(output=["pool", 7])
def resources_of_a_lifespan(app: App, notes: list[Any]) -> Any:
    @asynccontextmanager
    async def lifespan(app: App):
        yield {"pool": "pool"}

    app.lifespan = lifespan

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[Any]:
        return [ctx.resources["pool"], await ctx.step.run("n", lambda: ctx.event.data.n)]

    return fn


@case(error=("StepUsageError", "the function did not let Suspended pass"))
def a_function_that_swallows_suspended(app: App, notes: list[Any]) -> Any:
    @app.function(Go, retries=3)
    async def fn(ctx: Context[Go]) -> str:
        try:
            await ctx.step.sleep("long", "30d")
        except BaseException:
            return "swallowed"
        return "slept"

    return fn


@case(output=["x", "y"], notes=["lock x", "lock y"])
def tasks_that_wait_for_each_other(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[str]:
        lock = asyncio.Lock()

        async def under_lock(name: str) -> str:
            async with lock:
                return await ctx.step.run(name, body, name)

        def body(name: str) -> str:
            notes.append(f"lock {name}")
            return name

        return list(await asyncio.gather(under_lock("x"), under_lock("y")))

    return fn


@case(output=[1, 2], notes=["io", "one", "two"])
def awaits_outside_steps(app: App, notes: list[Any]) -> Any:
    @app.function(Go)
    async def fn(ctx: Context[Go]) -> list[int]:
        async def later() -> int:
            await asyncio.to_thread(lambda: None)
            return await ctx.step.run("two", body, "two", 2)

        def body(name: str, n: int) -> int:
            if name == "one":
                notes.append("io")
            notes.append(name)
            return n

        return list(await asyncio.gather(ctx.step.run("one", body, "one", 1), later()))

    return fn


def points() -> Database:
    """A database with a table, and holdfast's."""
    path = Path(tempfile.mkdtemp(prefix="hf-parity-")) / "points.db"
    with sqlite3.connect(path) as conn:
        conn.executescript(f"{database_schema('sqlite')} CREATE TABLE points (who TEXT)")
    conn.close()
    return Database(f"sqlite:///{path}")


@case(output=[["a", "b"], 2], notes=["a", "b", "b", "broken", "2 rows"])
def a_step_in_a_transaction(app: App, notes: list[Any]) -> Any:
    database = points()

    def add(conn: sqlite3.Connection, who: str) -> str:
        conn.execute("INSERT INTO points VALUES (?)", [who])
        notes.append(who)
        if notes == ["a", "b"]:
            raise OSError("the first try fails after its effect")
        return who

    async def broken(conn: Any) -> None:
        await conn.execute("INSERT INTO points VALUES ('broken')")
        notes.append("broken")
        raise NonRetriableError("no")

    def count(conn: sqlite3.Connection) -> int:
        (found,) = conn.execute("SELECT count(*) FROM points").fetchone()
        notes.append(f"{found} rows")
        return int(found)

    @app.function(Go, retries=1, backoff=NOW)
    async def fn(ctx: Context[Go]) -> list[Any]:
        step = ctx.step
        added = [await step.transaction("add", database, add, "a"), await step.transaction("add", database, add, who="b")]
        try:
            await step.transaction("broken", database, broken)
        except StepError as error:
            assert error.matches(NonRetriableError)
        return [added, await step.transaction("count", database, count)]

    return fn


@case(output=["a", 1], notes=["a"])
def a_step_in_a_transaction_of_a_plain_def(app: App, notes: list[Any]) -> Any:
    database = points()

    def add(conn: sqlite3.Connection, who: str) -> str:
        conn.execute("INSERT INTO points VALUES (?)", [who])
        notes.append(who)
        return who

    def count(conn: sqlite3.Connection) -> int:
        return int(conn.execute("SELECT count(*) FROM points").fetchone()[0])

    @app.function(Go)
    def fn(ctx: SyncContext[Go]) -> list[Any]:
        return [ctx.step.transaction("add", database, add, "a"), ctx.step.transaction("count", database, count)]

    return fn
