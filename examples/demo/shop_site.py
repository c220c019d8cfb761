"""A web shop to import from, with everything that makes that difficult. It serves over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

_COLOURS = {"oud": "#7a4b2a", "lamp": "#c79a2b", "vase": "#4b6f8f", "rug": "#8c3b3b", "photo": "#5b7f52"}
ARABIC_TITLE = "عود فاخر"
ARABIC_TEXT = "عود طبيعي من أجود الأنواع"


def page(head: str, body: str = "", title: str = "A shop") -> str:
    """A page of the shop."""
    return f"<!doctype html><html><head><title>{title}</title>{head}</head><body><main>{body}</main></body></html>"


def json_ld(**product: Any) -> str:
    """A product as JSON-LD."""
    document = {"@context": "https://schema.org", "@type": "Product", **product}
    return f'<script type="application/ld+json">{json.dumps(document, ensure_ascii=False)}</script>'


def open_graph(**properties: str) -> str:
    """A product as Open Graph; a double underscore stands for the colon."""
    return "".join(
        f'<meta property="{name.replace("__", ":")}" content="{value}">' for name, value in properties.items()
    )


OUD = json_ld(
    name="Royal Oud, 12 ml",
    description="<p>Aged oud oil from Assam.</p><p>Warm, deep, and long lasting.</p>",
    image=["/images/oud.svg", "/images/oud.svg"],
    offers={"@type": "Offer", "price": "349.00", "priceCurrency": "SAR"},
)
PAGES = {
    "/oud": page(OUD),
    "/lamp": page(
        '<script type="application/ld+json">{broken</script>'
        + json_ld(name="Brass lamp", image={"url": "/images/lamp.svg"}, offers=[{"lowPrice": 1299, "priceCurrency": "SAR"}])
        + open_graph(og__type="product", og__description="A lamp of brass, made by hand.")
    ),
    "/vase": page(
        open_graph(
            og__type="og:product", og__title="Blue vase", og__description="Glazed twice.", og__image="/images/vase.svg",
            product__price__amount="89.50", product__price__currency="SAR",
        )
    ),
    "/rug": page(
        "",
        '<h1>Red rug</h1><div class="product-gallery"><img src="data:," data-src="/images/rug.svg"></div>'
        '<span class="product-price">1,450.00 SAR</span><div class="product-description">Knotted wool.</div>',
    ),
    "/photo": page(json_ld(image="/images/photo.svg", offers={"price": 120, "priceCurrency": "SAR"})),
    "/about": page(
        open_graph(og__type="website", og__title="About us", og__image="/images/oud.svg"), "<h1>About us</h1><p>We sell.</p>"
    ),
}  # fmt: skip
_ARABIC = page(
    '<meta charset="windows-1256">' + json_ld(name=ARABIC_TITLE, description=ARABIC_TEXT, image="/images/oud.svg",
                                              offers={"price": "349.50", "priceCurrency": "SAR"})
)  # fmt: skip


@dataclass
class ShopSite:
    """The shop, and how it behaves."""

    slow_seconds: float = 40.0
    """How long `/slow` takes to answer."""
    holding: asyncio.Event | None = None
    """While there is one, `/slow` answers once it is set, whatever time that takes."""
    retry_after: int = 1
    """Seconds that `/busy` asks to wait."""
    failures: dict[str, int] = field(default_factory=lambda: {"/busy": 1, "/shaky": 2, "/dropped": 1})
    """How many more requests for a path fail before it answers."""
    gone: set[str] = field(default_factory=set)
    """Paths that answer 404 at present."""
    requests: Counter[str] = field(default_factory=Counter)
    """How often each path was asked for."""

    def routes(self) -> list[Route]:
        """Everything the shop answers."""
        return [
            Route("/images/{name}.svg", self._image),
            Route("/{path:path}", self._answer),
        ]

    def app(self) -> Starlette:
        """The shop as a web application of its own."""
        return Starlette(routes=self.routes())

    async def _image(self, request: Request) -> Response:
        colour = _COLOURS.get(request.path_params["name"], "#777")
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 300"><rect width="400" height="300" fill="{colour}"/>'
            '<circle cx="200" cy="150" r="80" fill="#ffffff44"/></svg>'
        )
        return Response(svg, media_type="image/svg+xml")

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        self.requests[path] += 1
        if path in self.gone:
            return HTMLResponse(page("", "<h1>Not found</h1>"), 404)
        if self.failures.get(path, 0) > 0:
            self.failures[path] -= 1
            return self._fail(path)
        special = getattr(self, f"_at_{path.strip('/').replace('-', '_')}", None)
        if special is not None:
            response: Response = await special()
            return response
        html = PAGES.get(path) or (PAGES["/oud"] if path in {"/busy", "/shaky", "/dropped"} else None)
        return HTMLResponse(html or page("", "<h1>Not found</h1>"), 200 if html else 404)

    def _fail(self, path: str) -> Response:
        if path == "/busy":
            return PlainTextResponse("slow down", 429, {"Retry-After": str(self.retry_after)})
        if path == "/dropped":
            return StreamingResponse(_broken_off(), media_type="text/html", headers={"Content-Length": "100000"})
        return PlainTextResponse("out of order", 500)

    async def _at_slow(self) -> Response:
        if self.holding is not None:
            await self.holding.wait()
        else:
            await asyncio.sleep(self.slow_seconds)
        return HTMLResponse(PAGES["/oud"])

    async def _at_huge(self) -> Response:
        return StreamingResponse(_padded(page(OUD)), media_type="text/html")

    async def _at_huge_empty(self) -> Response:
        return StreamingResponse(_padded(page("", "<h1>A long list</h1>")), media_type="text/html")

    async def _at_moved(self) -> Response:
        return RedirectResponse("/moved-again", 301)

    async def _at_moved_again(self) -> Response:
        return RedirectResponse("/oud?from=moved", 302)

    async def _at_circle(self) -> Response:
        return RedirectResponse("/circle", 302)

    async def _at_away(self) -> Response:
        return RedirectResponse("http://169.254.169.254/latest/meta-data", 302)

    async def _at_arabic(self) -> Response:
        # the header says one thing, the page another; the page is right
        return Response(_ARABIC.encode("windows-1256"), media_type="text/html; charset=utf-8")

    async def _at_latin(self) -> Response:
        # both claim Latin-1, and it is UTF-8
        html = page(
            '<meta charset="iso-8859-1">' + json_ld(name=ARABIC_TITLE, description=ARABIC_TEXT, image="/images/oud.svg")
        )
        return Response(html.encode(), headers={"Content-Type": "text/html; charset=iso-8859-1"})

    async def _at_brochure(self) -> Response:
        return Response(b"%PDF-1.7", media_type="application/pdf")


async def _padded(html: str) -> AsyncIterator[bytes]:
    head, tail = html.split("</body>")
    yield head.encode()
    for _ in range(200):
        yield b"<p>" + b"x" * 100_000 + b"</p>"
        await asyncio.sleep(0)
    yield f"</body>{tail}".encode()


async def _broken_off() -> AsyncIterator[bytes]:
    yield b"<!doctype html><html>"
    raise ConnectionResetError("the shop hangs up")
