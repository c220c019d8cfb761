"""What the web application's handlers share."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from .merchants import Merchants
from .products import Products
from .settings import Settings
from .webhooks import Webhooks


@dataclass(frozen=True)
class Web:
    """The parts of the catalogue that requests need."""

    settings: Settings
    merchants: Merchants
    products: Products
    webhooks: Webhooks


def web_of(request: Request) -> Web:
    """The parts, while the application runs."""
    web: Web = request.app.state.web
    return web
