"""Which shops products can be imported from. An address anywhere else is never fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_URL = 2000


class UnsupportedAddressError(Exception):
    """A product can't be imported from there; the message says why, for the person who typed it."""


@dataclass(frozen=True)
class Platform:
    """A kind of shop, known by its host: the host itself, or anything under it. A port counts when it is given."""

    name: str
    host: str

    def has(self, host: str, port: int | None) -> bool:
        """Whether an address is on this platform."""
        wanted, _, wanted_port = self.host.partition(":")
        if wanted_port and wanted_port != str(port):
            return False
        return host == wanted or host.endswith(f".{wanted}")


PLATFORMS = (
    Platform("Salla", "salla.sa"),
    Platform("Zid", "zid.store"),
    Platform("Shopify", "myshopify.com"),
)


def parse_platforms(text: str) -> tuple[tuple[Platform, ...], list[str]]:
    """Platforms written as `Name=host, Name=host:port`, or the usual ones; and what is wrong with the text."""
    found, problems = [], []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, host = (piece.strip() for piece in part.partition("="))
        if not name or not host or "/" in host:
            problems.append(f"IMPORT_PLATFORMS has {part!r}; write Name=host, Name=host")
        else:
            found.append(Platform(name, host.lower()))
    return tuple(found) or PLATFORMS, problems


def check_address(text: str, platforms: Sequence[Platform]) -> str:
    """The address of a product's page, if it is one on a supported platform.

    Raises:
        UnsupportedAddressError: it isn't.
    """
    address = text.strip()
    if not address:
        raise UnsupportedAddressError("Enter the address of the product's page.")
    if len(address) > MAX_URL:
        raise UnsupportedAddressError(f"This address is longer than {MAX_URL} characters.")
    try:
        parts = urlsplit(address)
        host, port = (parts.hostname or "").lower().rstrip("."), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host or any(c.isspace() or not c.isprintable() for c in address):
        raise UnsupportedAddressError(
            "This is not a web address. It should look like https://your-shop.salla.sa/product."
        )
    if parts.username or parts.password:
        raise UnsupportedAddressError("Leave out the user name and password: product pages are public.")
    if not any(platform.has(host, port) for platform in platforms):
        raise UnsupportedAddressError(f"Products from {host} can't be imported. {supported(platforms)}")
    return address


def supported(platforms: Sequence[Platform]) -> str:
    """A sentence that names the platforms."""
    names = [f"{platform.name} ({platform.host})" for platform in platforms]
    return "Supported are " + (" and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]) + "."
