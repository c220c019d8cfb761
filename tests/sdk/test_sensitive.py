"""Marking fields in models: found wherever they are, real for functions, masked in messages."""

from __future__ import annotations

import dataclasses
from typing import Annotated, TypedDict

import msgspec
import pytest
from pydantic import BaseModel, Field, SecretStr

from holdfast import App, ConfigurationError, Context, Event, EventInvalidError, Secret, Sensitive
from holdfast.sdk.sensitive import sensitive_paths
from holdfast.testing import AsyncHarness

pytestmark = pytest.mark.anyio
CANARY = "canary-5d1f"


class Card(BaseModel):
    number: Annotated[str, Sensitive()]
    holder: str = ""


class Paid(Event, name="shop/paid"):
    order_id: str
    token: Secret
    card: Card | None = None
    pin: Annotated[int, Sensitive(), Field(ge=1000)] = 1000
    api_key: Annotated[str, Sensitive()] | None = Field(None, alias="apiKey")
    past: list[Card] = []


class Receipt(BaseModel):
    secret: Secret
    number: Annotated[str, Sensitive()]


@dataclasses.dataclass
class Plain:
    code: Annotated[str, Sensitive()]
    more: dict[str, Card] | None = None


class Typed(TypedDict):
    code: Annotated[str, Sensitive()]


class Struct(msgspec.Struct, rename="camel"):
    long_code: Annotated[str, Sensitive()]
    again: "Struct | None" = None


class Tree(BaseModel):
    leaf: Annotated[str, Sensitive()]
    children: list["Tree"] = []


@pytest.mark.parametrize(
    ("annotation", "paths"),
    [
        (Paid, ("apiKey", "card.number", "past.number", "pin", "token")),
        (Plain, ("code", "more.number")),
        (Typed, ("code",)),
        (Struct, ("longCode",)),
        (Tree, ("leaf",)),
        (list[Card] | None, ("number",)),
        (str, ()),
        (dict, ()),
    ],
)
def test_marked_fields_are_found(annotation, paths):
    assert sensitive_paths(annotation) == paths


def test_a_secret_that_would_be_stored_as_asterisks_is_refused():
    class Lost(Event, name="shop/lost"):
        token: SecretStr

    with pytest.raises(ConfigurationError, match=r"Lost\.token is a SecretStr.*asterisks.*holdfast\.Secret"):
        App("shop", events=[Lost])


async def test_functions_get_the_real_value_and_so_do_their_results():
    app = App("shop", sensitive=["raw_token"])
    seen = []

    @app.function(Paid)
    async def charge(ctx: Context[Paid]) -> Receipt:
        async def inner() -> Receipt:
            data = ctx.event.data
            seen.append((data.token.get_secret_value(), data.card.number, data.pin))
            return Receipt(secret=data.token, number=data.card.number)

        receipt = await ctx.step.run("charge", inner)
        assert repr(receipt.secret) == "SecretStr('**********')"
        return receipt

    assert charge.config()["sensitive"] == ["apiKey", "card.number", "number", "past.number", "pin", "raw_token", "secret", "token"]
    async with AsyncHarness(app) as harness:
        event = Paid(order_id="o1", token=SecretStr(CANARY), card=Card(number="4242"), pin=1234)
        run = await harness.run(charge, event)
        assert run.output.secret.get_secret_value() == CANARY
        assert seen == [(CANARY, "4242", 1234)]


@pytest.mark.parametrize(
    "data",
    [
        {"order_id": "o", "token": [CANARY]},
        {"order_id": "o", "token": "x", "pin": CANARY},
        {"order_id": "o", "token": "x", "card": {"number": {"a": CANARY}}},
        {"order_id": 1, "token": "x", "card": [{"number": CANARY}]},
        {"order_id": {"token": CANARY}, "token": "x"},
        {"order_id": "o", "token": "x", "apiKey": [CANARY]},
    ],
)
async def test_messages_about_events_do_not_tell_what_marked_fields_were(data):
    app = App("shop", events=[Paid])
    async with AsyncHarness(app):
        with pytest.raises(EventInvalidError) as refused:
            await app.send({"name": "shop/paid", "data": data})
    assert CANARY not in str(refused.value)
    assert "does not fit its schema" in str(refused.value)


async def test_errors_do_not_tell_marked_values_of_the_event(caplog):
    app = App("shop", retries=0)

    @app.function(Paid)
    async def charge(ctx: Context[Paid]) -> None:
        def refuse(token: str) -> None:
            raise RuntimeError(f"the bank refused {token} at postgresql://shop:{'hunter'}2@db")

        await ctx.step.run("charge", refuse, ctx.event.data.token.get_secret_value())

    async with AsyncHarness(app) as harness:
        run = await harness.run(charge, Paid(order_id="o1", token=SecretStr(CANARY)))
        assert run.status == "FAILED"
        detail = await harness.engine.reader.run(run.id)
    for shown in (str(detail.error), str([step.error for step in detail.steps]), str(detail.run.error), caplog.text):
        assert CANARY not in shown
        assert "hunter2" not in shown
    assert "the bank refused [masked]" in str(detail.error)
