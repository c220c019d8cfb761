"""Reloading in development: a supervisor that keeps the port, and starts the server process anew when sources change.

Requests that arrive between two processes wait in the backlog of the listening socket. The process hears of its
supervisor's death by the end of a pipe, so that it never outlives it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import msgspec

from holdfast.base.clock import SystemClock, monotonic
from holdfast.cli.console import say
from holdfast.cli.loading import CANDIDATES
from holdfast.cli.settings import ProcessSettings
from holdfast.cli.watching import SourceWatch

EXIT_REFUSED = 78
"""The process said why it can't run and nothing in the sources would change that: a store in use, a newer store."""

EXIT_BROKEN_APP = 79
"""The apps were loaded, but the engine could not start with them; it said why in a report."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK = 0.2
_RELOAD_GRACE = 5.0
_STOP_MARGIN = 5.0
_HEALTHY_AFTER = 10.0
_LONGEST_PAUSE = 10.0


class Report(msgspec.Struct, omit_defaults=True):
    """What the process tells its supervisor, one JSON line each."""

    directories: list[str] = []
    """Where the sources are that it has imported, or tried to."""
    url: str | None = None
    """Where it answers requests; None until it does."""
    problem: str | None = None
    """Why the engine could not start with the apps, before the process ends with `EXIT_BROKEN_APP`."""


class ChildSettings(msgspec.Struct, frozen=True):
    """The only argument of the supervised process, as JSON."""

    process: ProcessSettings
    socket_fd: int
    report_fd: int
    lifeline_fd: int
    greeted: bool = False
    """A process before it has answered requests, so the user knows the addresses."""
    changed: tuple[str, ...] = ()
    """The files whose change led to this start."""
    problem: str | None = None
    """Why the process before it could not start with the apps: this one does without, and shows it."""


class _Child:
    """One server process and the pipes to it."""

    def __init__(self, make: Callable[[int, int], ChildSettings]) -> None:
        report_read, report_write = os.pipe()
        lifeline_read, lifeline_write = os.pipe()
        os.set_blocking(report_read, False)
        settings = make(report_write, lifeline_read)
        self.born = monotonic()
        self.born_ns = SystemClock().now() * 1_000_000
        self.process = subprocess.Popen(  # noqa: S603 - our own module in our own interpreter
            [sys.executable, "-P", "-m", "holdfast.cli.child", msgspec.json.encode(settings).decode()],
            pass_fds=(settings.socket_fd, report_write, lifeline_read),
            # the terminal sends Ctrl-C to every process; only the supervisor, which has no threads, acts on it
            preexec_fn=_ignore_interrupts,  # noqa: PLW1509
        )
        os.close(report_write)
        os.close(lifeline_read)
        self.reports = report_read
        self._lifeline = lifeline_write
        self._buffer = b""
        self.ended = False

    def read(self) -> Iterator[Report]:
        """The reports that have arrived."""
        while True:
            try:
                chunk = os.read(self.reports, 65536)
            except BlockingIOError:
                return
            if not chunk:
                self.ended = True
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in lines:
                yield msgspec.json.decode(line, type=Report)

    def close(self) -> None:
        """Give back the pipes of a process that has ended."""
        os.close(self.reports)
        os.close(self._lifeline)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Supervisor:
    """Runs server processes one after another on one listening socket until it is told to stop."""

    def __init__(self, settings: ProcessSettings, sock: socket.socket) -> None:
        self._settings = settings
        self._sock = sock
        self._watch = SourceWatch(_directories(settings.targets))
        self._child: _Child | None = None
        self._greeted = False
        self._problem: str | None = None
        self._signals = 0
        self._changed: set[str] = set()
        self._deadline: float | None = None
        """When a process that was asked to end is killed."""
        self._stopping = False
        self._forced = False
        self._crashes = 0
        self._start_at: float | None = 0.0
        self._wakeup: int = -1

    def run(self) -> int:
        """Until SIGINT, SIGTERM or SIGHUP, or until the process refuses to run; the exit status."""
        with self._handle_signals():
            try:
                while True:
                    status = self._tick()
                    if status is not None:
                        return status
                    self._wait()
            finally:
                self._abandon()

    def _tick(self) -> int | None:
        for report in self._child.read() if self._child else ():
            if self._child and self._watch.add(report.directories, self._child.born_ns):
                self._changed.add("sources")
            if report.problem is not None:
                self._problem = report.problem
            if report.url is not None and not self._greeted:
                self._greeted = True
                if self._settings.browser:
                    webbrowser.open(report.url)
        status = self._reap()
        if status is None:
            status = self._obey_signals()
        if status is None and not self._stopping:
            self._reload()
        self._enforce_deadline()
        return status

    # -- the process -------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        fresh = self._watch.changed()
        self._changed.update(fresh)
        if fresh:
            return  # more may be on its way: act once a tick has passed without a change
        if self._changed and self._child and self._deadline is None:
            self._end_child(_RELOAD_GRACE)
        elif self._child is None and (self._changed or (self._start_at is not None and monotonic() >= self._start_at)):
            self._child = _Child(self._child_settings)
            self._changed.clear()
            self._problem = self._start_at = None

    def _child_settings(self, report_fd: int, lifeline_fd: int) -> ChildSettings:
        return ChildSettings(
            self._settings,
            self._sock.fileno(),
            report_fd,
            lifeline_fd,
            greeted=self._greeted,
            changed=tuple(sorted(self._changed)),
            problem=None if self._changed else self._problem,
        )

    def _reap(self) -> int | None:
        child = self._child
        if child is None or child.process.poll() is None:
            return None
        code = child.process.returncode
        asked = self._deadline is not None
        lived = monotonic() - child.born
        child.close()
        self._child = self._deadline = None
        if self._stopping:
            return 130 if self._forced else 0
        if code == EXIT_REFUSED:
            return 1
        if code == EXIT_BROKEN_APP:
            self._start_at = monotonic()
            return None
        self._crashes = 0 if asked or lived > _HEALTHY_AFTER else self._crashes + 1
        pause = 0.0 if asked else min(_LONGEST_PAUSE, 0.5 * 2 ** max(0, self._crashes - 1))
        self._start_at = monotonic() + pause
        if not asked:
            say(f"The server process {how_ended(code)}. It starts again in {pause:g} s; its runs go on there.", "red")
        return None

    def _end_child(self, grace: float) -> None:
        assert self._child is not None
        self._deadline = monotonic() + grace
        with suppress(ProcessLookupError):
            self._child.process.terminate()

    def _enforce_deadline(self) -> None:
        if self._child and self._deadline is not None and monotonic() > self._deadline:
            if self._child.process.poll() is None:
                say("A step is still running; the process is ended now, and that step will run again.", "yellow")
                self._child.process.kill()
            self._deadline = monotonic() + _STOP_MARGIN

    def _abandon(self) -> None:
        if self._child is not None:
            self._child.process.kill()
            self._child.process.wait()
            self._child.close()

    # -- signals -----------------------------------------------------------------------------------------------------

    def _obey_signals(self) -> int | None:
        if self._signals and not self._stopping:
            self._stopping = True
            if self._child is None:
                return 0
            self._end_child(self._settings.drain_seconds + _STOP_MARGIN)
        if self._signals > 1 and not self._forced:
            self._forced = True
            if self._child is not None:
                say("Stopped at once. What was running goes on at the next start.", "yellow")
                self._child.process.kill()
        return None

    @contextmanager
    def _handle_signals(self) -> Iterator[None]:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self._wakeup = read
        before = {
            number: signal.signal(number, self._count) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(read)
            os.close(write)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _wait(self) -> None:
        waited = [self._wakeup]
        if self._child is not None and not self._child.ended:
            waited.append(self._child.reports)
        select.select(waited, [], [], _TICK)
        with suppress(BlockingIOError):
            os.read(self._wakeup, 4096)


def _directories(targets: Sequence[str]) -> list[Path]:
    """Where a change may matter before anything has been imported."""
    names = [target.partition(":")[0] for target in targets] or CANDIDATES
    return [Path.cwd(), *{Path(name).resolve().parent for name in names}]


def how_ended(code: int) -> str:
    """What an exit status says, to follow the name of the process."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
