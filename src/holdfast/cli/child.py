"""`python -m holdfast.cli.child SETTINGS`: the server process below a supervisor, told `ChildSettings` as JSON."""

from __future__ import annotations

import os
import signal
import socket
import sys

import msgspec

from holdfast.base.errors import HoldfastError
from holdfast.cli.commands import Problem
from holdfast.cli.process import BrokenAppError, ServerProcess, run_process
from holdfast.cli.server_settings import server_settings
from holdfast.cli.supervisor import EXIT_BROKEN_APP, EXIT_REFUSED, ChildSettings, Report


def main(argument: str) -> int:
    """Run until SIGTERM or the end of the supervisor; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a file saved twice within a second would leave the first version's bytecode behind
    sys.dont_write_bytecode = True
    settings = msgspec.json.decode(argument, type=ChildSettings)

    def tell(report: Report) -> None:
        try:
            os.write(settings.report_fd, msgspec.json.encode(report) + b"\n")
        except BrokenPipeError:  # the supervisor is gone; the lifeline says so too
            return

    try:
        sock = socket.socket(fileno=settings.socket_fd)
        server = ServerProcess(
            settings.process,
            server_settings(settings.process),
            sock,
            greeted=settings.greeted,
            changed=settings.changed,
            problem=settings.problem,
            tell=lambda directories, url: tell(Report(list(directories), url)),
        )
        run_process(server, settings.lifeline_fd)
    except BrokenAppError as error:
        Problem(str(error)).show()
        tell(Report(problem=str(error)))
        return EXIT_BROKEN_APP
    except HoldfastError as error:
        Problem(str(error)).show()
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
