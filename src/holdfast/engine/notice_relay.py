"""Notices between nodes: a page that is open here shows what happens there.

Nobody is told anything while nobody looks. A node says with its lease whether somebody does, and the others then tell it what
they publish, coalesced; where nothing can be heard, it tells its own pages now and then that anything may have changed.
"""

from __future__ import annotations

from holdfast.engine.notices import Notice, Notices
from holdfast.store.api import MANY_CHANGED, Changed, SharedStore, Signal


class NoticeRelay:
    """Tells other nodes what is published here while somebody there looks, and brings here what they tell.

    Args:
        notices: Those of this node.
        store: What it shares with the others.
    """

    def __init__(self, notices: Notices, store: SharedStore) -> None:
        self._notices = notices
        self._store = store
        self._telling = False

    def start(self) -> None:
        """Begin."""
        self._notices.on_watched = self._store.look_soon

    def stop(self) -> None:
        """Tell nothing more."""
        self._notices.on_watched = None
        self._notices.detach(self)

    def looked(self) -> None:
        """After each look: whether somebody at another node wants to be told may have changed."""
        if self._store.watched and not self._telling:
            self._notices.attach(self)
            # what was published before anybody here knew of it
            self._store.tell(Signal(changed={MANY_CHANGED}))
        elif self._telling and not self._store.watched:
            self._notices.detach(self)
        self._telling = self._store.watched
        if not self._store.hears and self._notices.watched:
            self.heard({MANY_CHANGED})

    def put(self, notice: Notice) -> None:
        """Something was published here."""
        self._store.tell(Signal(changed={(notice.kind, notice.id, notice.function_id)}))

    def heard(self, changed: set[Changed]) -> None:
        """Something was published elsewhere."""
        for kind, about, function_id in changed:
            self._notices.publish_from_elsewhere(Notice(kind, about, function_id))
