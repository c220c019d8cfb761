"""The disk of the fault tests: builds and drives fault_disk.c, and takes the power away.

Shares no code with holdfast.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
DATABASE, WAL, SHM = 1, 2, 4
ALL = DATABASE | WAL | SHM
_FIELDS = (
    "space",
    "space_kinds",
    "fail_write",
    "fail_sync",
    "fail_kinds",
    "die_at",
    "operations",
    "syncs",
    "sync_failures",
    "syncs_after",
)
_ENTRY = struct.Struct("=5q")


@functools.cache
def library() -> Path | None:
    """The compiled disk, built at most once per version of its source; None where nothing here compiles C for Linux."""
    if not sys.platform.startswith("linux"):
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"holdfast-fault-disk-{os.getuid()}-{digest}.so"
    if target.exists():
        return target
    compiler = _compiler()
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "disk.so"
        subprocess.run(
            [*compiler, "-shared", "-fPIC", "-O2", "-w", "-o", built, SOURCE, "-ldl", "-lpthread"],
            check=True,
            timeout=110,
        )
        partial = target.with_suffix(f".{os.getpid()}")
        shutil.copy(built, partial)
        partial.rename(target)
    return target


def _compiler() -> list[str] | None:
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    found = shutil.which("cc")
    return [found] if found else None


class Counters:
    """What the test and the disk share: faults to come, and what has been seen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(8 * len(_FIELDS)))
            fresh = True
        else:
            fresh = False
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        if fresh:
            self["space"] = -1
            self["fail_kinds"] = DATABASE | WAL
            self["space_kinds"] = ALL

    def __getitem__(self, field: str) -> int:
        return int(struct.unpack_from("=q", self._map, 8 * _FIELDS.index(field))[0])

    def __setitem__(self, field: str, value: int) -> None:
        struct.pack_into("=q", self._map, 8 * _FIELDS.index(field), value)


def attach(database: Path, counters: Path) -> None:
    """In a process that has the disk preloaded: put it under a database."""
    attach_to = ctypes.CDLL(None).fault_disk_attach
    error = attach_to(os.fsencode(database), os.fsencode(counters))
    if error:
        raise OSError(error, os.strerror(error))


def power_cut(database: Path, keep: random.Random | None = None) -> int:
    """After the process has died: put the files back to what a disk would have. How many unsynced writes there were.

    Args:
        database: The database's file.
        keep: Nothing unsynced survives, unless given: then each write survives or not as it decides, whole or
            torn at a sector; a disk promises no more.
    """
    unsynced = 0
    for path in (database, database.with_name(database.name + "-wal")):
        log = path.with_name(path.name + ".undo")
        if log.exists():
            entries = _entries(log.read_bytes())
            unsynced += len(entries)
            if entries:
                with path.open("r+b") as file:
                    _restore(file, entries)
                    if keep is not None:
                        _keep_some(file, entries, keep)
            log.unlink()
    database.with_name(database.name + "-shm").unlink(missing_ok=True)
    return unsynced


def _entries(raw: bytes) -> list[tuple[int, int, int, bytes, bytes]]:
    entries = []
    at = 0
    while at + _ENTRY.size <= len(raw):
        op, size, offset, old, new = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size
        if at + old + new > len(raw):
            break  # the process died while it noted this; the write itself had not begun
        entries.append((op, size, offset, raw[at : at + old], raw[at + old : at + old + new]))
        at += old + new
    return entries


def _restore(file, entries) -> None:
    for _, size, offset, old, _ in reversed(entries):
        file.seek(offset)
        file.write(old)
        file.truncate(size)


def _keep_some(file, entries, keep: random.Random) -> None:
    for op, _, offset, _, new in entries:
        fate = keep.random()
        if fate < 0.4:
            continue
        if op == 2:
            file.truncate(offset)
            continue
        part = new if fate < 0.8 else new[: keep.randrange(0, len(new) + 1) // 512 * 512]
        file.seek(offset)
        file.write(part)
