"""Metadata of runs, as SDKs report it while a call goes on (protocol section 1.5). Of its kinds, progress is kept."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from holdfast.wire.canonical import decode

PROGRESS: Final = "userland.progress"
"""The kind under which a run's progress is told: values `fraction` (0 to 1, or null) and `text`."""


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


def metadata_path(run_id: str) -> str:
    """Where it is reported to."""
    return f"/v1/runs/{run_id}/metadata"


def encode_progress(fraction: float | None, text: str) -> bytes:
    """The body that reports progress."""
    return msgspec.json.encode(
        {"target": {}, "metadata": [{"kind": PROGRESS, "op": "set", "values": {"fraction": fraction, "text": text}}]}
    )


def decode_metadata(body: bytes) -> MetadataReport:
    """A report.

    Raises:
        WireError: it is none.
    """
    report: MetadataReport = decode(body, MetadataReport)
    return report


def progress_values(item: Item) -> ProgressValues:
    """What an item of the kind `userland.progress` says.

    Raises:
        WireError: its values are others.
    """
    values: ProgressValues = decode(msgspec.json.encode(item.values), ProgressValues)
    return values
