"""Fetching one page of somebody else's web site, with all that can go wrong."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

import httpx

from examples.catalogue.platforms import Platform, UnsupportedAddressError, check_address
from holdfast import NonRetriableError, RetryAfterError, RetryPresets

MAX_REDIRECTS = 5
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
MAX_WAIT_SECONDS = RetryPresets.scraper.cap or 60.0
"""The longest Retry-After that is waited for."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": "holdfast-catalogue/1.0", "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1"}
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)


class ShopUnavailableError(Exception):
    """The shop didn't give its page this time; trying again makes sense."""

    status_code = 503
    """What it counts as for a retry preset."""


class PageError(NonRetriableError):
    """The shop gave an answer that trying again won't change."""


@dataclass(frozen=True)
class Page:
    """A page that was fetched."""

    url: str
    """Where it was in the end, after redirects."""
    html: str
    truncated: bool
    """Whether it is longer than what was read."""


@dataclass(frozen=True)
class Fetcher:
    """Fetches product pages."""

    client: httpx.AsyncClient
    platforms: Sequence[Platform]
    timeout: float
    """Seconds for one page in all, redirects included."""
    max_bytes: int
    """How much of a page is read."""

    async def fetch(self, url: str) -> Page:
        """A page, decoded. Redirects are followed as long as they stay on supported platforms.

        Raises:
            ShopUnavailableError: it timed out, broke off, or the shop has a problem.
            RetryAfterError: the shop asks to come back later.
            PageError: there is no such page, it is no HTML, or it leads elsewhere.
        """
        try:
            async with asyncio.timeout(self.timeout):
                return await self._follow(url)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise ShopUnavailableError(f"the shop did not answer within {self.timeout:g} s") from error
        except httpx.TransportError as error:
            raise ShopUnavailableError(f"the connection to the shop failed: {error or type(error).__name__}") from error
        except httpx.InvalidURL as error:
            raise PageError(f"the shop led to an address that is none: {error}") from error

    async def _follow(self, url: str) -> Page:
        for _ in range(MAX_REDIRECTS + 1):
            async with self.client.stream("GET", url, headers=_HEADERS, timeout=self.timeout) as response:
                location: str = response.headers.get("location", "")
                if response.status_code not in _REDIRECTS or not location:
                    self._refuse(response)
                    return await self._read(response)
            url = self._next(url, location)
        raise PageError(f"the page redirects more than {MAX_REDIRECTS} times")

    def _next(self, url: str, location: str) -> str:
        try:
            return check_address(urljoin(url, location), self.platforms)
        except UnsupportedAddressError as error:
            raise PageError(f"the page redirects to somewhere else: {error}") from error

    def _refuse(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in {404, 410}:
            raise PageError(f"the page does not exist (the shop answered {status})")
        if status in TRANSIENT:
            message = f"the shop answered {status}"
            seconds = _retry_after(response.headers.get("retry-after"))
            if seconds is None:
                raise ShopUnavailableError(message)
            if seconds > MAX_WAIT_SECONDS:
                raise PageError(f"{message} and asks to wait {seconds:.0f} s; try again then")
            raise RetryAfterError(f"{message} and asks to wait {seconds:.0f} s", seconds)
        if not response.is_success:
            raise PageError(f"the shop refuses the page (it answered {status})")
        kind = response.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
        if kind and kind not in {"text/html", "application/xhtml+xml", "text/plain"}:
            raise PageError(f"this is not a web page but {kind}")

    async def _read(self, response: httpx.Response) -> Page:
        body = bytearray()
        truncated = False
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self.max_bytes:
                del body[self.max_bytes :]
                truncated = True
                break
        return Page(str(response.url), decode(bytes(body), response.charset_encoding, truncated), truncated)


def decode(body: bytes, declared: str | None, truncated: bool = False) -> str:
    """The text of a page, whatever encodings it claims.

    UTF-8 comes first, because text in another encoding is practically never valid UTF-8; then what the page itself
    says, then its header.
    """
    for bom, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if body.startswith(bom):
            return body.decode(name, "replace").lstrip("\ufeff")
    try:
        # a page that was cut off may end inside a character
        return codecs.getincrementaldecoder("utf-8")().decode(body, final=not truncated)
    except UnicodeDecodeError:
        meta = _META_CHARSET.search(body[:4096])
        claims = (meta[1].decode() if meta else None, declared)
        claimed = next((name for name in claims if name and _known(name)), "windows-1252")
        return body.decode(claimed, "replace")


def _known(name: str) -> bool:
    try:
        return codecs.lookup(name).name != "utf-8"
    except LookupError:
        return False


def _retry_after(header: str | None) -> float | None:
    """Seconds, from a number or a date."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
