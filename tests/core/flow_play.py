"""What a test does to a world, as data: hypothesis makes plays, shrinks them, and prints them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from flow_world import JOB, STOP, WAKE, World
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

_many = os.environ.get("HOLDFAST_LONG")
PLAYS = settings(
    max_examples=int(_many or 25),
    derandomize=_many is None,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
"""How much is tried: little and always the same by default, as many plays as `HOLDFAST_LONG` says otherwise. A failing play is
shrunk and printed, with the `@reproduce_failure` that replays it."""


@dataclass(frozen=True)
class Send:
    """An event: of a tenant and a kind, `delay` ms ahead of its time (or behind), with an id if it has one."""

    tenant: str = "a"
    kind: str = "x"
    delay: int = 0
    key: str | None = None
    size: int = 0
    gold: int = 0

    def act(self, world: World) -> None:
        world.send(
            JOB, delay=self.delay, key=self.key, tenant=self.tenant, kind=self.kind, gold=self.gold, pad="." * self.size
        )


@dataclass(frozen=True)
class Signal:
    """A t/stop or t/wake of a tenant."""

    name: str
    tenant: str

    def act(self, world: World) -> None:
        world.send(self.name, tenant=self.tenant)


@dataclass(frozen=True)
class Pass:
    """So many ms go by."""

    ms: int

    def act(self, world: World) -> None:
        world.settle()
        world.clock.ms += self.ms


@dataclass(frozen=True)
class Do:
    """A run in memory does something: end, fail, record, widen, narrow, park (until woken), nap (`ms`)."""

    what: str
    which: int = 0
    ms: int = 0

    def act(self, world: World) -> None:
        body = world.body(self.which)
        if body is None:
            return
        if self.what in {"end", "fail"}:
            world.end(body, failed=self.what == "fail")
        elif self.what == "park":
            world.park(body, None)
        elif self.what == "nap":
            world.park(body, self.ms)
        else:
            getattr(world, self.what)(body)


@dataclass(frozen=True)
class Rest:
    """Commit one group of what was asked for so far (`settle`: and all that follows from it)."""

    settle: bool = False

    def act(self, world: World) -> None:
        if self.settle:
            world.settle()
        else:
            world.commit()


@dataclass(frozen=True)
class Kill:
    """Somebody cancels a run."""

    which: int

    def act(self, world: World) -> None:
        world.cancel(self.which)


@dataclass(frozen=True)
class Crash:
    """The process dies and comes back; `torn`: in the middle of a group."""

    torn: bool

    def act(self, world: World) -> None:
        world.crash(torn=self.torn)


@dataclass(frozen=True)
class Pause:
    """A function is paused; None resumes it."""

    slug: str
    how: str | None

    def act(self, world: World) -> None:
        world.settle()
        world.pause(self.slug, self.how)


@dataclass(frozen=True)
class Limit:
    """A limit is changed while it runs."""

    slug: str
    rule: str
    limit: int

    def act(self, world: World) -> None:
        world.settle()
        world.limit(self.slug, self.rule, self.limit)


def play(world: World, acts: list[Any]) -> World:
    """Do it all, let everything come to its end, and check what must hold whatever the rules are."""
    for act in acts:
        act.act(world)
    world.drain()
    return world


which = st.integers(0, 5)
tenants = st.sampled_from("aaabc")
rests: SearchStrategy[Any] = st.sampled_from([None, Rest(), Rest(settle=True), Rest(settle=True)])
ends = st.builds(Do, st.just("end"), which)


def sends(
    *, delays: tuple[int, ...] = (0,), keys: tuple[str | None, ...] = (None,), sizes: tuple[int, ...] = (0,), gold: tuple[int, ...] = (0,)
) -> SearchStrategy[Any]:
    """Events of three tenants and two kinds."""
    return st.builds(
        Send, tenants, st.sampled_from("xy"), st.sampled_from(delays), st.sampled_from(keys), st.sampled_from(sizes),
        st.sampled_from(gold),
    )  # fmt: skip


def passes(*ms: int) -> SearchStrategy[Any]:
    """Time goes by."""
    return st.builds(Pass, st.sampled_from(ms))


bodies: SearchStrategy[Any] = st.one_of(
    ends, ends, st.builds(Do, st.sampled_from(["fail", "record", "widen", "narrow", "park"]), which),
    st.builds(Do, st.just("nap"), which, st.sampled_from([0, 1, 700, 5000])),
    st.builds(Signal, st.just(WAKE), tenants),
)  # fmt: skip
crashes = st.builds(Crash, st.booleans())
kills = st.builds(Kill, which)
stops = st.builds(Signal, st.just(STOP), tenants)


def plays(*parts: SearchStrategy[Any], least: int = 12, most: int = 60) -> SearchStrategy[list[Any]]:
    """Lists of acts, each decided with the next, or in a group of its own, or with all that follows from it."""
    pairs = st.lists(st.tuples(st.one_of(*parts), rests), min_size=least, max_size=most)
    return pairs.map(lambda acts: [act for pair in acts for act in pair if act is not None])
