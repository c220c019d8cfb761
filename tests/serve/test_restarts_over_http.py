"""Runs that are executed by calling an application are run again, and cancelled in number, like those in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast import App, Backoff, ConfigurationError, Context, Event, NonRetriableError
from holdfast.core.rows import RunStatus
from holdfast.sdk.sender import Edit
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings
from holdfast.store.reads import RunFilter
from holdfast.testing import Harness

pytestmark = pytest.mark.anyio


class Go(Event, name="far/go"):
    order_id: str = "o1"
    amount: int = 5


class Shop:
    """An app behind HTTP whose second step fails as often as the test says, alone or beside another."""

    def __init__(self, *, beside: bool = False) -> None:
        self.app = App("far", backoff=Backoff.constant(1))
        self.log: list[Any] = []
        self.fails = 0
        self.broken = False

        def reserve(order_id: str) -> str:
            self.log.append(("reserve", order_id))
            return f"r-{order_id}"

        def charge(amount: int, *, currency: str = "EUR") -> str:
            self.log.append(("charge", amount, currency))
            if self.fails > 0:
                self.fails -= 1
                raise OSError("down")
            if self.broken:
                raise NonRetriableError("declined")
            return f"{amount} {currency}"

        @self.app.function(Go, retries=2)
        async def fn(ctx: Context[Go]) -> str:
            await ctx.step.run("reserve", reserve, ctx.event.data.order_id)
            paid = ctx.step.run("charge", charge, ctx.event.data.amount, currency="USD")
            if beside:
                first, _ = await asyncio.gather(paid, ctx.step.run("mail", self.log.append, "mail"))
                return first
            return await paid

        @self.app.function("far/nap")
        async def nap(ctx: Context[Any]) -> None:
            await ctx.step.sleep("long", "30d")

    @asynccontextmanager
    async def called(self, served_by: Callable[[App, str], str]) -> AsyncIterator[Harness]:
        async with (
            Harness(App("hub"), patience=60) as h,
            serving(h.engine, ServerSettings(port=0)) as where,
        ):
            await asyncio.to_thread(served_by, self.app, f"http://127.0.0.1:{where.port}")
            yield h

    async def run(self, h: Harness, **data: Any) -> Any:
        sent = await h.send({"name": "far/go", "data": data})
        await h.settle()
        found = await h._read((await h.engine.reader.event_runs(sent.id))[0].id)
        self.log.clear()
        return found

    async def declined(self, h: Harness) -> str:
        self.broken = True
        run = await self.run(h)
        assert run.status == "FAILED"
        self.broken = False
        return run.id


async def outcome(h: Harness, run_id: str) -> tuple[str, Any]:
    await h.settle()
    run = await h._read(run_id)
    return run.status, run.output


async def test_a_rerun_begins_afresh_and_a_redrive_after_the_finished_steps(served_by):
    shop = Shop()
    async with shop.called(served_by) as h:
        failed = await shop.declined(h)
        assert await outcome(h, await h.engine.rerun(failed)) == ("COMPLETED", "5 USD")
        assert shop.log == [("reserve", "o1"), ("charge", 5, "USD")]
        shop.log.clear()
        again = await h.engine.redrive(failed)
        assert await outcome(h, again) == ("COMPLETED", "5 USD")
        assert shop.log == [("charge", 5, "USD")]
        assert await h.engine.redrive(failed) == again


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another step"])
@pytest.mark.parametrize("name", ["charge", None], ids=["by its name", "the one that failed"])
async def test_an_edited_input_is_the_steps_through_its_attempts(served_by, beside, name):
    shop = Shop(beside=beside)
    async with shop.called(served_by) as h:
        failed = await shop.declined(h)
        shop.fails = 2
        edit = Edit(from_step=name, input={"args": [9], "kwargs": {"currency": "CHF"}})
        again = await (h.engine.redrive(failed, edit) if name is None else h.engine.rerun(failed, edit))
        assert await outcome(h, again) == ("COMPLETED", "9 CHF")
        assert [one for one in shop.log if one != "mail"] == [("charge", 9, "CHF")] * 3


async def test_an_edited_input_is_kept_for_the_next_redrive(served_by):
    shop = Shop()
    async with shop.called(served_by) as h:
        failed = await shop.declined(h)
        shop.broken = True
        second = await h.engine.redrive(failed, Edit(input=[7]))
        assert (await outcome(h, second))[0] == "FAILED"
        shop.broken = False
        assert await outcome(h, await h.engine.redrive(second)) == ("COMPLETED", "7 EUR")


async def test_an_edited_event_is_what_the_application_gets(served_by):
    shop = Shop()
    async with shop.called(served_by) as h:
        first = await shop.run(h)
        again = await h.engine.rerun(first.id, Edit(event_data={"order_id": "o2", "amount": 3}))
        assert await outcome(h, again) == ("COMPLETED", "3 USD")
        assert shop.log[0] == ("reserve", "o2")


async def test_a_step_that_is_not_there_is_answered_with_the_names(served_by):
    shop = Shop()
    async with shop.called(served_by) as h:
        first = await shop.run(h)
        with pytest.raises(ConfigurationError, match="it has no step 'pay'; it has 'reserve', 'charge'"):
            await h.engine.rerun(first.id, Edit(from_step="pay"))


async def test_many_are_cancelled_and_run_again(served_by):
    shop = Shop()
    async with shop.called(served_by) as h:
        for _ in range(5):
            await h.send({"name": "far/nap", "data": {}})
        await h.settle(within=1)
        bulk = await h.engine.bulk("cancel", {"function": "far-nap"})
        await h.settle(within=1)
        assert (await h.engine.bulk_info(bulk)).done == 5
        runs = await h.engine.reader._pool.run(lambda conn: conn.execute("SELECT status, reason FROM runs").fetchall())
        assert set(runs) == {(RunStatus.CANCELLED, f"cancelled by python, bulk operation {bulk}")}
        bulk = await h.engine.bulk("rerun", {"function": "far-nap"})
        await h.settle(within=1)
        assert (await h.engine.bulk_info(bulk)).done == 5
        assert await h.engine.reader.count_runs(RunFilter(status=("WAITING",))) == 5
