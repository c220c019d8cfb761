"""Starting again from a step, with other input or another event."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from holdfast import App, Backoff, ConfigurationError, Context, Event, EventInvalidError, NonRetriableError, RunFailedError, StepError

pytestmark = pytest.mark.anyio
SOON = Backoff.constant(0.01)


class Go(Event, name="t/go"):
    order_id: str = "o1"
    amount: int = 5


class Shop:
    def __init__(self) -> None:
        self.app = App("t", backoff=SOON)
        self.log: list[Any] = []
        self.fails = 0
        self.broken = False

        def reserve(order_id: str) -> str:
            self.log.append(("reserve", order_id))
            return f"r-{order_id}"

        def charge(amount: int, on: date | None = None, *, currency: str = "EUR") -> str:
            self.log.append(("charge", amount, on, currency))
            if self.fails > 0:
                self.fails -= 1
                raise OSError("down")
            if self.broken:
                raise NonRetriableError("declined")
            return f"{amount} {currency}"

        def mail(text: str) -> str:
            self.log.append(("mail", text))
            return text

        @self.app.function(Go, retries=2)
        async def fn(ctx: Context[Go]) -> str:
            await ctx.step.run("reserve", reserve, ctx.event.data.order_id)
            paid = await ctx.step.run("charge", charge, ctx.event.data.amount, currency="USD")
            await ctx.step.sleep("a moment", 0)
            return await ctx.step.run("mail", mail, paid)

        self.fn = fn

    async def fails_for_good(self) -> str:
        self.broken = True
        handle = await self.app.start(self.fn, Go())
        with pytest.raises(RunFailedError):
            await handle.result(timeout=60)
        self.broken = False
        self.log.clear()
        return handle.id

    async def result(self, run_id: str) -> Any:
        return await self.app.handle(run_id, self.fn).result(timeout=60)


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_from_a_step_what_came_before_is_kept_and_all_after_is_done_again(engine_for, query, shop):
    async with engine_for(shop.app) as engine:
        handle = await shop.app.start(shop.fn, Go())
        await handle.result(timeout=60)
        before = query("SELECT * FROM steps ORDER BY run_id, key")
        shop.log.clear()
        again = await shop.app.rerun(handle.id, from_step="charge")
        assert await shop.result(again) == "5 USD"
        assert [what[0] for what in shop.log] == ["charge", "mail"]
        detail = await engine.reader.run(again)
        assert detail.notes == ("it begins at step 'charge' of the run it repeats",)
        assert detail.run.parent_id == handle.id
        assert (detail.run.origin, detail.run.event_id) == ("rerun", (await handle.info()).event_id)
        assert set(before) <= set(query("SELECT * FROM steps")), "the old run is as it was"


@pytest.mark.parametrize(
    ("given", "seen", "result"),
    [
        ([7], (7, None, "EUR"), "7 EUR"),
        (["7", "2026-03-01"], (7, date(2026, 3, 1), "EUR"), "7 EUR"),
        ({"args": [7], "kwargs": {"currency": "CHF"}}, (7, None, "CHF"), "7 CHF"),
        ({"kwargs": {"amount": 1, "currency": "CHF"}}, (1, None, "CHF"), "1 CHF"),
    ],
)
async def test_a_steps_input_is_replaced_and_converted(engine_for, shop, given, seen, result):
    async with engine_for(shop.app):
        handle = await shop.app.start(shop.fn, Go())
        await handle.result(timeout=60)
        shop.log.clear()
        assert await shop.result(await shop.app.rerun(handle.id, from_step="charge", input=given)) == result
        assert shop.log == [("charge", *seen), ("mail", result)]


async def test_an_edited_input_outlives_retries_and_leaving_memory(engine_for, shop):
    # without lingering, the run leaves memory between two attempts
    async with engine_for(shop.app, linger_ms=0) as engine:
        run_id = await shop.fails_for_good()
        shop.fails = 2
        again = await shop.app.redrive(run_id, input=[9])
        assert await shop.result(again) == "9 EUR"
        assert [what[:2] for what in shop.log] == [("charge", 9)] * 3 + [("mail", "9 EUR")]
        attempts = next(step for step in (await engine.reader.run(again)).steps if step.key == "charge").attempts
        assert [attempt.input for attempt in attempts] == [b"[9]"] * 2


async def test_the_input_of_an_attempt_that_failed_is_kept(engine_for, shop):
    async with engine_for(shop.app) as engine:
        run_id = await shop.fails_for_good()
        (charge,) = [step for step in (await engine.reader.run(run_id)).steps if step.key == "charge"]
        assert json.loads(charge.attempts[0].input or b"") == {"args": [5], "kwargs": {"currency": "USD"}}


@pytest.mark.parametrize("given", [object(), "x" * 70_000, Decimal("NaN")])
async def test_what_is_no_json_or_large_is_not_kept_and_does_no_harm(engine_for, query, given):
    app = App("t")

    def body(value: Any) -> None:
        raise NonRetriableError("no")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        await ctx.step.run("body", body, given)

    async with engine_for(app):
        handle = await app.start(fn, Go())
        with pytest.raises(RunFailedError, match="NonRetriableError: no"):
            await handle.result(timeout=60)
    assert query("SELECT input FROM attempts") == [(None,)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["much"], "amount: Input should be a valid integer, unable to parse string as an integer"),
        ([], "charge(amount: 'int', on: 'date | None' = None, *, currency: 'str' = 'EUR') -> 'str': missing a required argument: 'amount'"),
        ([1, "2026-13-01"], "the edited input of step 'charge' does not fit: on"),
        ([1, None, 3], "too many positional arguments"),
    ],
)  # fmt: skip
async def test_an_input_that_does_not_fit_fails_the_run_with_a_sentence(engine_for, shop, given, said):
    async with engine_for(shop.app):
        run_id = await shop.fails_for_good()
        with pytest.raises(RunFailedError) as caught:
            await shop.result(await shop.app.redrive(run_id, input=given))
        assert said in caught.value.message
        assert shop.log == [], "the body was not called"


async def test_redriving_with_an_edited_input_is_for_the_step_that_failed_and_happens_once(engine_for, query, shop):
    async with engine_for(shop.app):
        run_id = await shop.fails_for_good()
        both = await asyncio.gather(*(shop.app.redrive(run_id, input=[n]) for n in (8, 9)))
        assert len(set(both)) == 1
        assert await shop.result(both[0]) == "8 EUR"
    assert query("SELECT state FROM dead_letters") == [(1,)]


async def test_an_edited_event_is_an_event_of_its_own(engine_for, query, shop):
    async with engine_for(shop.app) as engine:
        handle = await shop.app.start(shop.fn, Go())
        await handle.result(timeout=60)
        shop.log.clear()
        again = await shop.app.rerun(handle.id, event_data={"order_id": "o2", "amount": 6})
        assert await shop.result(again) == "6 USD"
        assert shop.log[0] == ("reserve", "o2")
        old_id, new_id = (await handle.info()).event_id, (await engine.run_info(again)).event_id
        event = await engine.reader.event(new_id)
        assert (event.name, event.meta["edited_from"]) == ("t/go", old_id)
        assert json.loads((await engine.reader.event(old_id)).data)["order_id"] == "o1"
        assert [run.id for run in await engine.reader.event_runs(new_id)] == [again], "it started nothing else"
        both = await shop.app.rerun(handle.id, from_step="mail", event_data={"order_id": "o3"})
        assert await shop.result(both) == "5 USD", "steps that are kept keep their results"


@pytest.mark.parametrize(
    ("edit", "error", "said"),
    [
        ({"from_step": "nope"}, ConfigurationError, "it has no step 'nope'; it has 'reserve', 'charge', 'a moment', 'mail'"),
        ({"from_step": "a moment", "input": [1]}, ConfigurationError, "step 'a moment' is a sleep, which has no input"),
        ({"from_step": ""}, ConfigurationError, "it has no step ''"),
        ({"input": [1]}, ConfigurationError, "say which with from_step"),
        ({"from_step": "charge", "input": 5}, ConfigurationError, "the input of a step is a list"),
        ({"from_step": "charge", "input": {"amount": 5}}, ConfigurationError, "the input of a step is a list"),
        ({"event_data": {"amount": "much"}}, EventInvalidError, "the edited event does not fit its model"),
        ({"event_data": [1]}, EventInvalidError, "the data of an event is an object"),
    ],
)
async def test_edits_that_are_not_possible(engine_for, query, shop, edit, error, said):
    async with engine_for(shop.app):
        handle = await shop.app.start(shop.fn, Go())
        await handle.result(timeout=60)
        with pytest.raises(error, match=said):
            await shop.app.rerun(handle.id, **edit)
    assert query("SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM events)") == [(1, 1)]


async def test_a_failure_the_function_lives_with_is_kept_when_it_begins_after_it(engine_for):
    app = App("t")
    log: list[str] = []

    def body(name: str) -> str:
        log.append(name)
        if name == "first":
            raise NonRetriableError("no")
        return name

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> str:
        try:
            await ctx.step.run("first", body, "first")
        except StepError:
            await ctx.step.run("instead", body, "instead")
        return await ctx.step.run("last", body, "last")

    async with engine_for(app):
        handle = await app.start(fn, Go())
        await handle.result(timeout=60)
        log.clear()
        assert await app.handle(await app.rerun(handle.id, from_step="last"), fn).result(timeout=60) == "last"
    assert log == ["last"]


async def test_a_letter_that_did_not_fail_in_a_step_has_no_input_to_replace(engine_for):
    app = App("t")

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> None:
        raise ValueError("outside")

    async with engine_for(app):
        handle = await app.start(fn, Go())
        with pytest.raises(RunFailedError):
            await handle.result(timeout=60)
        with pytest.raises(ConfigurationError, match="did not fail in a step"):
            await app.redrive(handle.id, input=[1])


async def test_an_edited_input_is_taken_over_when_the_new_run_fails_as_well(engine_for, shop):
    async with engine_for(shop.app) as engine:
        run_id = await shop.fails_for_good()
        shop.broken = True
        again = await shop.app.redrive(run_id, input=[9])
        with pytest.raises(RunFailedError, match="declined"):
            await shop.result(again)
        shop.broken = False
        shop.log.clear()
        assert await shop.result(await shop.app.redrive(again)) == "9 EUR"
        assert await shop.result(await shop.app.rerun(again, from_step="charge")) == "9 EUR"
        assert await shop.result(await shop.app.rerun(again)) == "5 USD", "from the beginning nothing is kept"
        (charge,) = [step for step in (await engine.reader.run(again)).steps if step.key == "charge"]
        assert charge.error["name"] == "NonRetriableError"


async def test_an_edited_input_that_nobody_comes_by_is_said(engine_for, shop):
    by_charge = [True]
    app = App("t")

    def body(n: int) -> int:
        if by_charge[0]:
            raise NonRetriableError("no")
        return n

    @app.function(Go, retries=0)
    async def fn(ctx: Context[Go]) -> int:
        return await ctx.step.run("charge" if by_charge[0] else "other", body, 1)

    async with engine_for(app) as engine:
        handle = await app.start(fn, Go())
        with pytest.raises(RunFailedError):
            await handle.result(timeout=60)
        by_charge[0] = False
        again = await app.redrive(handle.id, input=[2])
        assert await app.handle(again, fn).result(timeout=60) == 1
        notes = (await engine.reader.run(again)).notes
        assert "the edited input of step 'charge' was not used: the function did not come by it" in notes


async def test_inputs_are_not_kept_where_that_is_turned_off(engine_for, query, shop):
    async with engine_for(shop.app, keep_inputs=False):
        await shop.fails_for_good()
    assert query("SELECT input FROM attempts") == [(None,)]
