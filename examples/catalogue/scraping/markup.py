"""The second provider: what a page shows to people. It reads microdata and the class names that shops have in common."""

from __future__ import annotations

from selectolax.lexbor import LexborHTMLParser, LexborNode

from .product import MAX_DESCRIPTION, MAX_TITLE, Found, clean_text, read_currency, read_price

NAME = "markup"
_PRICES = ('[itemprop="price"]', ".product-price", ".product__price", ".price .amount", ".price-item", ".price")
_TITLES = ('[itemprop="name"]', ".product-title", ".product__title", "h1")
_DESCRIPTIONS = ('[itemprop="description"]', ".product-description", ".product__description", "#description")
_IMAGES = ('[itemprop="image"]', ".product-gallery img", ".product__media img", ".product-image img", "main img")
_CURRENCIES = ('[itemprop="priceCurrency"]', "[data-currency]")


def provide(tree: LexborHTMLParser) -> Found:
    """What the page's markup says about its product; nothing for a page that has no price and claims no product."""
    typed = tree.css_first('[itemtype*="schema.org/Product"]')
    price_node = _first(tree, _PRICES)
    price = read_price(_said(price_node)) if price_node is not None else None
    if typed is None and price is None:
        return Found()
    return Found(
        title=clean_text(_said(_first(tree, _TITLES)), MAX_TITLE),
        description=clean_text(_said(_first(tree, _DESCRIPTIONS)), MAX_DESCRIPTION),
        price=price,
        currency=_currency(tree, price_node) if price else None,
        images=_images(tree),
    )


def _first(tree: LexborHTMLParser, selectors: tuple[str, ...]) -> LexborNode | None:
    return next((node for selector in selectors if (node := tree.css_first(selector)) is not None), None)


def _said(node: LexborNode | None) -> str | None:
    if node is None:
        return None
    return node.attributes.get("content") or node.text(separator=" ")


def _currency(tree: LexborHTMLParser, price: LexborNode | None) -> str | None:
    node = _first(tree, _CURRENCIES)
    marked = None if node is None else node.attributes.get("data-currency") or _said(node)
    return read_currency(marked) or read_currency(None if price is None else price.text(separator=" "))


def _images(tree: LexborHTMLParser) -> list[str]:
    for selector in _IMAGES:
        sources = [
            # lazy images carry a placeholder in src
            node.attributes.get("data-src") or node.attributes.get("src") or node.attributes.get("content")
            for node in tree.css(selector)
        ]
        found = [source for source in sources if source]
        if found:
            return found
    return []
