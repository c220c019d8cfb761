"""What the catalogue needs to know from its environment, checked once at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from examples.common.environment import KEYS, Reader, SettingsError, refuse

from .platforms import PLATFORMS, Platform, parse_platforms

__all__ = ["Settings", "SettingsError"]

Environment = Literal["development", "production"]
DEVELOPMENT_SECRET = "development"  # noqa: S105 - it protects nothing, and production refuses it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The catalogue's settings. README.md has the variables in a table."""

    environment: Environment = "development"
    database_url: str = "sqlite+aiosqlite:///.holdfast/catalogue.db"
    holdfast_store: str = "sqlite:///.holdfast/holdfast.db"
    dashboard: str | None = "127.0.0.1:8288"
    """Where the event API and the dashboard listen; None for nowhere."""
    event_key: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    session_secret: str = field(default=DEVELOPMENT_SECRET, repr=False)
    webhook_secret: str = field(default=DEVELOPMENT_SECRET, repr=False)
    salla_token_url: str = "https://accounts.salla.sa/oauth2/token"  # noqa: S105 - an address
    salla_client_id: str = "development"
    salla_client_secret: str = field(default=DEVELOPMENT_SECRET, repr=False)
    token_refresh_margin: float = 86_400.0
    """Seconds before a token expires, from which on it is refreshed."""
    platforms: tuple[Platform, ...] = PLATFORMS
    """The shops that products can be imported from."""
    scrape_timeout: float = 60.0
    """Seconds that fetching one page may take in all."""
    scrape_max_bytes: int = 3_000_000
    """How much of a page is read."""
    text_model_url: str = "http://127.0.0.1:8100/v1"
    text_model_name: str = "stand-in"
    text_model_key: str = field(default=DEVELOPMENT_SECRET, repr=False)

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from environment variables.

        Raises:
            SettingsError: something is missing or unusable; all of it is in the message.
        """
        read = Reader(environ)
        platforms, problems = parse_platforms(read.text("IMPORT_PLATFORMS", ""))
        settings = cls(
            environment=read.choice("APP_ENV", "development", get_args(Environment)),
            database_url=read.text("DATABASE_URL", cls.database_url),
            holdfast_store=read.text("HOLDFAST_STORE", cls.holdfast_store),
            dashboard=read.address("DASHBOARD_ADDRESS", cls.dashboard),
            event_key=read.optional("INNGEST_EVENT_KEY"),
            signing_key=read.optional("INNGEST_SIGNING_KEY"),
            session_secret=read.text("SESSION_SECRET", cls.session_secret),
            webhook_secret=read.text("SALLA_WEBHOOK_SECRET", cls.webhook_secret),
            salla_token_url=read.url("SALLA_TOKEN_URL", cls.salla_token_url),
            salla_client_id=read.text("SALLA_CLIENT_ID", cls.salla_client_id),
            salla_client_secret=read.text("SALLA_CLIENT_SECRET", cls.salla_client_secret),
            token_refresh_margin=read.number("TOKEN_REFRESH_MARGIN", cls.token_refresh_margin),
            platforms=platforms,
            scrape_timeout=read.number("SCRAPE_TIMEOUT", cls.scrape_timeout),
            scrape_max_bytes=int(read.number("SCRAPE_MAX_BYTES", cls.scrape_max_bytes)),
            text_model_url=read.url("TEXT_MODEL_URL", cls.text_model_url),
            text_model_name=read.text("TEXT_MODEL_NAME", cls.text_model_name),
            text_model_key=read.text("TEXT_MODEL_KEY", cls.text_model_key),
        )
        refuse("the catalogue", [*read.problems, *problems, *settings._problems(read)])
        return settings

    def _problems(self, read: Reader) -> list[str]:
        problems = []
        if not self.database_url.startswith(("sqlite+aiosqlite:", "postgresql+psycopg:", "postgresql+asyncpg:")):
            problems.append(
                "DATABASE_URL needs an async driver: sqlite+aiosqlite:///file.db or postgresql+psycopg://user:password@host/database"
            )
        if self.production:
            problems.extend(read.missing(_REQUIRED))
            problems.extend(
                f"{name} is the one of development, which everybody knows; use a real one"
                for name in ("SESSION_SECRET", "SALLA_WEBHOOK_SECRET")
                if read.optional(name) == DEVELOPMENT_SECRET
            )
        return problems


_REQUIRED = {
    **KEYS,
    "SESSION_SECRET": "signs the login cookie; `openssl rand -hex 32` makes one",
    "SALLA_WEBHOOK_SECRET": "the secret shown beside the webhooks in Salla's partner portal",
    "SALLA_CLIENT_ID": "the app's client id in Salla's partner portal",
    "SALLA_CLIENT_SECRET": "the app's client secret in Salla's partner portal",
    "TEXT_MODEL_URL": "where the text model's API is, such as https://api.openai.com/v1",
    "TEXT_MODEL_KEY": "the text model's key",
}
