"""What a server process is told at start. It travels to the supervised process as JSON; keys never do, they stay in the
environment.
"""

from __future__ import annotations

from typing import Literal

import msgspec

DEFAULT_PORT = 8288
DEFAULT_STORE = "sqlite:///.holdfast/holdfast.db"


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server process."""

    mode: Literal["dev", "start"]
    targets: tuple[str, ...]
    """As written on the command line; empty looks for an app in the working directory."""
    host: str
    port: int
    store: str
    reload: bool = False
    """A supervisor restarts the process when sources change, and an app that can't be loaded doesn't end it."""
    drain_seconds: float = 30.0
    """How long running steps may take to finish when the process is told to stop."""
    log_level: str = "info"
    log_format: Literal["plain", "json"] = "plain"
    urls: tuple[str, ...] = ()
    """Serve routes of applications that are called over HTTP."""
    poll_interval: float = 0.0
    """Seconds between two looks at each of them; 0 looks again only where the last look failed."""
    discovery: bool = False
    """Whether to look for such applications on this machine."""
    retry_interval: float | None = None
    """Seconds between the attempts of their functions, instead of their backoff."""
    capacity: int | None = None
    """How many runs are executed at once."""
    workers: int = 0
    """Processes that execute functions beside this one; 0 has this one execute them."""
    allow_private_networks: str = ""
    """What of private networks production may call for applications, as people write it."""
    browser: bool = False
    """Open the dashboard once the server answers."""


def store_url(text: str) -> str:
    """A store as people write it: a URL, or the path of a file."""
    return text if "://" in text else f"sqlite:///{text}"
