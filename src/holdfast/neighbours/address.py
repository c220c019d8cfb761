"""Where the owner of a database listens for the other processes of its application."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from holdfast.base.errors import ConfigurationError

LONGEST_PATH = 103
"""Bytes that the address of a Unix socket may have on every system; Linux has 107, macOS 103."""


def socket_path(database: Path) -> Path:
    """The socket of a database: beside it, or where its path is too long for a socket's address, in a directory of the user's own.

    Every process of a user that opens the database finds the same path.

    Raises:
        ConfigurationError: the path is too long, and the directory that would do belongs to somebody else.
    """
    whole = database.expanduser().resolve()
    beside = whole.with_name(whole.name + "-socket")
    if len(os.fsencode(beside)) <= LONGEST_PATH:
        return beside
    name = hashlib.sha256(os.fsencode(whole)).hexdigest()[:24]
    return _private_directory(database) / name


def _private_directory(database: Path) -> Path:
    directory = Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"the path of {database} is too long for a socket beside it, and {directory}, which would do instead, is not "
            "a directory of this user's own (mode 0700): move the database to a shorter path, or remove that directory"
        )
    return directory
