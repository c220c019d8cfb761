"""Expressions over events: what holds, what missing fields are, and what can't be compiled."""

import pytest

from holdfast import ConfigurationError
from holdfast.core.expressions import MAX_EXPRESSION_LENGTH, compile_expression, field_equals

EVENT = {
    "name": "shop/order.paid",
    "id": "e1",
    "ts": 1_700_000_000_000,
    "data": {"order_id": "o1", "amount": 5, "vip": True, "note": None, "items": [{"sku": "a"}, {"sku": "b"}], "where": {"city": "Oslo"}},
}


@pytest.mark.parametrize(
    "source",
    [
        "event.data.amount > 3",
        "event.data.amount == 5 && event.data.vip",
        "event.data.order_id == 'o1'",
        'event.data.order_id in ["o1", "o2"]',
        "event.data.where.city.startsWith('Os')",
        "event.data.items.exists(i, i.sku == 'b')",
        "event.data.items.size() == 2",
        "event.data.items[0].sku == 'a'",
        "event.name == 'shop/order.paid' && event.ts > 0",
        "has(event.data.amount)",
        "event.data.note == null",
    ],
)
def test_holds(source):
    assert compile_expression(source).matches(event=EVENT)


@pytest.mark.parametrize(
    "source",
    [
        "event.data.missing == null",
        "event.data.missing.deeper.still == null",
        "event.data.missing != 'x'",
        "event.data.where.street == null",
        "!has(event.data.missing)",
        "event.data.order_id == 'o1' || event.data.missing.x == 1",
    ],
)
def test_missing_fields_read_as_null(source):
    assert compile_expression(source).matches(event=EVENT)


@pytest.mark.parametrize(
    "source",
    [
        "event.data.amount > 100",
        "event.data.order_id > 5",
        "event.data.missing > 5",
        "event.data.order_id",
        "event.data.order_id == 'event.data.order_id'",
        "event.data.nothing.startsWith('x')",
        "nonsense.data == 1",
    ],
)
def test_what_is_false_or_cannot_be_evaluated_does_not_hold(source):
    assert not compile_expression(source).matches(event=EVENT)


def test_the_awaited_event_is_called_async():
    same = compile_expression("event.data.order_id == async.data.order_id")
    assert same.matches(event=EVENT, **{"async": {"data": {"order_id": "o1"}}})
    assert not same.matches(event=EVENT, **{"async": {"data": {"order_id": "o2"}}})
    assert not same.matches(event=EVENT, **{"async": {"data": {}}})


def test_evaluating_changes_nothing():
    before = repr(EVENT)
    compile_expression("event.data.a.b.c == null && event.data.where.street == null").matches(event=EVENT)
    assert repr(EVENT) == before


@pytest.mark.parametrize("source", ["event.data.amount >", "event.data.", "1 +", "", "event.data.amount = 5", "(", "x" * (MAX_EXPRESSION_LENGTH + 1)])
def test_what_is_no_expression_is_refused(source):
    with pytest.raises(ConfigurationError):
        compile_expression(source)


@pytest.mark.parametrize("name", ["order_id", "order-id", "orderId", "in", "loop", "true", "2nd", "größe", 'quo"te', "with space", "a.b", "in.as", "x-y.z", "[0]", "a[b"])
@pytest.mark.parametrize("value", ["o1", 'quo"te \\ \u2603 \n', 5, 1.5, True, False, None])
def test_a_field_is_compared_whatever_it_is_called(name, value):
    *holders, last = name.split(".")
    expression = compile_expression(field_equals("async.data", name, value))

    def event(fields):
        for holder in reversed(holders):
            fields = {holder: fields}
        return {"async": {"data": fields}}

    assert expression.matches(**event({last: value}))
    assert not expression.matches(**event({last: "other"}))
    assert expression.matches(**event({})) is (value is None)
