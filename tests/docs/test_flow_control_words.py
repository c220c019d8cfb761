"""What the reference says about refused settings is what they are refused with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from holdfast import (
    App,
    Batch,
    CancelOn,
    Concurrency,
    ConfigurationError,
    Debounce,
    Event,
    Idempotency,
    RateLimit,
    Singleton,
    Throttle,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


class Job(Event, name="t/job"):
    n: int


class OrderPaid(Event, name="t/order.paid"):
    n: int


async def slow(job: Job) -> int:
    return job.n


def of_another(order: OrderPaid) -> int:
    return order.n


BATCH = Batch(2, "1s")
REFUSED = [
    {"concurency": 1},
    {"retries": 21},
    {"concurrency": [1, 2, 3]},
    {"concurrency": -1},
    {"concurrency": Concurrency(1, scope="environment")},
    {"run_concurrency": [1, 2]},
    {"run_concurrency": 0},
    {"throttle": Throttle(1, "0s")},
    {"throttle": 5},
    {"throttle": Throttle(1, "1s", key="1 +")},
    {"rate_limit": RateLimit(0, "1s")},
    {"rate_limit": RateLimit(1, "25h")},
    {"debounce": Debounce("500ms")},
    {"debounce": Debounce("8d")},
    {"debounce": Debounce("10s", timeout="5s")},
    {"batch": Batch(1, "1s")},
    {"batch": Batch(2, "10ms")},
    {"batch": Batch(2, "1s", max_bytes=2**30)},
    {"batch": BATCH, "debounce": Debounce("1s")},
    {"singleton": Singleton("other")},
    {"idempotency": Idempotency("event.id", trailing=True)},
    {"idempotency": Idempotency("event.id", bucket="2d")},
    {"idempotency": "event.id", "rate_limit": RateLimit(1, "1s")},
    {"idempotency": Idempotency("event.id", bucket="1s", trailing=True), "debounce": Debounce("1s")},
    {"cancel_on": ["a", "b", "c", "d", "e", "f"]},
    {"cancel_on": CancelOn("a", if_="1 +")},
    {"priority": "1 +"},
    {"priority": 5},
    {"concurrency": Concurrency(1, key=slow)},
    {"concurrency": Concurrency(1, key=of_another)},
]


def refusal_of(settings: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        App("t").function(Job, id="job", **settings)(lambda ctx: None)
    return str(refused.value)


def patterns() -> list[str]:
    section = REFERENCE.read_text().split("| words | |")[1].split("\n\n")[0]
    words = [text for text in re.findall(r"`([^`]+)`", section) if " " in text]
    return [".*".join(re.escape(part) for part in text.split("...")) for text in words]


@pytest.mark.parametrize("settings", REFUSED, ids="-".join)
def test_the_words_of_a_refusal_are_in_the_reference(settings):
    message = refusal_of(settings)
    assert any(re.search(f"(^|: ){pattern}", message, re.DOTALL) for pattern in patterns()), message


@pytest.mark.parametrize("pattern", patterns(), ids=str)
def test_no_words_are_in_the_reference_that_nothing_is_refused_with(pattern):
    assert any(re.search(pattern, refusal_of(settings), re.DOTALL) for settings in REFUSED), pattern
