"""What an app can do with runs that are there: cancel them, start them again, and act on many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.sdk.sender import BulkInfo, Control, Edit


class BulkHandle:
    """A bulk operation that was begun from Python."""

    def __init__(self, control: Control, bulk_id: str) -> None:
        self._control = control
        self.id = bulk_id

    async def info(self) -> BulkInfo:
        """How far it is."""
        return await self._control.bulk_info(self.id)

    async def cancel(self) -> bool:
        """Stop it where it is; False when it had ended. What it has done stays done."""
        return await self._control.cancel_bulk(self.id)

    def __repr__(self) -> str:
        return f"<BulkHandle {self.id}>"


class Steering:
    """The part of `App` that changes runs."""

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run; False when it had ended already.

        Its code gets a CancelledError, in which it can clean up. A body in a thread goes on, and its result is dropped.
        """
        return await self._control().cancel(run_id)

    async def rerun(
        self,
        run_id: str,
        *,
        from_step: str | None = None,
        input: Sequence[Any] | Mapping[str, Any] | None = None,
        event_data: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a run again, as a new run; its id. The old run stays as it is.

        Args:
            run_id: A run that has ended.
            from_step: Keep what was recorded before this step, and do it and all after it again. None: everything again.
            input: For that step, instead of the arguments the function gives: a list, or `{"args": [...], "kwargs": {...}}`.
            event_data: Other data for its event, which is stored as an event of its own.

        Raises:
            RunNotFoundError: there is no such run.
            ConfigurationError: it has not ended, has no such step, or its function is not part of the app any more.
            EventInvalidError: the data does not fit the event's schema.
        """
        return await self._control().rerun(run_id, Edit(from_step, input, event_data))

    async def redrive(
        self,
        run_id: str,
        *,
        input: Sequence[Any] | Mapping[str, Any] | None = None,
        event_data: Mapping[str, Any] | None = None,
    ) -> str:
        """Go on with a run that failed for good, as a new run that keeps the finished steps; its id.

        Redriving twice gives the same run. `input` is for the step that failed. Arguments and errors as for `rerun`.
        """
        return await self._control().redrive(run_id, Edit(None, input, event_data))

    async def bulk(self, action: str, where: Mapping[str, Any], *, rate: str | None = None) -> BulkHandle:
        """Act on all runs that a filter matches, in the background. Durable: it goes on after a restart.

        Args:
            action: `cancel`, `rerun`, `redrive` or `discard`.
            where: `ids`, `status`, `function`, `app`, `event`, `event_id`, `error`, `since`, `until`, `parent`,
                `fingerprint`, `if` (CEL over the `event` of each run); or `{"all": True}`.
            rate: At most so many in so much time: `10/s`, `100/m`.

        Raises:
            ConfigurationError: the action, the filter or the rate can't be understood.
            NotRunningError: the app only sends from here.
        """
        control = self._control()
        return BulkHandle(control, await control.bulk(action, where, rate=rate))

    def _control(self) -> Control:
        raise NotImplementedError
