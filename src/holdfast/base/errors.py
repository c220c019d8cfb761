"""Every error a user of holdfast can meet: small classes with a stable `code` and a message that says what to do."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar


class HoldfastError(Exception):
    """Base of every error raised by holdfast itself."""

    code: ClassVar[str] = "holdfast_error"


class ConfigurationError(HoldfastError):
    """An app, function, schedule or setting is not usable. Raised at definition or start, never later."""

    code = "configuration_invalid"


class EventInvalidError(HoldfastError):
    """An event can't be accepted: it is malformed, does not fit its schema, or is out of bounds."""

    code = "event_invalid"

    def __init__(self, message: str, *, status: int = 400, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status the event API answers with."""
        self.accepted = accepted
        """Ids of the events of the same request that were accepted before this one."""


class UnknownEventError(EventInvalidError):
    """A typed app was asked to send an event name it does not declare."""

    code = "event_unknown"


class AddressRefusedError(HoldfastError):
    """An address that somebody named is not called: it is none of HTTP, or leads where only this server gets to."""

    code = "address_refused"

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy
        """What to do."""


class NotRunningError(HoldfastError):
    """Something needs an engine or a server address and there is none."""

    code = "not_running"


class OwnerLostError(NotRunningError):
    """The process that owned the store is gone or does not answer, and no other took its place in time."""

    code = "owner_lost"


class OverloadedError(HoldfastError):
    """The engine holds as much work in memory as it is allowed to. Nothing was accepted; try again later."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which trying again makes sense."""


class StoreError(HoldfastError):
    """The store refused or failed a write. Nothing of that write was kept."""

    code = "store_error"


class StoreFullError(StoreError):
    """The disk is full. Reading goes on; writing resumes by itself once there is space."""

    code = "store_full"


class StoreBusyError(StoreError):
    """Another process holds the database locked. Writing resumes by itself once it lets go."""

    code = "store_busy"


class StoreUnreachableError(StoreBusyError):
    """The database server can't be reached. Work goes on by itself once it can."""

    code = "store_unreachable"


class StoreFailedError(StoreError):
    """The disk reported a failed write or fsync. The process stops accepting work; restart it once the disk is well."""

    code = "store_failed"


class StoreInUseError(StoreError):
    """The database file belongs to another application or another process."""

    code = "store_in_use"


class StoreNotEmptyError(StoreError):
    """A copy or a backup would have to go where something is already."""

    code = "store_not_empty"


class StoreVersionError(StoreError):
    """The database was written by a newer holdfast than this one, or older nodes are at work that a migration would break."""

    code = "store_too_new"


class RunNotFoundError(HoldfastError):
    """There is no run with this id; it may have been removed by retention."""

    code = "run_not_found"


class RunFailedError(HoldfastError):
    """Raised by `RunHandle.result()` when the run ended FAILED."""

    code = "run_failed"

    def __init__(
        self, run_id: str, name: str, message: str, stack: str | None = None, step: str | None = None
    ) -> None:
        at = f" at step {step!r}" if step else ""
        super().__init__(f"run {run_id} failed{at}: {name}: {message}")
        self.run_id = run_id
        self.name = name
        self.message = message
        self.stack = stack
        self.step = step
        """The step that failed for good, if it was one; name, message and stack are its own error's."""


class RunCancelledError(HoldfastError):
    """Raised by `RunHandle.result()` when the run was cancelled."""

    code = "run_cancelled"


class RunRefusedError(HoldfastError):
    """A function that was asked to start did not, because a rule of its flow control says so."""

    code = "run_refused"

    def __init__(self, function: str, reason: str, run_id: str | None = None) -> None:
        instead = f"; run {run_id} stands in its place" if run_id else ""
        super().__init__(f"no run of {function!r} was started: {reason}{instead}")
        self.function = function
        self.reason = reason
        self.run_id = run_id
        """The run that stands in its place, where there is one."""


class NonRetriableError(Exception):
    """Raise it in a step or function to fail at once, whatever retries are left.

    Args:
        message: What went wrong, for the dashboard and the dead letter.
    """

    def __init__(self, message: str = "", *args: Any) -> None:
        super().__init__(message, *args)


class RetryAfterError(Exception):
    """Raise it in a step or function to be tried again after a given time instead of the usual backoff.

    Args:
        message: What went wrong.
        retry_after: Seconds, a timedelta, or the moment to try again. Clipped to 1 s - 24 h (protocol section 1.10).
    """

    def __init__(self, message: str, retry_after: float | timedelta | datetime) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StepError(Exception):
    """A step failed for good. Live and replayed runs raise the same: what was recorded, not the original exception.

    Use `matches()` to tell causes apart; it compares with the recorded class chain.
    """

    def __init__(
        self,
        step_id: str,
        name: str,
        message: str,
        *,
        chain: tuple[str, ...] = (),
        stack: str | None = None,
        data: Any = None,
    ) -> None:
        super().__init__(f"step {step_id!r} failed: {name}: {message}")
        self.step_id = step_id
        self.name = name
        """The class name of the original error."""
        self.message = message
        self.chain = chain or (name,)
        """Qualified names of the original error's classes, most specific first."""
        self.stack = stack
        self.data = data

    def matches(self, *classes: type[BaseException]) -> bool:
        """Whether the original error was an instance of one of these classes."""
        return any(qualified_name(cls) in self.chain or cls.__name__ in self.chain for cls in classes)


class StepTimeoutError(Exception):
    """A step body ran longer than its `timeout`. It is retried like any other failure."""


class InvokeTimeoutError(StepError):
    """The invoked function did not finish within the `timeout` of `step.invoke`."""


class InvokeCancelledError(StepError):
    """The run that `step.invoke` started was cancelled."""


class SignalConflictError(StepError):
    """Another run waits for the signal that `step.wait_for_signal` asked for. `.data["run_id"]` says which."""


class StepUsageError(HoldfastError):
    """Steps were used in a way that can't be made durable. The message names the step and the remedy."""

    code = "step_usage"


class NotSerializableError(NonRetriableError):
    """A value can't be stored as JSON. The message names the step, the type and the path to the value."""


class Suspended(BaseException):  # it is not an error, and user code must not treat it as one
    """Thrown into a function that leaves memory until its next event or timer. Let it pass; never catch it."""


def qualified_name(cls: type[BaseException]) -> str:
    """The name under which an error class is recorded: `module.QualName`, without `builtins.`."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
