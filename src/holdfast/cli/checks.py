"""What the doctor looks at on this machine: interpreter, store and disk, keys, port and server, app."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from holdfast.base.clock import monotonic
from holdfast.base.errors import ConfigurationError, StoreError
from holdfast.base.findings import Finding, fine, note, wrong
from holdfast.base.version import __version__
from holdfast.cli.api import ApiError, ServerApi
from holdfast.cli.listening import port_owner
from holdfast.cli.loading import CANDIDATES, find_target, load
from holdfast.cli.postgres_checks import postgres_store
from holdfast.dashboard.humanize import duration, plural, size
from holdfast.server.keys import check_signing_key
from holdfast.store.sqlite.connection import database_path
from holdfast.store.sqlite.inspection import SQLITE_VERSION, DatabaseReport, inspect_database
from holdfast.store.urls import is_postgres

_OLDEST_SQLITE = (3, 40)
_ENOUGH_FILES = 1024
_LOW_DISK, _NO_DISK = 1 << 30, 100 << 20
_BIG_WAL = 256 << 20
_SLOW_SYNC_MS, _NO_SYNC_MS = 20.0, 0.02
_SYNCS = 16
_NETWORK_DISKS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre"}
_SHORT_KEY = 16


def interpreter() -> Iterator[Finding]:
    """Python, holdfast, SQLite, open files."""
    yield fine("Python", f"{platform.python_version()} at {sys.executable}")
    yield fine("holdfast", __version__)
    if tuple(map(int, SQLITE_VERSION.split(".")[:2])) < _OLDEST_SQLITE:
        yield wrong(
            "SQLite",
            f"the library is {SQLITE_VERSION}; holdfast needs 3.40 or newer",
            "Use a newer Python build or system.",
        )
    else:
        yield fine("SQLite", SQLITE_VERSION)
    yield from _open_files()


def _open_files() -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _ENOUGH_FILES:
        most = "unlimited" if hard < 0 else str(hard)
        yield note(
            "open files",
            f"a process may open {soft} files; every connection is one",
            f"Raise it with `ulimit -n {_ENOUGH_FILES * 4}` (at most {most} here), or LimitNOFILE= in systemd.",
        )


def store(url: str, *, check: bool) -> Iterator[Finding]:
    """The database file, its owner, and the disk below it."""
    if is_postgres(url):
        yield from postgres_store(url)
        return
    try:
        path = database_path(url)
    except ConfigurationError as error:
        yield wrong("store", str(error), "Correct --store or HOLDFAST_STORE.")
        return
    if path is None:
        yield note(
            "store",
            "it is in memory: everything is gone when the process ends",
            "Name a file: sqlite:///.holdfast/holdfast.db",
        )
        return
    if path.exists():
        yield from _database(path, check=check)
    else:
        yield fine("store", f"{path} is not there yet; the first start makes it")
    yield from _disk(_existing(path.parent))


def _database(path: Path, *, check: bool) -> Iterator[Finding]:
    try:
        report = inspect_database(path, check=check)
    except StoreError as error:
        yield wrong("store", str(error), "Name the right file with --store, or restore a backup.")
        return
    yield _schema(report)
    if report.damage is not None:
        yield wrong("store", f"{path} is damaged: {report.damage}", "Stop the server and restore a backup of the file.")
    elif check:
        yield fine("store", "SQLite's check of the whole file found nothing wrong")
    if not os.access(path, os.W_OK):
        yield wrong(
            "store", f"{path} may not be written by this user", "Run as the user who owns it, or change its owner."
        )
    if report.holder is not None:
        who = f"process {report.holder}" if report.holder else "another process"
        yield fine("owner", f"{who} has it open (app {', '.join(report.apps) or 'none'})")
    else:
        yield fine("owner", f"no process has it open; it belongs to app {', '.join(report.apps) or 'none yet'}")
    if report.wal_bytes > _BIG_WAL:
        yield note(
            "WAL",
            f"the write-ahead log has {size(report.wal_bytes)}",
            "Something reads the file for a long time, such as an open shell: end it, and the log shrinks by itself.",
        )


def _schema(report: DatabaseReport) -> Finding:
    wal = f" and {size(report.wal_bytes)} of write-ahead log" if report.wal_bytes else ""
    if report.schema is None:
        if report.bytes:
            return wrong(
                "store", f"{report.path} is a database, but not one of holdfast's", "Name another file with --store."
            )
        return fine("store", f"{report.path} is empty; the first start fills it")
    if report.schema > report.known_schema:
        return wrong(
            "store",
            f"{report.path} is from a newer holdfast (schema {report.schema}; this one knows {report.known_schema})",
            "Upgrade holdfast, or restore the backup made before the upgrade.",
        )
    older = "; the next start brings it up to date" if report.schema < report.known_schema else ""
    return fine("store", f"{report.path}, {size(report.bytes)}{wal}, schema {report.schema}{older}")


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _disk(directory: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(directory).free
    remedy = f"Free some space below {directory}, or put the store on another disk with --store."
    if free < _NO_DISK:
        yield wrong("disk", f"{size(free)} are free", remedy)
    elif free < _LOW_DISK:
        yield note("disk", f"{size(free)} are free", remedy)
    else:
        yield fine("disk", f"{size(free)} are free")
    kind = _filesystem(directory)
    if kind in _NETWORK_DISKS:
        yield wrong(
            "disk",
            f"{directory} is on a network file system ({kind}), where SQLite's locks and log don't work",
            "Put the store on a local disk with --store.",
        )
    if not os.access(directory, os.W_OK):
        yield wrong(
            "disk",
            f"{directory} may not be written by this user",
            "Run as the user who owns it, or name another place with --store.",
        )
        return
    yield _sync(directory)


def _filesystem(directory: Path) -> str:
    """The type of the file system, from Linux's table of mounts; empty elsewhere."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = sorted((line.split()[1:3] for line in lines), key=lambda mount: len(mount[0]), reverse=True)
    return next((kind for point, kind in mounts if directory.is_relative_to(point)), "")


