"""What the server is told at start, checked before it opens a port."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.base.errors import ConfigurationError
from holdfast.base.masks import Masks
from holdfast.engine.http_driver import HttpDriver
from holdfast.engine.outbound import EVERYTHING, PrivateNetworks
from holdfast.server.keys import check_signing_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Settings of the HTTP server. Secrets are left out of its repr.

    Raises:
        ConfigurationError: keys are missing or malformed, or the server would be open to others without a login.
    """

    mode: Literal["dev", "start"] = "dev"
    """`dev`: no keys needed on loopback. `start`: production, keys required."""
    host: str = "127.0.0.1"
    """The address it binds to. Development is open to everyone who can connect, so only on loopback."""
    port: int = 8288
    event_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys that may send events; several for rotation. In development on loopback every key is accepted."""
    signing_key: str | None = field(default=None, repr=False)
    """The key that opens the API, and the dashboard unless it has a password."""
    signing_key_fallback: str | None = field(default=None, repr=False)
    """The former signing key, valid while clients change over."""
    dashboard_password: str | None = field(default=None, repr=False)
    """What people log in with instead of the signing key."""
    session_secret: str | None = field(default=None, repr=False)
    """Signs session cookies. Derived from the signing key unless given; random without either."""
    session_hours: float = 12.0
    """How long a login lasts."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which the server may be addressed. In production, when given, the only ones."""
    cors_origins: tuple[str, ...] = ()
    """Origins of browser applications that may send events, besides those on this machine in development."""
    allow_private_networks: str = ""
    """What of private networks production may call for applications: `all`, or networks, addresses and host names separated
    by commas. Development may call all of them."""
    mask: tuple[str, ...] = ()
    """Fields of payloads that are masked wherever people look, besides those that applications have marked: `card_number`,
    `card.number`."""
    test_mode: bool = False
    """Whether test suites may reset it, pause functions and cancel runs by the addresses under `/test`."""
    prefix: str = ""
    """Path below which everything is, such as `/holdfast`, behind a proxy."""
    max_request_bytes: int = 32 * 1024 * 1024
    """Largest body of the event API."""
    max_control_bytes: int = 4 * 1024 * 1024
    """Largest body of every other route."""
    max_bytes_in_flight: int = 128 * 1024 * 1024
    """Bodies held in memory by all requests together; past it the answer is 503."""
    body_timeout: float = 30.0
    """Seconds in which a body must have arrived."""
    shutdown_timeout: float = 10.0
    """Seconds given to requests in flight when the server stops."""

    def __post_init__(self) -> None:
        if self.mode not in {"dev", "start"}:
            raise ConfigurationError(f"server mode {self.mode!r} is not known; it is 'dev' or 'start'")
        if self.prefix and (not self.prefix.startswith("/") or self.prefix.endswith("/")):
            raise ConfigurationError(
                f"path prefix {self.prefix!r} must start with '/' and not end with one, such as '/holdfast'"
            )
        PrivateNetworks.parse(self.allow_private_networks)
        Masks(self.mask)
        if self.open:
            return
        if self.mode == "start":
            self._check_production()
        for key, what in (
            (self.signing_key, "INNGEST_SIGNING_KEY"),
            (self.signing_key_fallback, "INNGEST_SIGNING_KEY_FALLBACK"),
        ):
            if key is not None:
                check_signing_key(key, what)
        if not (self.signing_key or self.dashboard_password):
            raise ConfigurationError(
                f"in development on {self.host!r} everyone who can reach this machine could read and start runs: "
                "bind to 127.0.0.1, or set HOLDFAST_DASHBOARD_PASSWORD (or INNGEST_SIGNING_KEY) for a login"
            )

    def _check_production(self) -> None:
        missing = [
            name
            for name, value in (("INNGEST_EVENT_KEY", any(self.event_keys)), ("INNGEST_SIGNING_KEY", self.signing_key))
            if not value
        ]
        if missing:
            raise ConfigurationError(
                f"production needs {' and '.join(missing)}; make keys with `holdfast keys new` and set them in the "
                "environment, here and where your applications run"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def open(self) -> bool:
        """Whether no login is asked for: in development on loopback, unless a password is set.

        Keys, which an application's environment often has, don't matter there, as in the protocol.
        """
        return self.mode == "dev" and self.loopback and not self.dashboard_password

    @property
    def checks_event_keys(self) -> bool:
        """Whether an event needs a known key."""
        return self.mode == "start" or (bool(self.event_keys) and not self.loopback)

    @property
    def private_networks(self) -> PrivateNetworks:
        """What of private networks may be called."""
        return EVERYTHING if self.mode == "dev" else PrivateNetworks.parse(self.allow_private_networks)

    @property
    def kind(self) -> str:
        """`dev` or `cloud`, as the protocol calls the two modes."""
        return "dev" if self.mode == "dev" else "cloud"

    def sign_calls(self, driver: HttpDriver) -> None:
        """Let calls of applications be signed, as they are in production (protocol section 1.1)."""
        if self.mode == "start":
            driver.signing_key, driver.kind = self.signing_key, self.kind

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **given: Any) -> ServerSettings:
        """Settings from the environment. Lists are separated by commas; empty values count as not set.

        Read are `INNGEST_EVENT_KEY`, `INNGEST_SIGNING_KEY`, `INNGEST_SIGNING_KEY_FALLBACK`,
        `HOLDFAST_DASHBOARD_PASSWORD`, `HOLDFAST_SESSION_SECRET`, `HOLDFAST_ALLOWED_HOSTS`, `HOLDFAST_CORS_ORIGINS`,
        `HOLDFAST_ALLOW_PRIVATE_NETWORKS`, `HOLDFAST_MASK`, `HOLDFAST_PREFIX` and `TEST_MODE`.

        Args:
            environ: The environment; the process's unless given.
            **given: Fields that win over the environment, unless None.

        Raises:
            ConfigurationError: as for the class itself.
        """
        environ = os.environ if environ is None else environ
        found: dict[str, Any] = {
            "event_keys": _items(environ.get("INNGEST_EVENT_KEY", "")),
            "signing_key": environ.get("INNGEST_SIGNING_KEY") or None,
            "signing_key_fallback": environ.get("INNGEST_SIGNING_KEY_FALLBACK") or None,
            "dashboard_password": environ.get("HOLDFAST_DASHBOARD_PASSWORD") or None,
            "session_secret": environ.get("HOLDFAST_SESSION_SECRET") or None,
            "allowed_hosts": _items(environ.get("HOLDFAST_ALLOWED_HOSTS", "")),
            "cors_origins": _items(environ.get("HOLDFAST_CORS_ORIGINS", "")),
            "allow_private_networks": environ.get("HOLDFAST_ALLOW_PRIVATE_NETWORKS", ""),
            "mask": _items(environ.get("HOLDFAST_MASK", "")),
            "prefix": environ.get("HOLDFAST_PREFIX", "").rstrip("/"),
            "test_mode": environ.get("TEST_MODE", "").strip().lower() == "true",
        }
        return cls(**{**found, **{name: value for name, value in given.items() if value is not None}})

    @classmethod
    def at(cls, address: str, **given: Any) -> ServerSettings:
        """Settings from the environment for a server at `host:port`, such as `127.0.0.1:8288` or `[::1]:8288`.

        Args:
            address: Where to listen.
            **given: Fields that win over the environment, unless None.

        Raises:
            ConfigurationError: it is no address, or as for the class itself.
        """
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigurationError(f"{address!r} is no address to serve on; write it as '127.0.0.1:8288'")
        return cls.from_environment(host=host.strip("[]"), port=int(port), **given)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item for part in text.split(",") if (item := part.strip()))


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
