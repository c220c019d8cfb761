"""Durations: what can be written, what it means, what is refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ConfigurationError
from holdfast.base.duration import duration_ms, duration_text


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("90s", 90_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("1w", 604_800_000), ("250ms", 250), ("1.5h", 5_400_000),
        (0, 0), (1, 1000), (0.25, 250), (timedelta(days=7), 604_800_000), ("1500us", 2), ("0s", 0),
    ],
)  # fmt: skip
def test_durations(value, ms):
    assert duration_ms(value) == ms


@pytest.mark.parametrize(
    "value",
    ["", "5", "5 s", "1h 30m", "-1s", "1y", "s", "1h30", "five", "٥s s", -1, -0.1, True, float("nan"), float("inf"), timedelta(seconds=-1), 1e300],
)
def test_what_is_not_a_duration_is_refused_and_named(value):
    with pytest.raises(ConfigurationError, match="is not a duration") as caught:
        duration_ms(value)
    assert repr(value) in str(caught.value)


@given(st.integers(0, 10**14))
def test_text_reads_back(ms):
    assert duration_ms(duration_text(ms)) == ms


@pytest.mark.parametrize(("ms", "text"), [(0, "0s"), (5_400_000, "1h30m"), (86_400_001, "1d1ms"), (999, "999ms")])
def test_text_is_short(ms, text):
    assert duration_text(ms) == text
