"""The HTTP server's settings from the command line and the environment."""

from __future__ import annotations

import os

from holdfast.cli.settings import ProcessSettings
from holdfast.server.settings import ServerSettings, is_loopback

_PRODUCTION_ONLY = ("INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK")


def server_settings(
    process: ProcessSettings,
    event_keys: tuple[str, ...] | None = None,
    signing_key: str | None = None,
    allow_private_networks: str | None = None,
) -> ServerSettings:
    """Settings from the environment and what the command line gave in their place.

    Development on loopback leaves production's keys out: they may well be in the environment, for the app.

    Raises:
        ConfigurationError: keys are missing or malformed, or the server would be open to others without a login.
    """
    environ = dict(os.environ)
    if process.mode == "dev" and is_loopback(process.host):
        for name in _PRODUCTION_ONLY:
            environ.pop(name, None)
    return ServerSettings.from_environment(
        environ,
        mode=process.mode,
        host=process.host,
        port=process.port,
        event_keys=event_keys or None,
        signing_key=signing_key or None,
        allow_private_networks=allow_private_networks,
    )
