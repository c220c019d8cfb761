"""What a page says about a product."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation

MAX_IMAGES = 20
MAX_TITLE = 300
MAX_DESCRIPTION = 10_000

_EASTERN_DIGITS = str.maketrans("٠١٢٣٤٥٦٧٨٩٫٬", "0123456789.,")  # noqa: RUF001 - Arabic digits and separators
_NUMBER = re.compile(r"\d[\d.,\s']*")
_CURRENCIES = {
    "ر.س": "SAR", "SR": "SAR", "﷼": "SAR", "€": "EUR", "$": "USD", "£": "GBP", "د.إ": "AED", "د.ك": "KWD",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What one provider found. Nothing is guessed: what the page doesn't say is None."""

    title: str | None = None
    description: str | None = None
    price: str | None = None
    """A decimal number."""
    currency: str | None = None
    """Three letters, such as SAR."""
    images: list[str] = field(default_factory=list)

    @property
    def anything(self) -> bool:
        """Whether there is a product to speak of."""
        return bool(self.images or self.title)

    @property
    def complete(self) -> bool:
        """Whether no other provider needs to be asked."""
        return bool(self.title and self.description and self.price and self.currency and self.images)

    def filled_from(self, other: Found) -> Found:
        """This, with what is missing taken from another."""
        return replace(
            self,
            title=self.title or other.title,
            description=self.description or other.description,
            # a price without its currency is another number: they come from one place
            price=self.price or other.price,
            currency=self.currency or (other.currency if self.price in {None, other.price} else None),
            images=self.images or other.images,
        )


@dataclass(frozen=True)
class Scraped:
    """A product as it was found, and how."""

    found: Found
    provider: str
    """The first provider that found anything."""
    providers_tried: list[str]
    duration_ms: int
    truncated: bool = False
    """Whether the page was longer than what was read of it."""

    @property
    def partial(self) -> bool:
        """Whether there are images and not all of the text."""
        return bool(self.found.images) and not (self.found.title and self.found.description)


def clean_text(text: str | None, limit: int) -> str | None:
    """Text with its white space put in order; None for nothing."""
    cleaned = " ".join((text or "").split())[:limit].strip()
    return cleaned or None


def read_price(text: object) -> str | None:
    """The first number in a text as a plain decimal: `1,299.00 SAR` and `1.299,00 €` are read."""
    match = _NUMBER.search(str(text if text is not None else "").translate(_EASTERN_DIGITS))
    if match is None:
        return None
    digits = re.sub(r"[\s']", "", match[0]).rstrip(".,")
    point = max(digits.rfind("."), digits.rfind(","))
    separators = set(digits) & {".", ","}
    # one kind of separator, three digits after it or used twice: it groups thousands
    grouping = len(separators) == 1 and (len(digits) - point == 4 or digits.count(digits[point]) > 1) and point > 0
    if grouping and not digits.startswith("0"):
        plain = re.sub(r"[.,]", "", digits)
    elif point >= 0:
        plain = f"{re.sub(r'[.,]', '', digits[:point])}.{digits[point + 1 :]}"
    else:
        plain = digits
    try:
        return str(Decimal(plain))
    except InvalidOperation:
        return None


def read_currency(text: object) -> str | None:
    """The currency that a text names, by its code or its usual sign."""
    said = str(text if text is not None else "")
    code = re.search(r"\b[A-Z]{3}\b", said)
    if code:
        return code[0]
    return next((code for sign, code in _CURRENCIES.items() if sign in said), None)
