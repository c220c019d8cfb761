"""Descriptors that a forked process must not keep open: others take their end for the end of this process."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Holder(Protocol):
    """Something with open descriptors."""

    def descriptors(self) -> list[int]:
        """Those that are open now."""
        ...


_holders: WeakSet[Holder] = WeakSet()


def close_after_fork(holder: Holder) -> None:
    """In every process that is forked from this one, let go of what `holder` has open."""
    _holders.add(holder)


def _let_go() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for holder in list(_holders):
        for descriptor in holder.descriptors():
            # replaced and not closed: the copies of our objects would close the number again, when it is something else
            os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


os.register_at_fork(after_in_child=_let_go)
