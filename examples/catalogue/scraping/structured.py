"""The first provider: what a page says for machines, JSON-LD before Open Graph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from .product import MAX_DESCRIPTION, MAX_TITLE, Found, clean_text, read_currency, read_price

NAME = "structured-data"
_MAX_DEPTH = 20


def provide(tree: LexborHTMLParser) -> Found:
    """What the page's structured data says about its product."""
    return _from_json_ld(tree).filled_from(_from_open_graph(tree))


# -- JSON-LD ---------------------------------------------------------------------------------------------------------


def _from_json_ld(tree: LexborHTMLParser) -> Found:
    for script in tree.css('script[type="application/ld+json"]'):
        # some shops wrap it for browsers of the nineties
        text = script.text().strip().removeprefix("<!--").removesuffix("-->")
        try:
            document = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            continue  # one broken block says nothing about the others
        for node in _products(document, 0):
            return _product(node)
    return Found()


def _products(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            yield from _products(item, depth + 1)
    elif isinstance(value, dict):
        kinds = value.get("@type")
        if any(kind in {"Product", "ProductGroup"} for kind in (kinds if isinstance(kinds, list) else [kinds])):
            yield value
        for key in ("@graph", "mainEntity", "itemListElement", "hasVariant", "item"):
            yield from _products(value.get(key), depth + 1)


def _product(node: dict[str, Any]) -> Found:
    offer = _first_offer(node.get("offers"))
    specification = offer.get("priceSpecification")
    if isinstance(specification, list):
        specification = specification[0] if specification else None
    specified = specification if isinstance(specification, dict) else {}
    return Found(
        title=_plain(node.get("name"), MAX_TITLE),
        description=_plain(node.get("description"), MAX_DESCRIPTION),
        price=read_price(_first(offer.get("price"), offer.get("lowPrice"), specified.get("price"))),
        currency=read_currency(_first(offer.get("priceCurrency"), specified.get("priceCurrency"))),
        images=list(_images(node.get("image"))),
    )


def _first_offer(offers: Any) -> dict[str, Any]:
    candidates = offers if isinstance(offers, list) else [offers]
    return next((offer for offer in candidates if isinstance(offer, dict)), {})


def _first(*values: Any) -> str | int | float | None:
    """The first that says anything."""
    return next((value for value in values if isinstance(value, str | int | float) and value != ""), None)


def _images(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _images(value.get("url") or value.get("contentUrl"))
    elif isinstance(value, list):
        for item in value[:50]:
            if not isinstance(item, list):
                yield from _images(item)


def _plain(value: Any, limit: int) -> str | None:
    """Text without the tags that descriptions often have."""
    if not isinstance(value, str):
        return None
    text = LexborHTMLParser(value).text(separator=" ") if "<" in value or "&" in value else value
    return clean_text(text, limit)


# -- Open Graph ------------------------------------------------------------------------------------------------------


def _from_open_graph(tree: LexborHTMLParser) -> Found:
    said: dict[str, list[str]] = {}
    for meta in tree.css("meta[property]"):
        content = meta.attributes.get("content")
        if content and content.strip():
            said.setdefault(str(meta.attributes["property"]).lower(), []).append(content.strip())

    def first(*names: str) -> str | None:
        return next((said[name][0] for name in names if name in said), None)

    amount = first("product:price:amount", "og:price:amount", "product:sale_price:amount")
    # every page has a title and a picture for sharing; a product says that it is one
    if amount is None and "product" not in (first("og:type") or "").lower():
        return Found()
    return Found(
        title=clean_text(first("og:title"), MAX_TITLE),
        description=clean_text(first("og:description"), MAX_DESCRIPTION),
        price=read_price(amount),
        currency=read_currency(first("product:price:currency", "og:price:currency", "product:sale_price:currency")),
        images=[image for name in ("og:image", "og:image:secure_url") for image in said.get(name, [])],
    )
