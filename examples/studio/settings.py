"""What the studio needs to know from its environment, checked once at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from examples.common.environment import KEYS, Reader, SettingsError, refuse

__all__ = ["Settings", "SettingsError"]

Environment = Literal["development", "production"]
SmtpSecurity = Literal["none", "starttls", "tls"]
DEVELOPMENT_SECRET = "development"  # noqa: S105 - it protects nothing, and production refuses it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The studio's settings. README.md has the variables in a table."""

    environment: Environment = "development"
    holdfast_store: str = "sqlite:///.holdfast/holdfast.db"
    dashboard: str | None = "127.0.0.1:8288"
    """Where the event API and the dashboard listen; None for nowhere."""
    event_key: str | None = field(default=None, repr=False)
    signing_key: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    """What callers of the studio's own API must show; None for nothing."""
    mail_from: str = "Studio <studio@localhost>"
    mail_timeout: float = 20.0
    """Seconds that sending one e-mail may take in all."""
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 1025
    smtp_username: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    smtp_security: SmtpSecurity = "none"
    text_model_url: str = "http://127.0.0.1:8100/v1"
    text_model_name: str = "stand-in"
    text_model_key: str = field(default=DEVELOPMENT_SECRET, repr=False)
    text_model_timeout: float = 60.0
    export_directory: Path = Path(".holdfast/exports")
    pdf_font: Path | None = None
    """A TrueType font; None for one that has Western European letters only."""
    webhook_secret: str = field(default=DEVELOPMENT_SECRET, repr=False)
    webhook_timeout: float = 10.0
    """Seconds that a receiver of a webhook may take."""

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
        font = read.optional("PDF_FONT")
        settings = cls(
            environment=read.choice("APP_ENV", "development", get_args(Environment)),
            holdfast_store=read.text("HOLDFAST_STORE", cls.holdfast_store),
            dashboard=read.address("DASHBOARD_ADDRESS", cls.dashboard),
            event_key=read.optional("INNGEST_EVENT_KEY"),
            signing_key=read.optional("INNGEST_SIGNING_KEY"),
            api_key=read.optional("STUDIO_API_KEY"),
            mail_from=read.text("MAIL_FROM", cls.mail_from),
            mail_timeout=read.number("MAIL_TIMEOUT", cls.mail_timeout),
            smtp_host=read.text("SMTP_HOST", cls.smtp_host),
            smtp_port=int(read.number("SMTP_PORT", cls.smtp_port)),
            smtp_username=read.optional("SMTP_USERNAME"),
            smtp_password=read.optional("SMTP_PASSWORD"),
            smtp_security=read.choice("SMTP_SECURITY", "none", get_args(SmtpSecurity)),
            text_model_url=read.url("TEXT_MODEL_URL", cls.text_model_url),
            text_model_name=read.text("TEXT_MODEL_NAME", cls.text_model_name),
            text_model_key=read.text("TEXT_MODEL_KEY", cls.text_model_key),
            text_model_timeout=read.number("TEXT_MODEL_TIMEOUT", cls.text_model_timeout),
            export_directory=Path(read.text("EXPORT_DIRECTORY", str(cls.export_directory))),
            pdf_font=Path(font) if font else None,
            webhook_secret=read.text("WEBHOOK_SECRET", cls.webhook_secret),
            webhook_timeout=read.number("WEBHOOK_TIMEOUT", cls.webhook_timeout),
        )
        refuse("the studio", [*read.problems, *settings._problems(read)])
        return settings

    def _problems(self, read: Reader) -> list[str]:
        problems = []
        if bool(self.smtp_username) != bool(self.smtp_password):
            problems.append("SMTP_USERNAME and SMTP_PASSWORD go together; set both or neither")
        if self.pdf_font is not None and not self.pdf_font.is_file():
            problems.append(f"PDF_FONT names {self.pdf_font}, which is not a file")
        if self.production:
            problems.extend(read.missing(_REQUIRED))
            if read.optional("WEBHOOK_SECRET") == DEVELOPMENT_SECRET:
                problems.append("WEBHOOK_SECRET is the one of development, which everybody knows; use a real one")
        return problems


_REQUIRED = {
    **KEYS,
    "STUDIO_API_KEY": "what callers of this API must show; `openssl rand -hex 32` makes one",
    "MAIL_FROM": "the sender of all e-mails, such as `Studio <studio@example.com>`",
    "SMTP_HOST": "the mail server",
    "TEXT_MODEL_URL": "where the text model's API is, such as https://api.openai.com/v1",
    "TEXT_MODEL_KEY": "the text model's key",
    "WEBHOOK_SECRET": "what outgoing webhooks are signed with; `openssl rand -hex 32` makes one",
}
