"""Metadata of runs, as SDKs report it while a call goes on (protocol section 1.5). Of its kinds, progress and log lines are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from holdfast.wire.canonical import decode

PROGRESS: Final = "userland.progress"
"""The kind under which a run's progress is told: values `fraction` (0 to 1, or null) and `text`."""

LOG: Final = "userland.log"
"""The kind of a line that a function logged: values `at` (milliseconds since 1970), `level` (as Python's logging counts, 20 is
info), `message` and `step`."""
KEPT: Final = frozenset({PROGRESS, LOG})
MAX_REPORT_BYTES: Final = 64 * 1024
"""How large a report may be."""
_ROOM = 512
MAX_LEVEL: Final = 10_000
_LAST_MOMENT = 253_402_300_799_999
"""The end of the year 9999: what is later can't be shown."""


class Target(msgspec.Struct, frozen=True):
    """What the metadata is about: a run, or a part of it."""

    step_id: str | None = None
    step_index: int | None = None
    step_attempt: int | None = None
    span_id: str | None = None
    run_id: str | None = None


class Item(msgspec.Struct, frozen=True):
    """Values of one kind."""

    kind: str
    values: dict[str, Any] = {}
    op: Literal["merge", "set", "delete", "add"] = "merge"


class MetadataReport(msgspec.Struct, frozen=True):
    """The body of the report."""

    metadata: list[Item]
    target: Target = Target()


class ProgressValues(msgspec.Struct, frozen=True):
    """The values of `userland.progress`."""

    fraction: float | None = None
    text: str = ""


class LogValues(msgspec.Struct, frozen=True):
    """The values of `userland.log`."""

    at: Annotated[int, msgspec.Meta(ge=0, le=_LAST_MOMENT)]
    level: Annotated[int, msgspec.Meta(ge=0, le=MAX_LEVEL)]
    message: str
    step: str | None = None


def metadata_path(run_id: str) -> str:
    """Where it is reported to."""
    return f"/v1/runs/{run_id}/metadata"


def encode_reports(progress: tuple[float | None, str] | None, lines: Sequence[LogValues]) -> Iterator[bytes]:
    """The bodies that report progress and log lines, each within the limit; none where there is nothing to report."""
    items: list[bytes] = []
    size = 0
    if progress is not None:
        values = ProgressValues(*progress)
        items.append(msgspec.json.encode({"kind": PROGRESS, "op": "set", "values": values}))
        size = len(items[0])
    for line in lines:
        item = msgspec.json.encode({"kind": LOG, "op": "add", "values": line})
        if items and size + len(item) > MAX_REPORT_BYTES - _ROOM:
            yield _report(items)
            items, size = [], 0
        items.append(item)
        size += len(item) + 1
    if items:
        yield _report(items)


def _report(items: Sequence[bytes]) -> bytes:
    return b'{"target":{},"metadata":[' + b",".join(items) + b"]}"


def decode_metadata(body: bytes) -> MetadataReport:
    """A report.

    Raises:
        WireError: it is none.
    """
    report: MetadataReport = decode(body, MetadataReport)
    return report


def progress_said(report: MetadataReport) -> ProgressValues | None:
    """The latest of what a report says of the run's progress.

    Raises:
        WireError: its values are others.
    """
    said = [decode(msgspec.json.encode(item.values), ProgressValues) for item in report.metadata if item.kind == PROGRESS]
    return said[-1] if said else None


def lines_said(report: MetadataReport) -> list[LogValues]:
    """The lines in a report.

    Raises:
        WireError: their values are others.
    """
    return [decode(msgspec.json.encode(item.values), LogValues) for item in report.metadata if item.kind == LOG]
