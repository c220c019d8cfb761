"""Durations, moments and Retry-After."""

from __future__ import annotations

import pytest

from holdfast.wire.errors import WireError
from holdfast.wire.times import go_span_ms, moment_ms, retry_after_ms, retry_after_text, span_ms

NOW = 1_800_000_000_000


@pytest.mark.protocol("values.spans")
@pytest.mark.parametrize(("text", "ms"), [("1h30m", 5_400_000), ("2d", 172_800_000), ("1w", 604_800_000), ("1w2d3h4m5s6ms", 788_645_006), ("0s", 0), ("1.5h", 5_400_000)])
def test_spans(text: str, ms: int) -> None:
    assert span_ms(text) == ms
    assert moment_ms(text, NOW) == NOW + ms


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1h 30m", "1y", "1h30", "٣h"])
def test_no_spans(text: str) -> None:
    with pytest.raises(WireError):
        span_ms(text)
    with pytest.raises(WireError):
        moment_ms(text, NOW)


@pytest.mark.protocol("values.spans")
@pytest.mark.parametrize(("text", "ms"), [("10s", 10_000), ("1m30s", 90_000), ("1.5h", 5_400_000), (".5s", 500), ("1.s", 1000)])
def test_gos_own_spans(text: str, ms: int) -> None:
    assert go_span_ms(text) == ms


@pytest.mark.parametrize("text", ["1d", "1w", "", "10", "-5s"])
def test_no_spans_of_gos(text: str) -> None:
    with pytest.raises(WireError):
        go_span_ms(text)


@pytest.mark.protocol("values.spans")
@pytest.mark.parametrize("text", ["2030-01-02T03:04:05.000Z", "2030-01-02T03:04:05+00:00", "2030-01-02T04:04:05+01:00"])
def test_dates(text: str) -> None:
    assert moment_ms(text, NOW) == 1_893_553_445_000


@pytest.mark.protocol("call.failed")
@pytest.mark.parametrize(
    ("text", "ms"),
    [
        (None, None), ("90", 90_000), ("1.5", 1500), ("0", 1000), ("9999999", 86_400_000), ("soon", None), ("", None),
        ("2027-01-15T08:00:30Z", 30_000), ("2027-01-15T08:00:30.500Z", 30_500), ("Fri, 15 Jan 2027 08:01:00 GMT", 60_000), ("2020-01-01T00:00:00Z", 1000),
    ],
)
def test_retry_after(text: str | None, ms: int | None) -> None:
    assert retry_after_ms(text, NOW) == ms


@pytest.mark.parametrize(("ms", "text"), [(1, "1"), (1000, "1"), (1001, "2"), (90_000, "90"), (10**12, "86400")])
def test_retry_after_is_written_in_whole_seconds_and_never_too_short(ms: int, text: str) -> None:
    assert retry_after_text(ms) == text
