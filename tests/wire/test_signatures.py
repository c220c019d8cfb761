"""Signatures: the official SDK's are accepted, ours are the same, and everything near them is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import ConfigurationError
from holdfast.wire.canonical import canonical_json
from holdfast.wire.errors import SignatureError
from holdfast.wire.signatures import hashed_key, sign, strip_prefix, verify

KEY = "signkey-test-" + "0123456789abcdef" * 4
OTHER = "signkey-prod-" + "fedcba9876543210" * 4
NOW = 1_800_000_000_123
BODY = b'{"a":1,"b":[2]}'
GOLDEN = json.loads((Path(__file__).parent / "golden" / "python_sdk.json").read_text())["sync"]


def test_the_official_sdks_signature_is_accepted_and_ours_is_the_same() -> None:
    probe = GOLDEN["probe"]["headers"]["x-inngest-signature"]
    then = int(re.findall(r"t=(\d+)", probe)[0]) * 1000
    assert verify(probe, b"null", [KEY], then) == KEY
    assert sign(b"null", KEY, then) == probe


def test_a_signature_of_the_moment_is_accepted_whichever_key_made_it() -> None:
    assert verify(sign(BODY, KEY, NOW), BODY, [KEY], NOW) == KEY
    assert verify(sign(BODY, OTHER, NOW), BODY, [KEY, OTHER], NOW) == OTHER
    assert verify(sign(BODY, strip_prefix(KEY), NOW), BODY, [KEY], NOW) == KEY


@pytest.mark.parametrize("age", [-300_000, -299_000, 0, 299_000, 300_000])
def test_five_minutes_either_way(age: int) -> None:
    assert verify(sign(BODY, KEY, NOW - NOW % 1000), BODY, [KEY], NOW - NOW % 1000 + age) == KEY


@pytest.mark.parametrize("age", [-301_000, 301_000, 10**9])
def test_and_not_longer(age: int) -> None:
    with pytest.raises(SignatureError, match="last five minutes"):
        verify(sign(BODY, KEY, NOW), BODY, [KEY], NOW + age)


@pytest.mark.parametrize(
    "header",
    [None, "", "t=1", "s=" + "a" * 64, f"t=x&s={'a' * 64}", f"t=-5&s={'a' * 64}", "t=1800000000&s=zz", "t=1800000000&s=" + "a" * 65, "t=" + "9" * 400, "\u0661", "t=١٨٠٠٠٠٠٠٠٠&s=" + "a" * 64],
)
def test_malformed_headers(header: str | None) -> None:
    with pytest.raises(SignatureError):
        verify(header, BODY, [KEY], NOW)


def test_a_changed_body_another_key_or_no_key() -> None:
    header = sign(BODY, KEY, NOW)
    for body, keys in ((BODY + b" x", [KEY]), (BODY, [OTHER]), (BODY, []), (b"", [KEY])):
        with pytest.raises(SignatureError, match="was not made with"):
            verify(header, body, keys, NOW)


def test_a_body_written_anew_on_its_way_is_still_the_same_json() -> None:
    value = {"b": [2], "a": 1.0}
    assert verify(sign(canonical_json(value), KEY, NOW), json.dumps(value, indent=2).encode(), [KEY], NOW) == KEY


@given(st.binary(max_size=40), st.integers(0, 63), st.sampled_from("0123456789abcdef"))
def test_one_wrong_digit_is_enough(body: bytes, place: int, digit: str) -> None:
    header = sign(body, KEY, NOW)
    start = header.index("s=") + 2 + place
    changed = header[:start] + digit + header[start + 1 :]
    if changed != header:
        with pytest.raises(SignatureError):
            verify(changed, body, [KEY], NOW)


def test_the_hash_that_travels_is_the_official_sdks() -> None:
    sent = GOLDEN["out_of_band_cloud"]["register"][0]["headers"]["authorization"]
    assert sent == f"Bearer {hashed_key(KEY)}"
    with pytest.raises(ConfigurationError, match="holdfast keys new"):
        hashed_key("signkey-test-xyz")