def _sync(directory: Path) -> Finding:
    times = sync_times_ms(directory)
    middle = statistics.median(times)
    if middle < _NO_SYNC_MS:
        return note(
            "fsync",
            f"{middle * 1000:.0f} µs: too quick to have reached a disk (memory, or a disk that doesn't sync)",
            "A power cut may lose what was answered with success here. Fine for development and tests.",
        )
    text = f"{middle:.2f} ms a commit (slowest of {_SYNCS}: {max(times):.2f} ms)"
    if middle > _SLOW_SYNC_MS:
        return note(
            "fsync", text, "Each group of commits waits that long. Put the store on a faster local disk with --store."
        )
    return fine("fsync", text)


def sync_times_ms(directory: Path) -> list[float]:
    """How long it takes to get 4 KB onto the disk, in milliseconds, several times."""
    out = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_SYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            before = monotonic()
            os.fsync(file.fileno())
            out.append((monotonic() - before) * 1000)
    return out


def keys(environ: Mapping[str, str]) -> Iterator[Finding]:
    """The keys in the environment: their form, never their value."""
    remedy = "Make new keys with `holdfast keys new`."
    for name in ("INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK"):
        if not environ.get(name):
            continue
        try:
            check_signing_key(environ[name], name)
        except ConfigurationError as error:
            yield wrong("keys", str(error), remedy)
        else:
            yield fine("keys", f"{name} is well formed")
    event_keys = [key.strip() for key in environ.get("INNGEST_EVENT_KEY", "").split(",") if key.strip()]
    for key in event_keys:
        if len(key) < _SHORT_KEY:
            yield wrong(
                "keys",
                f"an event key in INNGEST_EVENT_KEY has {plural(len(key), 'character')} and could be guessed",
                remedy,
            )
    if event_keys and all(len(key) >= _SHORT_KEY for key in event_keys):
        yield fine("keys", f"INNGEST_EVENT_KEY has {plural(len(event_keys), 'key')}")
    if not event_keys and not environ.get("INNGEST_SIGNING_KEY"):
        yield fine("keys", "none set; only `holdfast start` needs them")


def server(api: ServerApi, port: int, *, asked: bool) -> Iterator[Finding]:
    """The server at an address, or the port where it would listen.

    Args:
        api: The server.
        port: The port of its address.
        asked: Whether the user named the server; only then is its absence wrong.
    """
    try:
        api.health()
    except ApiError as error:
        if error.status is None and not asked:
            yield _port(port, str(error))
        elif error.status == 503:
            yield wrong(
                "server",
                f"{api.url} runs and accepts nothing: {error}",
                "See its log; restart it once the disk is well.",
            )
        elif error.status is None:
            yield wrong("server", str(error), "Start it, or correct the address.")
        else:
            yield wrong("server", str(error), "Stop what listens there, or name another address or port.")
        return
    yield fine("server", f"{api.url} is healthy")


def _port(port: int, why: str) -> Finding:
    owner = port_owner(port)
    if owner is None:
        return fine("server", f"none runs; port {port} is free for it")
    return wrong(
        "port",
        f"{owner} listens on port {port}: {why}",
        f"Stop it, or use another port: holdfast dev --port {port + 1}",
    )


def apps(targets: Sequence[str]) -> Iterator[Finding]:
    """Whether the app can be imported, and what it has."""
    if not targets:
        found = find_target(Path.cwd())
        if found is None:
            yield fine("app", f"none in this directory (looked for {', '.join(CANDIDATES[:4])} and others)")
            return
        targets = [found]
    before = monotonic()
    loaded = load(targets)
    took = (monotonic() - before) * 1000
    for problem in loaded.problems:
        yield wrong("app", problem, "Mend the source and ask again.")
    for app in loaded.apps:
        count = plural(len(app.functions), "function")
        text = f"{app.id} from {loaded.sources[app.id]}: {count}, imported in {duration(took)}"
        if app.functions:
            yield fine("app", text)
        else:
            yield note("app", text, "Name the module that defines its functions, so that they are imported too.")
