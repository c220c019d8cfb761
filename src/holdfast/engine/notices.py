"""What changed, for whoever watches: published after the commit, coalesced, and free when nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

_MAX_QUEUED = 1000


class Notice(msgspec.Struct, frozen=True):
    """Something changed."""

    kind: str
    """run, event, dead, function, bulk or progress: what a run says, or that a step of a followed run is recorded."""
    id: str
    """The run's or event's id; empty for many at once."""
    function_id: int = 0


class Listener(Protocol):
    """Whoever is told."""

    def put(self, notice: Notice) -> None:
        """Something has changed. Called on the engine's loop, after the commit."""
        ...


class Subscription:
    """One listener's queue; the same notice waits in it once."""

    def __init__(self) -> None:
        self._waiting: dict[Notice, None] = {}
        self._ready = asyncio.Event()

    def put(self, notice: Notice) -> None:
        """Queue a notice; a listener that is far behind is told that everything may have changed."""
        if len(self._waiting) >= _MAX_QUEUED:
            self._waiting.clear()
            notice = Notice("run", "")
        self._waiting[notice] = None
        self._ready.set()

    def __aiter__(self) -> AsyncIterator[Notice]:
        return self

    async def __anext__(self) -> Notice:
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        notice = next(iter(self._waiting))
        del self._waiting[notice]
        return notice


class _OfRun(Subscription):
    """One that hears of one run only, and of everything at once."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def put(self, notice: Notice) -> None:
        if notice.id in {self._run_id, ""}:
            super().put(notice)


class Notices:
    """The hub of one node."""

    def __init__(self) -> None:
        self._attached: set[Listener] = set()
        self._subscriptions: set[Subscription] = set()
        self.on_watched: Callable[[], None] | None = None
        """Called when somebody begins to look, and when nobody does any more."""
        self.followed: dict[str, int] = {}
        """Runs that somebody follows one by one, and how many do: of these, each step is told as well."""

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(self._subscriptions or self._attached)

    @property
    def watched(self) -> bool:
        """Whether somebody looks: a page, or who follows a run."""
        return bool(self._subscriptions)

    def publish(self, notice: Notice) -> None:
        """Tell everybody."""
        for listener in self._attached:
            listener.put(notice)
        self.publish_from_elsewhere(notice)

    def publish_from_elsewhere(self, notice: Notice) -> None:
        """Tell those who look what another node has published."""
        for subscription in self._subscriptions:
            subscription.put(notice)

    def attach(self, listener: Listener) -> None:
        """Tell a listener what is published here, until it is detached."""
        self._attached.add(listener)

    def detach(self, listener: Listener) -> None:
        """Tell it no more."""
        self._attached.discard(listener)

    @contextmanager
    def follow(self, run_id: str) -> Iterator[Subscription]:
        """Listen to what becomes of one run, each of its steps included, for as long as the block lasts."""
        self.followed[run_id] = self.followed.get(run_id, 0) + 1
        try:
            with self._subscribed(_OfRun(run_id)) as subscription:
                yield subscription
        finally:
            self.followed[run_id] -= 1
            if not self.followed[run_id]:
                del self.followed[run_id]

    def tell_all(self) -> None:
        """Everything may have changed, or ended."""
        self.publish(Notice("run", ""))

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Listen for as long as the block lasts: `with notices.subscribe() as stream: async for notice in stream`."""
        with self._subscribed(Subscription()) as subscription:
            yield subscription

    @contextmanager
    def _subscribed(self, subscription: Subscription) -> Iterator[Subscription]:
        self._subscriptions.add(subscription)
        self._tell_watched(1)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._tell_watched(0)

    def _tell_watched(self, turning: int) -> None:
        if self.on_watched is not None and len(self._subscriptions) == turning:
            self.on_watched()
