"""Asking one provider after another what a page says about its product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser

from . import markup, structured
from .fetching import Page, PageError
from .product import MAX_IMAGES, Found, Scraped

PROVIDERS: tuple[tuple[str, Callable[[LexborHTMLParser], Found]], ...] = (
    (structured.NAME, structured.provide),
    (markup.NAME, markup.provide),
)
"""In the order in which they are asked."""


class NoProductError(PageError):
    """The page shows no product."""


def extract(page: Page, started: float | None = None) -> Scraped:
    """The product of a page. The first provider that finds anything decides; later ones fill what is missing.

    Args:
        page: As it was fetched.
        started: When the work began, by `time.monotonic()`; now unless given.

    Raises:
        NoProductError: no provider finds a product.
    """
    started = time.monotonic() if started is None else started
    tree = LexborHTMLParser(page.html)
    found, provider, tried = Found(), "", []
    for name, provide in PROVIDERS:
        tried.append(name)
        theirs = provide(tree)
        theirs = replace(theirs, images=_absolute(theirs.images, page.url))
        if theirs.anything:
            provider = provider or name
            found = found.filled_from(theirs)
        if found.complete:
            break
    if not provider:
        where = " in the part of it that was read" if page.truncated else ""
        raise NoProductError(f"the page shows no product{where}; asked were {' and '.join(tried)}")
    duration = round((time.monotonic() - started) * 1000)
    return Scraped(found, provider, tried, duration, page.truncated)


def _absolute(images: list[str], base: str) -> list[str]:
    found: dict[str, None] = {}
    for image in images:
        try:
            address = urljoin(base, image.strip())
            usable = urlsplit(address).scheme in {"http", "https"}
        except ValueError:
            continue  # a broken address is not an image
        if usable:
            found[address] = None
    return list(found)[:MAX_IMAGES]
