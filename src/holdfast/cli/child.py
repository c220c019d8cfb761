"""`python -m holdfast.cli.child SETTINGS`: the server process below a supervisor, told `ChildSettings` as JSON."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence

import msgspec

from holdfast.base.errors import HoldfastError
from holdfast.cli.commands import Problem
from holdfast.cli.process import ServerProcess, run_process
from holdfast.cli.server_settings import server_settings
from holdfast.cli.supervisor import EXIT_REFUSED, ChildSettings, Report


def main(argument: str) -> int:
    """Run until SIGTERM or the end of the supervisor; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a file saved twice within a second would leave the first version's bytecode behind
    sys.dont_write_bytecode = True
    settings = msgspec.json.decode(argument, type=ChildSettings)

    def tell(directories: Sequence[str], ready: bool) -> None:
        report = msgspec.json.encode(Report(list(directories), ready)) + b"\n"
        try:
            os.write(settings.report_fd, report)
        except BrokenPipeError:  # the supervisor is gone; the lifeline says so too
            return

    try:
        sock = socket.socket(fileno=settings.socket_fd)
        server = ServerProcess(
            settings.process,
            server_settings(settings.process),
            sock,
            start=settings.start,
            changed=settings.changed,
            tell=tell,
        )
        run_process(server, settings.lifeline_fd)
    except HoldfastError as error:
        Problem(str(error)).show()
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
