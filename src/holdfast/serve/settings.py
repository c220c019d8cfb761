"""How a serve route is set up: keys, mode and addresses, from arguments or the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal, TypedDict, Unpack

from holdfast.base.duration import duration_ms, duration_text
from holdfast.base.errors import ConfigurationError
from holdfast.sdk.functions import Function
from holdfast.wire.diagnosis import SERVE_PATH
from holdfast.wire.signatures import hashed_key

Mode = Literal["dev", "cloud"]
DEV_SERVER: Final = "http://127.0.0.1:8288"
_CHECKPOINT_FIELDS: Final = frozenset({"batch_steps", "batch_interval", "max_runtime"})
_OFF: Final = frozenset({"", "0", "false", "no", "off"})


class ServeOptions(TypedDict, total=False):
    """What may be passed to `serve`; the environment says the rest."""

    path: str
    """Where the route is; `/api/inngest` unless given."""
    dev: bool
    """Development: no keys needed, the server on this machine. `INNGEST_DEV`."""
    base_url: str
    """The server's address. `INNGEST_BASE_URL`."""
    event_key: str
    """`INNGEST_EVENT_KEY`."""
    signing_key: str
    """`INNGEST_SIGNING_KEY`."""
    signing_key_fallback: str
    """The other key while keys are rotated. `INNGEST_SIGNING_KEY_FALLBACK`."""
    env: str
    """The server's environment. `INNGEST_ENV`."""
    serve_origin: str
    """`https://shop.example`: how the server reaches this app, where requests don't show it. `INNGEST_SERVE_ORIGIN`."""
    serve_path: str
    """The path there, where it differs from `path`. `INNGEST_SERVE_PATH`."""
    app_version: str
    """Shown beside the app."""
    checkpoint: bool | Mapping[str, Any]
    """Report steps while a function goes on: True, or `{"batch_steps": 10, "batch_interval": "1s", "max_runtime": "60s"}`."""


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """How often steps are reported."""

    batch_steps: int = 1
    """Steps that are reported together."""
    batch_interval_ms: int = 0
    """How long the first of a batch may wait for the others; 0 for as long as it takes."""
    max_runtime_ms: int = 0
    """After this the next step is left to another call; 0 for no limit."""

    @classmethod
    def of(cls, given: Mapping[str, Any] | bool | None) -> CheckpointSettings | None:
        """Read `True`, or `{"batch_steps": 10, "batch_interval": "1s", "max_runtime": "60s"}`; None for no checkpoints.

        Raises:
            ConfigurationError: a field is unknown or can't be used.
        """
        if given is None or given is False:
            return None
        fields: Mapping[str, Any] = {} if given is True else given
        unknown = set(fields) - _CHECKPOINT_FIELDS
        if unknown:
            raise ConfigurationError(f"{min(unknown)!r} is not a field of checkpoint; it has {', '.join(sorted(_CHECKPOINT_FIELDS))}")
        steps = fields.get("batch_steps", 1)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ConfigurationError(f"checkpoint: batch_steps is a number from 1, not {steps!r}")
        return cls(steps, duration_ms(fields.get("batch_interval", 0)), duration_ms(fields.get("max_runtime", 0)))

    def document(self) -> dict[str, Any]:
        """As a function registers it."""
        out: dict[str, Any] = {"batch_steps": self.batch_steps}
        if self.batch_interval_ms:
            out["batch_interval"] = duration_text(self.batch_interval_ms)
        if self.max_runtime_ms:
            out["max_runtime"] = duration_text(self.max_runtime_ms)
        return out


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """A serve route's settings, validated."""

    mode: Mode
    path: str = SERVE_PATH
    api_url: str | None = None
    """The server's API; None when it isn't known, so that nothing can be synced or fetched."""
    event_url: str | None = None
    event_key: str | None = field(default=None, repr=False)
    signing_keys: tuple[str, ...] = field(default=(), repr=False)
    """The current key and, while keys are rotated, the other one."""
    env: str | None = None
    serve_origin: str | None = None
    serve_path: str | None = None
    app_version: str | None = None
    checkpoint: CheckpointSettings | None = None
    """For functions without a setting of their own."""

    @property
    def signed(self) -> bool:
        """Whether requests must be signed."""
        return self.mode == "cloud"

    @property
    def has_fallback(self) -> bool:
        """Whether there is a second signing key."""
        return len(self.signing_keys) > 1

    @classmethod
    def of(cls, environment: Mapping[str, str] | None = None, /, **options: Unpack[ServeOptions]) -> ServeSettings:
        """Settings from arguments, and from the environment where they are not given.

        Raises:
            ConfigurationError: a key or an address can't be used.
        """
        env = os.environ if environment is None else environment
        dev_text = env.get("INNGEST_DEV", "").strip()
        dev = options["dev"] if "dev" in options else dev_text.lower() not in _OFF
        base = options.get("base_url") or env.get("INNGEST_BASE_URL")
        if not base and dev:
            base = dev_text if dev_text.startswith(("http://", "https://")) else DEV_SERVER
        key = options.get("signing_key") or env.get("INNGEST_SIGNING_KEY")
        fallback = options.get("signing_key_fallback") or env.get("INNGEST_SIGNING_KEY_FALLBACK")
        keys = tuple(one for one in (key, fallback) if one)
        for one in keys:
            hashed_key(one)
        return cls(
            mode="dev" if dev else "cloud",
            path="/" + options.get("path", SERVE_PATH).strip("/"),
            api_url=_address(env.get("INNGEST_API_BASE_URL") or base, "INNGEST_BASE_URL"),
            event_url=_address(env.get("INNGEST_EVENT_API_BASE_URL") or base, "INNGEST_BASE_URL"),
            event_key=options.get("event_key") or env.get("INNGEST_EVENT_KEY") or None,
            signing_keys=keys,
            env=options.get("env") or env.get("INNGEST_ENV") or None,
            serve_origin=_address(options.get("serve_origin") or env.get("INNGEST_SERVE_ORIGIN"), "INNGEST_SERVE_ORIGIN"),
            serve_path=options.get("serve_path") or env.get("INNGEST_SERVE_PATH") or None,
            app_version=options.get("app_version"),
            checkpoint=CheckpointSettings.of(options.get("checkpoint")),
        )

    def checkpoints_of(self, function: Function[Any, Any]) -> CheckpointSettings | None:
        """How a function reports its steps."""
        own = function.options.extra.get("checkpoint")
        return self.checkpoint if own is None else CheckpointSettings.of(own)

    def address(self, seen: str) -> str:
        """The route's address for the server.

        Args:
            seen: The address of the request at hand.
        """
        if self.serve_origin is None:
            origin = "/".join(seen.split("/", 3)[:3])
            return seen if self.serve_path is None else f"{origin}/{self.serve_path.strip('/')}"
        return f"{self.serve_origin}/{(self.serve_path or self.path).strip('/')}"

    def key_hash(self, index: int) -> str | None:
        """The hash of a signing key, by which people tell keys apart."""
        return hashed_key(self.signing_keys[index]) if index < len(self.signing_keys) else None

    @property
    def event_key_hash(self) -> str | None:
        return None if self.event_key is None else sha256(self.event_key.encode()).hexdigest()


def _address(text: str | None, what: str) -> str | None:
    if not text:
        return None
    if not text.startswith(("http://", "https://")):
        raise ConfigurationError(f"{what} is an address such as http://127.0.0.1:8288, not {text!r}")
    return text.rstrip("/")
