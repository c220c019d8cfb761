"""P9: requests that enqueue never wait for the work. How soon they answer, `python -m bench.handlers` measures."""

from __future__ import annotations

import pytest

from bench.handlers import APPS, measure, running
from examples.demo.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
COARSE_MS = 10_000
"""Far more than the bound, on the busiest machine; far less than what is queued takes."""


async def check(name: str, folder, queued: int, requests: int, messages: int) -> None:
    async with running(name, folder) as place:
        ask = await APPS[name](place, messages)
        await place.queue(queued)
        times = await measure(ask, requests)
        assert len(times) == requests
        assert times[-1] < COARSE_MS, times[-20:]

        async def still_full() -> bool:
            return await place.waiting() > queued * 0.8  # counted once a second

        assert await until(still_full, 20), f"of {queued:,} only {await place.waiting():,} wait: the answers may have waited for the rest"


async def test_a_webhook_answers_beside_a_full_queue_and_steps_that_compute(tmp_path):
    await check("storefront", tmp_path, 5_000, 100, 0)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(APPS))
async def test_answers_beside_a_hundred_thousand_items_and_a_million_messages(name, tmp_path):
    await check(name, tmp_path, 100_000, 1000, 1_000_000)
