"""Where the statuses of runs can be mirrored to. `RedisStatus` needs `pip install 'holdfast[redis]'`."""

from holdfast.sdk.status import JobStatus, Mirrored, StatusSink
from holdfast.sinks.redis import RedisStatus
from holdfast.sinks.template import KeyTemplate

__all__ = ["JobStatus", "KeyTemplate", "Mirrored", "RedisStatus", "StatusSink"]
