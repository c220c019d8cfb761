"""The listening socket: bound once, before anything else starts, and handed on."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from holdfast.base.errors import ConfigurationError
from holdfast.server.serve import bind


class PortInUseError(ConfigurationError):
    """Somebody else listens on the port."""

    code = "port_in_use"


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; connections wait in the backlog until somebody accepts them.

    Args:
        host: A name or address; `0.0.0.0` for all of IPv4.
        port: 0 takes a free one.

    Raises:
        PortInUseError: it names who has the port, where that can be known, and what to do.
        ConfigurationError: the address isn't one of this machine, or may not be used.
    """
    try:
        return bind(host, port)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EADDRINUSE:
            raise
        who = port_owner(port) or "another program"
        other = port % 65535 + 1
        raise PortInUseError(
            f"port {port} on {host} is in use by {who}: stop it, or choose another port, such as --port {other}"
        ) from error


def port_owner(port: int) -> str | None:
    """Who listens on a TCP port, `python (process 12)`; None where the system doesn't tell (Linux tells one's own)."""
    inodes = _listening_inodes(port)
    for entry in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            descriptors = list((entry / "fd").iterdir())
        except OSError:  # another user's process, or one that just ended
            continue
        for descriptor in descriptors:
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] in inodes:
                return f"{_program(entry)} (process {entry.name})"
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _program(entry: Path) -> str:
    try:
        words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "a program"
    names = [Path(word).name for word in words if word and not word.startswith("-")]
    if "holdfast" in names or any(word.startswith("holdfast.cli") for word in words):
        return "another holdfast"
    return names[0] if names else "a program"
