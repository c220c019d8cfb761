"""Masking fields by name, hiding values, and credentials in text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import ConfigurationError
from holdfast.base.masks import MASKED, Masks, hide, hide_credentials, hide_in_document, holds_mask

CANARY = "canary-7f3a"


def shown(raw: str, *paths: str) -> object:
    return json.loads(Masks(paths).document(raw.encode()))


def test_a_field_is_masked_wherever_it_is():
    document = '{"token":"a","deep":[{"token":{"x":1}},{"other":"a","token":[1,2]}],"tokens":"b","token2":3}'
    assert shown(document, "token") == {"token": MASKED, "deep": [{"token": MASKED}, {"other": "a", "token": MASKED}], "tokens": "b", "token2": 3}


def test_a_path_wants_the_names_around_it():
    document = '{"card":{"number":1},"number":2,"x":{"card":[{"number":3,"more":{"number":4}}]},"discard":{"number":5}}'
    assert shown(document, "card.number") == {
        "card": {"number": MASKED}, "number": 2, "x": {"card": [{"number": MASKED, "more": {"number": 4}}]}, "discard": {"number": 5},
    }  # fmt: skip
    assert shown('{"a":{"b":{"c":1}},"b":{"c":2}}', "a.b.c", "b.d") == {"a": {"b": {"c": MASKED}}, "b": {"c": 2}}


def test_what_is_not_there_is_left_as_it_was_to_the_byte():
    for raw in (b'{"a": 1.10, "b":1e400}', b"[]", b"not json", b'"token"', b"null"):
        assert Masks(["tok"]).document(raw) == raw
    assert Masks([]).document(b'{"token":1}') == b'{"token":1}'
    assert Masks(["token"]).document(b'{"token":null}') == b'{"token":null}'


def test_numbers_beside_it_keep_their_digits():
    raw = Masks(["t"]).document(b'{"t":1,"a":1.10,"b":12345678901234567890123,"c":0.1000000000000000055}')
    assert raw == b'{"t":"[masked]","a":1.10,"b":12345678901234567890123,"c":0.1000000000000000055}'


def test_escapes_in_a_key_are_no_way_round():
    assert b"secret!" not in Masks(["token"]).document(b'{"t\\u006fken":"secret!"}')
    assert b"secret!" not in Masks(["schlüssel"]).document('{"schl\\u00fcssel":"secret!"}'.encode())
    assert b"secret!" not in Masks(['a"b']).document(b'{"a\\"b":"secret!"}')


def test_what_can_not_be_looked_through_is_not_shown():
    assert Masks(["token"]).document(b'{"token":"x') == b'"[masked]"'
    assert Masks(["token"]).document(b"[" * 100_000 + b'{"token":1}' + b"]" * 100_000) == b'"[masked]"'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["token", "card", "number", "other"]) | st.text(), inner),
    max_leaves=15,
)


@given(JSON, st.sampled_from(["token", "card.number"]))
def test_no_marked_value_survives_in_any_document(document, path):
    def planted(value: object, around: tuple[str, ...] = ()) -> object:
        if isinstance(value, dict):
            marked = lambda key: (*around, key)[-len(path.split(".")) :] == tuple(path.split("."))  # noqa: E731
            return {key: [CANARY, {"x": CANARY}] if marked(key) else planted(item, (*around, key)) for key, item in value.items()}
        return [planted(item, around) for item in value] if isinstance(value, list) else value

    raw = json.dumps(planted(document)).encode()
    assert CANARY.encode() not in Masks([path]).document(raw)
    if CANARY.encode() in raw:
        assert Masks([path]).hidden_in(raw) == {CANARY}


def test_values_are_hidden_elsewhere():
    masks = Masks(["token", "pin"])
    values = masks.hidden_in(b'{"token":"abcdef-1","pin":1234,"deep":{"token":["abcdef",987654321.50,true,null]}}')
    assert values == {"abcdef-1", "abcdef", "987654321.50"}, "short ones would hide half of the text"
    assert hide("failed for abcdef-1 and abcdef", values) == "failed for [masked] and [masked]"
    assert hide_in_document(b'{"abcdef":["x abcdef-1",987654321.50,1.0,true]}', values) == b'{"[masked]":["x [masked]","[masked]",1.0,true]}'


def test_a_mask_is_told_from_a_value():
    assert holds_mask({"a": [{"b": MASKED}]})
    assert not holds_mask({"a": [f"{MASKED}!", 1, None], MASKED: 1})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://app:s3cr3t@db/shop", "postgresql://app:[masked]@db/shop"),
        ("redis://:s3cr3t@cache:6379/0 is down", "redis://:[masked]@cache:6379/0 is down"),
        ("smtp://u:p@ss:w0rd@mail", "smtp://u:[masked]@mail"),
        ("signkey-prod-" + "0a" * 32, "signkey-prod-[masked]"),
        ("http://localhost:8288/a@b http://x/y:z", "http://localhost:8288/a@b http://x/y:z"),
        ("nothing", "nothing"),
    ],
)
def test_credentials_in_text(text, shown):
    assert hide_credentials(text) == shown


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a b"])
def test_what_names_no_field(path):
    with pytest.raises(ConfigurationError, match="names no field"):
        Masks([path])
