"""Declaring apps and functions: what is wrong is an error at definition, with the function and its line."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from holdfast import (
    App,
    Backoff,
    ConfigurationError,
    Context,
    Cron,
    CronTick,
    Event,
    FunctionFailed,
    FunctionRef,
    On,
    RetryPresets,
    SyncContext,
)


class Paid(Event, name="shop/paid"):
    order_id: str


class Shipped(Event, name="shop/shipped"):
    order_id: str


@pytest.fixture
def app():
    return App("shop")


def test_a_function_is_named_after_its_python_name(app):
    @app.function(Paid)
    async def send_purchase_confirmation(ctx: Context[Paid]) -> str:
        """Sends it."""
        return "sent"

    assert send_purchase_confirmation.id == "send-purchase-confirmation"
    assert send_purchase_confirmation.slug == "shop-send-purchase-confirmation"
    assert send_purchase_confirmation.__doc__ == "Sends it."
    assert app.functions == {"send-purchase-confirmation": send_purchase_confirmation}
    assert app.events == {"shop/paid": Paid}
    assert send_purchase_confirmation.result_type is str
    assert inspect.iscoroutinefunction(send_purchase_confirmation.fn)


def test_the_registration_document_is_the_protocols(app):
    @app.function(On(Paid, if_="event.data.order_id != ''"), Cron("@daily", tz="Europe/Paris"), id="f", name="F", retries=2, step_timeout="90s")
    async def anything(ctx: Context[Any]) -> None: ...

    config = anything.config()
    assert config["id"] == "shop-f"
    assert config["name"] == "F"
    assert config["triggers"] == [{"event": "shop/paid", "expression": "event.data.order_id != ''"}, {"cron": "TZ=Europe/Paris @daily"}]
    assert config["retries"] == 2
    assert config["stepTimeout"] == "1m30s"


def test_a_policy_as_retries_sets_number_and_delays(app):
    @app.function(Paid, retries=RetryPresets.scraper)
    async def one(ctx: Context[Paid]) -> None: ...

    @app.function(Paid, retries=RetryPresets.scraper, backoff=Backoff.constant("1s"))
    async def two(ctx: Context[Paid]) -> None: ...

    assert (one.options.retries, one.options.backoff) == (2, RetryPresets.scraper)
    assert (two.options.retries, two.options.backoff) == (2, Backoff.constant("1s").replace(transient_only=True))


def test_the_apps_defaults_hold_where_a_function_says_nothing():
    app = App("shop", retries=1, backoff=Backoff.constant(2))

    @app.function(Paid)
    async def one(ctx: Context[Paid]) -> None: ...

    @app.function(Paid, retries=0)
    async def two(ctx: Context[Paid]) -> None: ...

    assert (one.options.retries, one.options.backoff) == (1, Backoff.constant(2))
    assert two.options.retries == 0


WRONG_SETTINGS = [
    ({"id": "has space"}, "function id 'has space' may have letters"),
    ({"id": "-x"}, "function id '-x'"),
    ({"retries": -1}, "retries must be 0 to 20, not -1"),
    ({"retries": 21}, "retries must be 0 to 20, not 21"),
    ({"retries": True}, "retries must be 0 to 20, not True"),
    ({"retries": "3"}, "retries must be 0 to 20, not '3'"),
    ({"retries": Backoff.constant(1, attempts=22)}, "retries must be 0 to 20, not 21"),
    ({"backoff": "1s"}, r"backoff must be a policy such as Backoff.exponential\('1s'\), not '1s'"),
    ({"step_timeout": "soon"}, "'soon' is not a duration"),
    ({"step_timeout": 0}, "step_timeout must be longer than nothing"),
    ({"aliases": "old"}, r"aliases is a list of ids: aliases=\['old'\]"),
    ({"retrys": 3}, "unknown setting 'retrys'; did you mean 'retries'?"),
    ({"on_failure": "mail"}, "'mail' is not a function"),
    ({"on_failure": lambda: None}, "takes one argument, its context, not 0"),
]


@pytest.mark.parametrize(("settings", "sentence"), WRONG_SETTINGS, ids=lambda value: str(value)[:40])
def test_a_setting_that_cannot_be_used_names_function_and_line(app, settings, sentence):
    async def broken(ctx: Context[Paid]) -> None: ...

    with pytest.raises(ConfigurationError, match=sentence) as caught:
        app.function(Paid, **settings)(broken)
    if "on_failure" not in settings:
        assert str(caught.value).startswith(f"{__file__}:{broken.__code__.co_firstlineno}, function ")
        assert "broken" in str(caught.value)


WRONG_TRIGGERS = [
    ([], "needs at least one trigger"),
    ([Paid] * 2, "trigger 'shop/paid' is given twice"),
    ([f"e/{n}" for n in range(11)], "may have 10 triggers, not 11"),
    ([On(Paid, if_="event.data.")], "invalid trigger expression on 'shop/paid': 'event.data.' is not a valid expression"),
    ([Cron("61 * * * *")], "'61 [*] [*] [*] [*]' isn't a valid cron schedule"),
    ([Cron("* * * *")], "it needs five fields"),
    ([Cron("@daily", tz="Europe/Lutetia")], "'Europe/Lutetia' isn't a known time zone"),
    ([""], "event name is empty"),
    (["x" * 256], "event name is longer than 255 characters"),
    ([5], "5 is not a trigger; pass an Event class, an event name"),
    ([str], "is not a trigger"),
    ([On(str)], "is not a trigger"),
]


@pytest.mark.parametrize(("triggers", "sentence"), WRONG_TRIGGERS, ids=lambda value: str(value)[:40])
def test_a_trigger_that_cannot_be_used_names_function_and_line(app, triggers, sentence):
    async def broken(ctx: Context[Any]) -> None: ...

    with pytest.raises(ConfigurationError, match=sentence) as caught:
        app.function(*triggers)(broken)
    assert str(caught.value).startswith(f"{__file__}:{broken.__code__.co_firstlineno}, function ")
    assert app.functions == {}


def test_what_is_no_durable_function_is_refused(app):
    async def none() -> None: ...
    async def two(ctx: Context[Paid], more: int) -> None: ...
    async def yields(ctx: Context[Paid]):
        yield 1

    def generates(ctx: SyncContext[Paid]):
        yield 1

    async def wrong_face(ctx: SyncContext[Paid]) -> None: ...
    def wrong_face_too(ctx: Context[Paid]) -> None: ...
    async def keyword_only(*, ctx: Context[Paid]) -> None: ...

    for fn, sentence in [
        (none, "takes one argument, its context, not 0"),
        (two, "takes one argument, its context, not 2"),
        (yields, "must return its result, not yield"),
        (generates, "must return its result, not yield"),
        (wrong_face, "an `async def` function receives a Context, not a SyncContext"),
        (wrong_face_too, "a plain `def` function receives a SyncContext, not a Context"),
        (keyword_only, "takes one argument"),
    ]:
        with pytest.raises(ConfigurationError, match=sentence) as caught:
            app.function(Paid)(fn)
        assert f"function {fn.__qualname__}" in str(caught.value)
    assert app.functions == {}


def test_defaults_and_unannotated_contexts_are_fine(app):
    @app.function(Paid)
    async def one(ctx, extra=5): ...

    @app.function(Paid)
    def two(ctx, *args, **kwargs): ...

    assert set(app.functions) == {"one", "two"}


def test_two_functions_with_one_id_name_both_lines(app):
    @app.function(Paid, aliases=["former"])
    async def charge(ctx: Context[Paid]) -> None: ...

    async def other(ctx: Context[Paid]) -> None: ...

    for settings in ({"id": "charge"}, {"id": "former"}, {"aliases": ["charge"]}, {"aliases": ["former"]}):
        with pytest.raises(ConfigurationError) as caught:
            app.function(Paid, **settings)(other)
        message = str(caught.value)
        assert "is taken by" in message
        assert "id=..." in message
        assert f":{other.__code__.co_firstlineno}, function" in message
        assert f":{charge.fn.__code__.co_firstlineno}, function" in message
    assert set(app.functions) == {"charge"}


def test_two_classes_with_one_event_name_are_refused(app):
    app.declare(Paid)
    app.declare(Paid)

    class Other(Event, name="shop/paid"):
        x: int

    with pytest.raises(ConfigurationError, match=r"event 'shop/paid' is declared by two classes: .*Paid and .*Other; keep one"):
        app.declare(Other)


@pytest.mark.parametrize("app_id", ["", "my shop", "shop/eu", "läden", "a:b"])
def test_an_app_id_is_for_the_wire(app_id):
    with pytest.raises(ConfigurationError, match="app id"):
        App(app_id)


@pytest.mark.parametrize("settings", [{"retries": 50}, {"backoff": "1s"}])
def test_an_apps_defaults_are_checked_with_the_app(settings):
    with pytest.raises(ConfigurationError, match="app 'shop': "):
        App("shop", **settings)


def test_failure_handlers_are_functions_of_their_own():
    async def tell(ctx: Context[FunctionFailed]) -> None: ...

    app = App("shop", on_failure=tell)

    @app.function(Paid, on_failure=tell)
    async def charge(ctx: Context[Paid]) -> None: ...

    assert set(app.functions) == {"app-failure", "charge", "charge-failure"}
    assert app.functions["charge-failure"].config()["triggers"] == [
        {"event": "inngest/function.failed", "expression": "event.data.function_id == 'shop-charge'"}
    ]
    assert app.events == {"shop/paid": Paid}


def test_a_function_can_be_called_plainly_in_a_unit_test(app):
    @app.function(Paid)
    def pack(ctx: SyncContext[Paid]) -> str:
        return f"packed {ctx.event}"

    @app.function(Paid)
    async def ship(ctx: Context[Paid]) -> str:
        return f"shipped {ctx.event}"

    class Stand:
        event = "o1"

    assert pack(Stand()) == pack.fn(Stand()) == "packed o1"
    assert asyncio.run(ship(Stand())) == "shipped o1"


def test_annotations_may_name_what_is_defined_later(app):
    @app.function(Paid)
    async def early(ctx: Context[Paid]) -> Later: ...

    assert early.result_type is Later


class Later:
    pass


def test_references_name_app_and_function():
    assert FunctionRef("billing/charge", Paid, str).slug == "billing-charge"
    for wrong in ("charge", "/charge", "billing/", "a/b/c", "billing/ charge"):
        with pytest.raises(ConfigurationError, match="write it as 'app/function'"):
            FunctionRef(wrong, Paid, str)


def test_a_wildcard_takes_any_data(app):
    @app.function("shop/*")
    async def audit(ctx: Context[Any]) -> None: ...

    assert audit.config()["triggers"] == [{"event": "shop/*"}]
    assert app.events == {}


def test_cron_functions_declare_no_event(app):
    @app.function(Cron("0 9 * * *"))
    async def nightly(ctx: Context[CronTick]) -> None: ...

    assert app.events == {}
