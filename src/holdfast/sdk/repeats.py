"""The keys of a run's steps: a step id, and for its further uses the id with a repeat index."""

from __future__ import annotations

from typing import Any

from holdfast.base.errors import StepUsageError
from holdfast.sdk.calls import StepCall


class StepKeys:
    """Gives each step call its key when it is called: `id`, then `id:1`, `id:2`, in the order of the calls."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def begin(self, call: StepCall[Any]) -> None:
        """Fix a call's key.

        Raises:
            StepUsageError: the id is in flight, or the key is also another step's id.
        """
        used = self._used
        count = used.get(call.id)
        if count is None:
            used[call.id] = -1
            return
        if count < 0:
            raise StepUsageError(
                f"step {call.id!r} is in flight already: steps that run at the same time need ids of their own, such as {call.id}-1"
            )
        call.key = f"{call.id}:{count}"
        used[call.id] = -count - 1
        if call.key in used:
            raise StepUsageError(
                f"step id {call.key!r} is also what a repeated {call.id!r} is called: rename one of them"
            )

    def finish(self, call: StepCall[Any]) -> None:
        """The call has its result: its id may be used again."""
        count = self._used[call.id]
        if count < 0:
            self._used[call.id] = -count


def repeat_index(call: StepCall[Any]) -> int:
    """Which use of its id a call is: 0 for the first."""
    return 0 if call.key == call.id else int(call.key.rpartition(":")[2])
