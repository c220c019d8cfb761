"""The listening socket: bound once, before anything else starts, and handed on."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from holdfast.base.errors import ConfigurationError

_BACKLOG = 2048


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
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigurationError(f"host {host!r} can't be resolved ({error.strerror}); try --host 127.0.0.1") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(host, port, error) from error
    return sock


def _refused(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(port)
        who = f"by {owner}" if owner else "by another program"
        return PortInUseError(
            f"port {port} on {host} is in use {who}: stop it, or choose another port, such as --port {port % 65535 + 1}"
        )
    if error.errno == errno.EACCES:
        return ConfigurationError(
            f"port {port} needs privileges this user doesn't have: choose one above 1023 with --port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigurationError(
            f"{host} is no address of this machine: use 127.0.0.1 for this machine only, 0.0.0.0 for all"
        )
    return ConfigurationError(f"can't listen on {host}:{port}: {error.strerror or error}")


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


def url_of(sock: socket.socket) -> str:
    """The address to type into a browser on this machine."""
    host, port = sock.getsockname()[:2]
    if host in {"127.0.0.1", "0.0.0.0", "::", "::1"}:  # noqa: S104 - compared, not bound
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
