"""What all runs share, opened once for as long as the app runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from examples.common.text_model import TextModel
from holdfast import App

from .delivering import Deliverer
from .exporting import Exporter
from .mail import Mailer
from .settings import Settings


@dataclass(frozen=True)
class Studio:
    """The studio's parts; durable functions find them in `ctx.resources`."""

    mailer: Mailer
    model: TextModel
    exporter: Exporter
    deliverer: Deliverer


@asynccontextmanager
async def open_studio(settings: Settings) -> AsyncIterator[Studio]:
    """Everything, with one HTTP client, closed at the end of the block."""
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
        yield Studio(
            Mailer(settings),
            TextModel(
                client,
                settings.text_model_url,
                settings.text_model_name,
                settings.text_model_key,
                settings.text_model_timeout,
            ),
            Exporter(settings.export_directory, settings.pdf_font),
            Deliverer(client, settings.webhook_secret, settings.webhook_timeout, only_https=settings.production),
        )


@asynccontextmanager
async def studio_lifespan(_app: App) -> AsyncIterator[Studio]:
    """The studio as the environment describes it."""
    async with open_studio(Settings.from_environment()) as studio:
        yield studio
