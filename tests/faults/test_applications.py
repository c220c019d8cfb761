"""The example applications killed in the middle of their work: what was accepted is done, and nothing twice that must not be."""

from __future__ import annotations

import pytest
from fault_catalogue import CatalogueSiege
from fault_inbox import InboxSiege
from fault_siege import PATIENCE, Siege
from fault_storefront import StorefrontSiege
from fault_studio import StudioSiege
from fault_world import world

from examples.demo.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]  # processes start three times, on whatever machine

SCENES = {"catalogue": CatalogueSiege, "inbox": InboxSiege, "storefront": StorefrontSiege, "studio": StudioSiege}
KILLED = ("ProcessDiedError", "Unable to reach SDK URL", "Your server reset the connection")
"""What the dead letters say that only the kills are to blame for."""


async def besiege(name, folder, seed, redis, redis_url, kills, *, over_http=False) -> list[str]:
    """Kill it so often; the moments of the kills."""
    async with world(name, folder, seed, redis, redis_url, over_http=over_http) as around:
        scene = SCENES[name](around)
        siege = Siege(around.victims, around.tripwire, around.chosen)
        await siege.withstand(kills, scene.act)
        others: list[str] = []

        async def settled() -> bool:
            others[:] = [other for server in around.servers for other in await server.redrive_killed(*KILLED)]
            return await scene.settled()

        words = f"HOLDFAST_SEED={seed}, {folder}, killed when {siege.hits}"
        assert await until(settled, PATIENCE), f"{words}: not settled: {await around.unfinished()}"
        scene.kills = len(siege.hits)
        problems = await scene.broken()
        problems += [other for other in others if not any(word in other for word in getattr(scene, "FAILING", ()))]
        assert problems == [], f"{words}: " + "\n".join(problems)
    return siege.hits


@pytest.mark.parametrize("name", sorted(SCENES))
async def test_killed_with_its_engine(name, seed, tmp_path, store, redis_url):
    await besiege(name, tmp_path, seed, store, redis_url, 2)


@pytest.mark.long
async def test_one_killed_or_its_server_is(seed, tmp_path, store, redis_url):
    name = sorted(SCENES)[seed % len(SCENES)]
    await besiege(name, tmp_path, seed, store, redis_url, 2, over_http=True)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("over_http", [False, True], ids=["embedded", "over-http"])
@pytest.mark.parametrize("name", sorted(SCENES))
async def test_killed_again_and_again(name, over_http, seed, tmp_path, store, redis_url):
    hits: list[str] = []
    for round_ in range(6):
        store.flushall()  # a new database, and as new a Redis
        hits += await besiege(name, tmp_path / str(round_), seed + round_, store, redis_url, 8, over_http=over_http)
    for moment in ("asked", "done", "answered", "random"):
        assert moment in hits or name == "inbox", f"HOLDFAST_SEED={seed}: never killed when it had {moment}: {hits}"
