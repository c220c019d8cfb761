"""Expressions may loop, and not for long."""

from __future__ import annotations

import time

import pytest

from holdfast.core.expression_cost import MAX_COST, cost_of, loop_depth
from holdfast.core.expressions import Expression


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("event.data.a == 1", 0),
        ("(event.data.a + 1) * 2 > size(event.data.list)", 0),
        ("event.data.list.exists(x, x > 1)", 1),
        ("event.data.list . exists_one (x, (x > 1))", 1),
        ("a.exists(x, x) && b.all(y, y)", 1),
        ("a.filter(x, x).map(y, y)", 1),
        ("a.exists(x, b.map(y, c.all(z, z == y)))", 3),
        ("a.exists(x, (b).filter(y, y == x).size() > 0)", 2),
        ("))).map(x, x)", 1),
    ],
)
def test_how_deep_it_loops(source, depth):
    assert loop_depth(source) == depth


def test_the_bound_is_exact():
    once, twice = "event.data.l.exists(x, x == 7)", "event.data.l.exists(x, event.data.l.exists(y, y == x && y == 7))"
    for source, length, fits in ((once, MAX_COST, True), (once, MAX_COST + 1, False), (twice, 1000, True), (twice, 1001, False)):
        event = {"data": {"l": [0] * (length - 1) + [7]}}
        assert (cost_of(source, loop_depth(source), [event]) <= MAX_COST) is fits
        assert Expression(source).matches(event=event) is fits, (source, length)


@pytest.mark.parametrize(
    "source",
    [
        "event.data.l.map(a, event.data.l.map(b, event.data.l.map(c, a + b + c))).size() > 0",
        "event.data.l.map(a, event.data.text + event.data.text).size() > 0",
        "(event.data.l + event.data.l + event.data.l + event.data.l).all(a, event.data.l.all(b, a == b))",
        "event.data.m.all(k, event.data.m.all(j, event.data.l.all(i, true)))",
    ],
)
def test_what_would_hold_up_everything_else_is_refused_at_once(source):
    event = {"data": {"l": list(range(2000)), "m": {f"k{n}": n for n in range(500)}, "text": "x" * 1_000_000}}
    expression = Expression(source)
    began = time.perf_counter()
    with pytest.raises(ValueError, match="would take up to"):
        expression.evaluate(event=event)
    assert expression.matches(event=event) is False
    assert time.perf_counter() - began < 20, "milliseconds, on a machine that is not busy"


def test_text_that_looks_like_a_loop_is_none():
    assert Expression("event.data.a == '.map(x, .map(y, .map('").matches(event={"data": {"a": ".map(x, .map(y, .map(", "l": [1] * 5000}})
