"""Identifiers: order, text form, and what derived ids depend on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.ids import IdFactory, derived_id, name_uuid, step_hash, ulid_bytes, ulid_ms, ulid_text

MOMENTS = st.integers(0, 2**47)


@given(st.binary(min_size=16, max_size=16))
def test_text_and_bytes_are_the_same_id(raw):
    text = ulid_text(raw)
    assert len(text) == 26
    assert ulid_bytes(text) == raw
    assert ulid_bytes(text.lower()) == raw


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_text_sorts_as_the_bytes_do(a, b):
    assert (a < b) == (ulid_text(a) < ulid_text(b))


@given(st.lists(MOMENTS, min_size=1, max_size=50))
def test_ids_rise_strictly_even_when_the_clock_goes_back(moments):
    factory = IdFactory(seed=1)
    ids = [factory.new(ms) for ms in moments]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert ulid_ms(ids[0]) == moments[0]
    assert [ulid_ms(one) for one in ids] == [max(moments[: i + 1]) for i in range(len(moments))]


def test_ids_of_one_millisecond_cannot_be_guessed_from_one_another():
    factory = IdFactory()
    ids = [int.from_bytes(factory.new(1_700_000_000_000)) for _ in range(1000)]
    strides = {b - a for a, b in zip(ids, ids[1:], strict=False)}
    assert len(strides) > 900


def test_two_factories_do_not_meet():
    ids = {factory.new(5) for factory in [IdFactory() for _ in range(100)] for _ in range(10)}
    assert len(ids) == 1000


@pytest.mark.parametrize(
    "text", ["", "01ARZ3NDEKTSV4RRFFQ69G5FA", "01ARZ3NDEKTSV4RRFFQ69G5FAVX", "8" + "0" * 25, "01ARZ3NDEKTSV4RRFFQ69G5FAU"[:-1] + "I", "ü" * 26]
)
def test_what_is_not_a_ulid_is_refused(text):
    with pytest.raises(ValueError, match="not a ULID"):
        ulid_bytes(text)


@given(MOMENTS, st.lists(st.text() | st.binary(), min_size=1), st.lists(st.text() | st.binary(), min_size=1))
def test_derived_ids_depend_on_every_part_and_its_borders(ms, parts, others):
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    raw_others = [part.encode() if isinstance(part, str) else part for part in others]
    assert derived_id(ms, *parts) == derived_id(ms, *raw)
    assert (derived_id(ms, *parts) == derived_id(ms, *others)) == (raw == raw_others)
    assert ulid_ms(derived_id(ms, *parts)) == ms


def test_hash_and_uuid_are_those_of_the_protocol():
    assert step_hash("a") == "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"
    assert step_hash("a", 1) == step_hash("a:1")
    assert name_uuid("shop") == name_uuid("shop") != name_uuid("shop", "x")
