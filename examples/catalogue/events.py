"""The events of the catalogue. On the wire their fields are camelCase, in Python snake_case."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.alias_generators import to_camel

from holdfast import Event

Id = Annotated[str, Field(min_length=1, max_length=200)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2000)]


class WebhookReceived(Event, name="app/webhook.received", alias_generator=to_camel):
    """Salla reported something. The payload is the stored one without its secrets."""

    event: Annotated[str, Field(min_length=1, max_length=200)]
    merchant_salla_id: int
    payload: dict[str, Any]
    webhook_history_id: Id


class TokenRefreshNeeded(Event, name="app/token.refresh-needed", alias_generator=to_camel):
    """A merchant's access token expires soon."""

    merchant_id: Id


class ScrapeRequested(Event, name="product/scrape.requested", alias_generator=to_camel):
    """A merchant wants a product imported from a page."""

    product_id: Id
    source_url: Url
    merchant_id: Id


class ScrapeCompleted(Event, name="product/scrape.completed", alias_generator=to_camel):
    """A product was imported."""

    product_id: Id
    success: bool


class ScrapeFailed(Event, name="product/scrape.failed", alias_generator=to_camel):
    """A product could not be imported."""

    product_id: Id
    error: str


EVENTS: list[type[Event]] = [WebhookReceived, TokenRefreshNeeded, ScrapeRequested, ScrapeCompleted, ScrapeFailed]
