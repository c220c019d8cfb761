"""P1: typed events: names, wire spelling, what fits, and what the sentences say that refuse the rest."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from holdfast import ConfigurationError, Event, EventInvalidError, ReceivedEvent
from holdfast.sdk.events import decode_data, encode_data, event_name, explain, wire_path, wire_scalar


class Address(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    street_name: str


class Confirmation(Event, name="email/purchase-confirmation"):
    model_config = ConfigDict(alias_generator=to_camel)

    order_id: str
    customer_email: str
    ship_to: Address | None = None
    extra: dict[str, int] = {}
    number: Annotated[int, Field(alias="no", ge=0)] = 0


class Colour(Enum):
    RED = "red"


def test_the_wire_has_the_aliases_and_python_the_names():
    event = Confirmation(order_id="o1", customer_email="a@b.c", ship_to=Address(streetName="Main"))
    wire = {"orderId": "o1", "customerEmail": "a@b.c", "shipTo": {"streetName": "Main"}, "extra": {}, "no": 0}
    assert json.loads(encode_data(event)) == wire
    assert decode_data(Confirmation, json.dumps(wire).encode()) == event
    assert decode_data(Confirmation, b'{"order_id":"o1","customer_email":"a@b.c"}').order_id == "o1"


def test_a_receiver_ignores_fields_it_does_not_know_and_a_sender_may_not_invent_them():
    assert decode_data(Confirmation, b'{"orderId":"o1","customerEmail":"a","new":1}').order_id == "o1"
    with pytest.raises(ValidationError, match="new"):
        Confirmation(order_id="o1", customer_email="a", new=1)


def test_fields_may_have_the_envelopes_names():
    class Odd(Event, name="odd"):
        name: str
        id: str
        ts: int
        data: dict[str, int]
        event: str
        model_id: str

    event = Odd(name="n", id="i", ts=1, data={"a": 1}, event="e", model_id="m")
    assert json.loads(encode_data(event)) == {"name": "n", "id": "i", "ts": 1, "data": {"a": 1}, "event": "e", "model_id": "m"}
    assert event_name(Odd) == "odd"


def test_a_class_without_a_name_is_an_error_that_shows_how_to_give_it_one():
    class Nameless(Event):
        x: int

    with pytest.raises(ConfigurationError, match=r"Nameless has no event name.*class Nameless\(Event, name='"):
        event_name(Nameless)


def test_a_name_that_is_too_long_is_an_error_at_the_class():
    with pytest.raises(ConfigurationError, match="class .*TooLong: event name is longer than 255"):

        class TooLong(Event, name="x" * 256):
            pass


def test_a_base_class_without_a_name_hands_down_its_fields():
    class Base(Event):
        order_id: str

    class Made(Base, name="made"):
        pass

    assert event_name(Made) == "made"
    assert json.loads(encode_data(Made(order_id="x"))) == {"order_id": "x"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_is_refused_and_the_field_named(value):
    class Measured(Event, name="measured"):
        label: str = "NaN is fine in text, and so is Infinity"
        values: list[float] = []

    assert encode_data(Measured())
    with pytest.raises(EventInvalidError, match=r"event 'measured'.*\$\.values\[1\]"):
        encode_data(Measured(values=[1.0, value]))


def test_a_field_changed_into_the_wrong_type_is_refused():
    event = Confirmation(order_id="o1", customer_email="a")
    event.number = "many"
    with pytest.raises(EventInvalidError, match=r"event 'email/purchase-confirmation' does not fit its schema: number: .*got 'many'"):
        encode_data(event)
    event.number = "5"
    assert json.loads(encode_data(event))["no"] == 5


def test_bytes_that_are_no_text_are_refused():
    class Upload(Event, name="upload"):
        content: bytes

    with pytest.raises(EventInvalidError, match="event 'upload' can't be written as JSON: .*utf-8"):
        encode_data(Upload(content=b"\xff"))


def test_each_field_that_does_not_fit_is_in_the_sentence():
    with pytest.raises(ValidationError) as caught:
        Confirmation.model_validate({"orderId": 5, "shipTo": {"street": "x"}, "no": -1, "nope": "y" * 200})
    sentence = explain(caught.value, "email/purchase-confirmation", Confirmation)
    assert sentence.startswith("event 'email/purchase-confirmation' does not fit its schema: ")
    for part in (
        "orderId: input should be a valid string (got 5)", "customerEmail: field required", "shipTo.streetName: field required",
        "no: input should be greater than or equal to 0 (got -1)", "nope: extra inputs are not permitted (got 'yyy",
    ):  # fmt: skip
        assert part in sentence
    assert len(sentence) < 600


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("order_id", "orderId"), ("orderId", "orderId"), ("number", "no"), ("ship_to.street_name", "shipTo.streetName"),
        ("shipTo.streetName", "shipTo.streetName"), ("extra.anything.goes", "extra.anything.goes"),
    ],
)  # fmt: skip
def test_paths_are_translated_to_the_wire(path, wire):
    assert wire_path(Confirmation, path) == wire


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("order", r"event 'email/purchase-confirmation' has no field 'order'; did you mean 'order_id'\? its fields are: customer_email, extra, number"),
        ("ship_to.street", r"has no field 'street' in Address; did you mean 'street_name'\? its fields are: street_name"),
        ("", "has no field ''"),
    ],
)
def test_a_path_that_is_not_there_is_refused_with_those_that_are(path, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        wire_path(Confirmation, path)


UUID1 = UUID(int=1)


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("a", "a"), (5, 5), (1.5, 1.5), (True, True), (None, None), (UUID1, str(UUID1)), (Colour.RED, "red"),
        (Decimal("1.50"), "1.50"), (date(2024, 1, 2), "2024-01-02"), (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00Z"),
    ],
)  # fmt: skip
def test_values_to_compare_with_are_as_json_has_them(value, wire):
    assert wire_scalar(value) == wire
    assert type(wire_scalar(value)) is type(wire)


@pytest.mark.parametrize("value", [[1], {"a": 1}, Address(streetName="x"), {1}])
def test_what_is_not_one_value_cannot_be_compared_with(value):
    with pytest.raises(TypeError, match="must be a string, number, bool or None"):
        wire_scalar(value)


class Everything(Event, name="everything"):
    when: datetime
    amount: Decimal
    note: str | None
    ids: list[UUID]


@given(
    st.builds(
        Everything, when=st.datetimes(timezones=st.just(UTC)), amount=st.decimals(allow_nan=False, allow_infinity=False),
        note=st.none() | st.text(st.characters(codec="utf-8")), ids=st.lists(st.uuids(), max_size=4),
    )
)  # fmt: skip
def test_what_is_sent_is_what_is_received(event):
    assert decode_data(Everything, encode_data(event)) == event


def test_a_received_event_is_envelope_and_data():
    data = Confirmation(order_id="o1", customer_email="a")
    event = ReceivedEvent("e1", "email/purchase-confirmation", 1_700_000_000_000, data)
    assert event.time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert event == ReceivedEvent("e1", "email/purchase-confirmation", 1_700_000_000_000, data)
    assert event != ReceivedEvent("e2", "email/purchase-confirmation", 1_700_000_000_000, data)
    assert "order_id='o1'" in repr(event)
