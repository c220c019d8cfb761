"""What the inbox needs to know from its environment, checked once at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from examples.common.environment import KEYS, Reader, SettingsError, refuse

__all__ = ["Settings", "SettingsError", "redis_url"]

Environment = Literal["development", "production"]
DEFAULT_REDIS = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True)
class Limits:
    """What the functions are declared with."""

    bucket_seconds: float = 10.0
    """At most one recompute per client in each."""
    recompute_cap: int = 4
    """Recomputes that execute at once."""
    analytics_cap: int = 2
    backlog_alert: int = 200
    """More jobs than this that wait raise an alert."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The inbox's settings. README.md has the variables in a table."""

    environment: Environment = "development"
    database_url: str = "sqlite+aiosqlite:///.holdfast/inbox.db"
    redis_url: str = field(default=DEFAULT_REDIS, repr=False)
    holdfast_store: str = "sqlite:///.holdfast/holdfast.db"
    dashboard: str | None = "127.0.0.1:8288"
    """Where the event API and the dashboard listen; None for nowhere."""
    event_key: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    """What callers of the inbox's own API must show; None for nothing."""
    cron_secret: str | None = field(default=None, repr=False)
    """What callers of the cron endpoint must show; None for nothing."""
    enqueue: bool = False
    """Whether the cron endpoint only enqueues, instead of doing the work itself."""
    analytics: bool = False
    """Whether aggregates are refreshed at all."""
    analytics_max_age: float = 900.0
    """The objective: aggregates are at most so many seconds old."""
    limits: Limits = Limits()

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
        settings = cls(
            environment=read.choice("APP_ENV", "development", get_args(Environment)),
            database_url=read.text("DATABASE_URL", cls.database_url),
            redis_url=read.text("REDIS_URL", cls.redis_url),
            holdfast_store=read.text("HOLDFAST_STORE", cls.holdfast_store),
            dashboard=read.address("DASHBOARD_ADDRESS", cls.dashboard),
            event_key=read.optional("INNGEST_EVENT_KEY"),
            signing_key=read.optional("INNGEST_SIGNING_KEY"),
            api_key=read.optional("INBOX_API_KEY"),
            cron_secret=read.optional("CRON_SECRET"),
            enqueue=read.flag("BACKGROUND_JOBS_USE_INNGEST", cls.enqueue),
            analytics=read.flag("ANALYTICS_ENABLED", cls.analytics),
            analytics_max_age=read.number("ANALYTICS_MAX_AGE", cls.analytics_max_age),
            limits=read_limits(read),
        )
        refuse("the inbox", [*read.problems, *settings._problems(read)])
        return settings

    def _problems(self, read: Reader) -> list[str]:
        problems = []
        if not self.database_url.startswith(("sqlite+aiosqlite:", "postgresql+psycopg:", "postgresql+asyncpg:")):
            problems.append(
                "DATABASE_URL needs an async driver: sqlite+aiosqlite:///file.db or postgresql+psycopg://user:password@host/database"
            )
        if not self.redis_url.startswith(("redis://", "rediss://", "unix://")):
            problems.append("REDIS_URL must begin with redis://, rediss:// or unix://")
        return [*problems, *read.missing(_REQUIRED)] if self.production else problems


def read_limits(read: Reader) -> Limits:
    """The limits; what is unusable is noted by the reader, and the default taken."""
    return Limits(
        bucket_seconds=read.number("RECOMPUTE_BUCKET_SECONDS", Limits.bucket_seconds),
        recompute_cap=int(read.number("RECOMPUTE_CAP", Limits.recompute_cap)),
        analytics_cap=int(read.number("ANALYTICS_CAP", Limits.analytics_cap)),
        backlog_alert=int(read.number("BACKLOG_ALERT", Limits.backlog_alert)),
    )


def redis_url() -> str:
    """Where Redis is, as the environment says at this moment."""
    return Reader(os.environ).text("REDIS_URL", DEFAULT_REDIS)


_REQUIRED = {
    **KEYS,
    "REDIS_URL": "where Redis is, such as redis://redis.example.com:6379/0",
    "INBOX_API_KEY": "what callers of this API must show; `openssl rand -hex 32` makes one",
    "CRON_SECRET": "what callers of the cron endpoint must show; `openssl rand -hex 32` makes one",
}
