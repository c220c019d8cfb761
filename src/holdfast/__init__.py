"""holdfast: durable execution and background jobs for Python web applications."""

from holdfast.base.errors import (
    ConfigurationError,
    EventInvalidError,
    HoldfastError,
    InvokeTimeoutError,
    NonRetriableError,
    NotRunningError,
    NotSerializableError,
    OverloadedError,
    RetryAfterError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    StepError,
    StepTimeoutError,
    StepUsageError,
    StoreBusyError,
    StoreError,
    StoreFailedError,
    StoreFullError,
    StoreInUseError,
    StoreUnreachableError,
    StoreVersionError,
    Suspended,
    UnknownEventError,
)
from holdfast.base.retry import Backoff, RetryPolicy, RetryPresets, call_with_retry
from holdfast.base.version import __version__
from holdfast.sdk.app import App, FunctionSettings, RunHandle
from holdfast.sdk.context import Context, SyncContext
from holdfast.sdk.events import CronTick, Event, FunctionFailed, ReceivedEvent
from holdfast.sdk.functions import Function, FunctionRef
from holdfast.sdk.middleware import Middleware
from holdfast.sdk.sender import RunInfo, Sent
from holdfast.sdk.steps import Step, StepCall, SyncStep
from holdfast.sdk.triggers import Cron, On

__all__ = [
    "App",
    "Backoff",
    "ConfigurationError",
    "Context",
    "Cron",
    "CronTick",
    "Event",
    "EventInvalidError",
    "Function",
    "FunctionFailed",
    "FunctionRef",
    "FunctionSettings",
    "HoldfastError",
    "InvokeTimeoutError",
    "Middleware",
    "NonRetriableError",
    "NotRunningError",
    "NotSerializableError",
    "On",
    "OverloadedError",
    "ReceivedEvent",
    "RetryAfterError",
    "RetryPolicy",
    "RetryPresets",
    "RunCancelledError",
    "RunFailedError",
    "RunHandle",
    "RunInfo",
    "RunNotFoundError",
    "Sent",
    "Step",
    "StepCall",
    "StepError",
    "StepTimeoutError",
    "StepUsageError",
    "StoreBusyError",
    "StoreError",
    "StoreFailedError",
    "StoreFullError",
    "StoreInUseError",
    "StoreUnreachableError",
    "StoreVersionError",
    "Suspended",
    "SyncContext",
    "SyncStep",
    "UnknownEventError",
    "__version__",
    "call_with_retry",
]
