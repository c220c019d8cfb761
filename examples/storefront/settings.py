"""What the shop needs to know from its environment, checked once at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from examples.common.environment import KEYS, Reader, SettingsError, refuse

__all__ = ["Settings", "SettingsError"]

Environment = Literal["development", "production"]
MailTransport = Literal["smtp", "resend"]
SmtpSecurity = Literal["none", "starttls", "tls"]

DEVELOPMENT_WEBHOOK_SECRET = "whsec_development"  # noqa: S105 - it protects nothing, and production refuses it
RESEND_URL = "https://api.resend.com"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The shop's settings. README.md has the variables in a table."""

    environment: Environment = "development"
    database_url: str = "sqlite+aiosqlite:///.holdfast/storefront.db"
    holdfast_store: str = "sqlite:///.holdfast/holdfast.db"
    dashboard: str | None = "127.0.0.1:8288"
    """Where the event API and the dashboard listen; None for nowhere."""
    event_key: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    webhook_secret: str = field(default=DEVELOPMENT_WEBHOOK_SECRET, repr=False)
    mail_transport: MailTransport = "smtp"
    mail_from: str = "Riqle <shop@localhost>"
    mail_timeout: float = 20.0
    """Seconds that sending one e-mail may take in all."""
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 1025
    smtp_username: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    smtp_security: SmtpSecurity = "none"
    resend_api_key: str | None = field(default=None, repr=False)
    resend_url: str = RESEND_URL

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
            holdfast_store=read.text("HOLDFAST_STORE", cls.holdfast_store),
            dashboard=read.address("DASHBOARD_ADDRESS", cls.dashboard),
            event_key=read.optional("INNGEST_EVENT_KEY"),
            signing_key=read.optional("INNGEST_SIGNING_KEY"),
            webhook_secret=read.text("PAYMENT_WEBHOOK_SECRET", cls.webhook_secret),
            mail_transport=read.choice("MAIL_TRANSPORT", "smtp", get_args(MailTransport)),
            mail_from=read.text("MAIL_FROM", cls.mail_from),
            mail_timeout=read.number("MAIL_TIMEOUT", cls.mail_timeout),
            smtp_host=read.text("SMTP_HOST", cls.smtp_host),
            smtp_port=int(read.number("SMTP_PORT", cls.smtp_port)),
            smtp_username=read.optional("SMTP_USERNAME"),
            smtp_password=read.optional("SMTP_PASSWORD"),
            smtp_security=read.choice("SMTP_SECURITY", "none", get_args(SmtpSecurity)),
            resend_api_key=read.optional("RESEND_API_KEY"),
            resend_url=read.text("RESEND_URL", cls.resend_url),
        )
        refuse("the shop", [*read.problems, *settings._problems(read)])
        return settings

    def _problems(self, read: Reader) -> list[str]:
        problems = []
        if not self.database_url.startswith(("sqlite+aiosqlite:", "postgresql+psycopg:", "postgresql+asyncpg:")):
            problems.append(
                "DATABASE_URL needs an async driver: sqlite+aiosqlite:///file.db or postgresql+psycopg://user:password@host/database"
            )
        if self.mail_transport == "resend" and not self.resend_api_key:
            problems.append("RESEND_API_KEY is missing; make one at resend.com, or set MAIL_TRANSPORT=smtp")
        if bool(self.smtp_username) != bool(self.smtp_password):
            problems.append("SMTP_USERNAME and SMTP_PASSWORD go together; set both or neither")
        if self.environment == "production":
            problems.extend(self._production_problems(read))
        return problems

    def _production_problems(self, read: Reader) -> list[str]:
        required = {
            **KEYS,
            "PAYMENT_WEBHOOK_SECRET": "the payment provider shows it beside the webhook's address",
            "MAIL_FROM": "the sender of all e-mails, such as `Riqle <shop@example.com>`",
        }
        if self.mail_transport == "smtp":
            required["SMTP_HOST"] = "the mail server"
        problems = read.missing(required)
        if read.optional("PAYMENT_WEBHOOK_SECRET") == DEVELOPMENT_WEBHOOK_SECRET:
            problems.append("PAYMENT_WEBHOOK_SECRET is the one of development, which everybody knows; use the real one")
        return problems
