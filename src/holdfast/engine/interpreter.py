"""Two settings of the interpreter that an engine adjusts while it runs, and gives back: each only if nobody else has set it."""

from __future__ import annotations

import gc
import sys

_YOUNG = 20_000
"""Allocations between collections of the youngest generation. The interpreter's 700 to 2,000 cost 13% of a run, measured."""
_DEFAULT_YOUNG = {700, 2000}
_SWITCH_SECONDS = 0.0005
"""How long a computing thread may keep the interpreter from one that waits for it. With the default of 5 ms, a thread that
computes without pause slows the engine to a tenth: each statement gives the interpreter up and waits to get it back."""
_DEFAULT_SWITCH = 0.005


class Interpreter:
    """The adjustments of one engine."""

    def __init__(self) -> None:
        self._threshold: tuple[int, int, int] | None = None
        self._switch: float | None = None

    def relax_collector(self) -> None:
        """From now on, collect the youngest generation of objects less often."""
        before = gc.get_threshold()
        if before[0] in _DEFAULT_YOUNG:
            self._threshold = before
            gc.set_threshold(_YOUNG, *before[1:])

    def switch_sooner(self) -> None:
        """Something computes beside the engine: let threads change places sooner."""
        before = sys.getswitchinterval()
        if abs(before - _DEFAULT_SWITCH) < 1e-6:
            self._switch = before
            sys.setswitchinterval(_SWITCH_SECONDS)

    def restore(self) -> None:
        """As it was before."""
        if self._threshold is not None:
            gc.set_threshold(*self._threshold)
            self._threshold = None
        if self._switch is not None:
            sys.setswitchinterval(self._switch)
            self._switch = None
