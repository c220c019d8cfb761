"""Three nodes on one PostgreSQL, while everything goes wrong that can: every promise is kept (fault tests 2 to 5)."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from postgres_process import postgres_process, start_again
from storm_checker import Checker
from storm_harm import HARMS, Storm, raging


pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def seed() -> int:
    """The seed of everything random: `HOLDFAST_SEED`, or a new one, printed with a failure."""
    given = os.environ.get("HOLDFAST_SEED")
    chosen = int(given) if given else random.SystemRandom().randrange(1 << 32)
    print(f"HOLDFAST_SEED={chosen}")
    return chosen


@pytest.fixture
def server() -> Iterator[Any]:
    """A server with all its syncs, which may be stopped at any moment."""
    with postgres_process() as server:
        yield server
        start_again(server)


async def rage(storm: Storm, harms: list[str], *, every: float, patience: float, after: float = 1) -> Checker:
    """So many events of harm, then peace; what the checker thinks of it."""
    async with raging(storm):
        orders = [asyncio.create_task(storm.order(every)) for _ in range(3)]
        for harm in harms:
            await asyncio.sleep(storm.random.uniform(0.3, 1.5))
            await storm.harm(harm)
            await storm.count_places()
        await asyncio.sleep(after)
        left = await storm.calm(patience, orders)
        checker = Checker(storm.ledger.lines(), storm.api)
        checker.wrong += [f"{count} rows of {table} are left" for table, count in left.items()]
        await checker.check()
    starts = [node.starts for node in storm.nodes]
    print(dict(storm.hit), f"{checker.events} events, {len(checker._runs)} runs, {len(checker._bodies)} bodies, ", end="")
    print(f"{checker.repeats} repeated, {checker.zombies} of zombies, {checker.occurrences} occurrences, starts {starts}")
    print(Counter(line["what"] for line in storm.ledger.lines()))
    return checker


async def check(server: Any, folder: Path, seed: int, harms: list[str], *, every: float, patience: float) -> None:
    storm = Storm(server, folder, seed)
    checker = await rage(storm, harms, every=every, patience=patience)
    wrong = checker.wrong + [f"a limit counts other places than are held: {leak}" for leak in storm.leaks]
    assert not wrong, f"HOLDFAST_SEED={seed} ({folder}): {len(wrong)} things are wrong\n" + "\n".join(wrong[:12])
    assert checker.events > 5
    assert checker.occurrences > 1


@pytest.mark.timeout(240)
async def test_a_storm(server, tmp_path, seed):
    harms = ["stop", "kill", "restart", "terminate", "hold", "leave"]
    random.Random(seed).shuffle(harms)
    await check(server, tmp_path, seed, harms, every=0.4, patience=120)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_storm_of_fifty_kills(server, tmp_path, seed):
    """And as many times something else: a restart of the server every few seconds among it."""
    chosen = random.Random(seed)
    harms = ["kill"] * 50 + [*HARMS, *chosen.choices(HARMS, (0, 3, 4, 2, 1, 1), k=44)]
    chosen.shuffle(harms)
    await check(server, tmp_path, seed, harms, every=0.5, patience=300)


@pytest.mark.timeout(240)
async def test_without_the_fence_the_storm_is_noticed(server, tmp_path):
    """The same checker over nodes that believe whoever reports, though it was declared dead: it finds what is broken."""
    storm = Storm(server, tmp_path, seed=1, nodes=2, unfenced=True)
    checker = await rage(storm, ["stop_busy"], every=0.1, patience=8, after=3)
    print(checker.wrong[:5], storm.leaks[:5])
    assert checker.wrong or storm.leaks, "nobody is fenced off, and nothing was noticed"
