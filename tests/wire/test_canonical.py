"""JSON in canonical form: the examples of RFC 8785, and what has no such form."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.canonical import canonical_json, canonicalise, decode
from holdfast.wire.errors import WireError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def double(bits: str) -> float:
    return struct.unpack(">d", bytes.fromhex(bits))[0]


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"), ("8000000000000000", "0"), ("0000000000000001", "5e-324"), ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"), ("4340000000000000", "9007199254740992"), ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"), ("44b52d02c7e14af5", "9.999999999999997e+22"), ("44b52d02c7e14af6", "1e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"), ("444b1ae4d6e2ef50", "1e+21"), ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"), ("41b3de4355555553", "333333333.3333332"), ("becbf647612f3696", "-0.0000033333333333333333"),
    ],
)
def test_numbers_as_the_rfc_lists_them(bits: str, text: str) -> None:
    assert canonical_json(double(bits)) == text.encode()


def test_the_examples_of_the_rfc() -> None:
    given = b'{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false]}'
    expected = '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    assert canonicalise(given) == expected.encode()
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert [value for _, value in json.loads(canonical_json(keys), object_pairs_hook=list)] == [2, 4, 6, 7, 1, 5, 3]


@given(JSON)
def test_it_says_the_same_and_is_its_own_canonical_form(value: object) -> None:
    raw = canonical_json(value)
    assert json.loads(raw, parse_int=float) == value
    assert canonicalise(raw) == raw


@given(JSON, st.booleans())
def test_the_quick_way_is_the_same_way(value: object, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        expected: object = canonical_json(decode(raw))
    except WireError as error:
        expected = type(error)
    try:
        assert canonicalise(raw) == expected
    except WireError as error:
        assert type(error) is expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"b":1.0,"a":-0.0,"c":2.50}', '{"a":0,"b":1,"c":2.5}'), ('[0.0001,0.00001,1e15,1e16,1e21]', '[0.0001,0.00001,1000000000000000,10000000000000000,1e+21]'),
        ('[9007199254740993,123456789012345]', '[9007199254740992,123456789012345]'),
        ("9007199254740993", "9007199254740992"), ('{"a":-9007199254740993}', '{"a":-9007199254740992}'), ('"9007199254740993"', '"9007199254740993"'), ('{"\U0001f600":1,"\ufb33":2}', '{"\U0001f600":1,"\ufb33":2}'),
        ('{"\\ud83d\\ude00":1,"\ufb33":2}', '{"\U0001f600":1,"\ufb33":2}'), ('{"a":1,"a":2}', '{"a":2}'), ('"\u2028\\u001f\\/"', '"\u2028\\u001f/"'), (" null ", "null"),
    ],
)  # fmt: skip
def test_where_the_quick_way_ends(raw: str, expected: str) -> None:
    assert canonicalise(raw.encode()) == expected.encode()


def deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, {1: 2}, {"a": object()}, "\ud800", deep(500)], ids=lambda value: repr(value)[:12])
def test_what_has_no_form(value: object) -> None:
    with pytest.raises(WireError):
        canonical_json(value)


def test_bodies_that_are_no_json() -> None:
    for raw in (b"", b"{", b"\xff", b"nul", b"[" * 100_000, b'{"a":' * 100_000):
        with pytest.raises(WireError):
            decode(raw)
