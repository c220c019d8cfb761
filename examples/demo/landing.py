"""The page that the demo opens with: what runs, where to look at it, and what the scenario showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from .expectations import Row

_CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


_DASHBOARD_PAGES = (
    ("Home", "/"),
    ("Runs", "/runs"),
    ("Events", "/events"),
    ("Functions", "/functions"),
    ("Flow control", "/flow"),
    ("Dead letters", "/dead-letters"),
)

_pages = Environment(autoescape=True)
_page = _pages.from_string(Path(__file__).with_suffix(".html").read_text())


@dataclass(frozen=True)
class Exhibit:
    """An application as the page presents it."""

    title: str
    about: str
    links: Sequence[tuple[str, str]]
    """Text and address of the pages an application has itself."""
    dashboard: str
    """The address of its dashboard, without a slash at the end."""
    try_this: Sequence[str]


@dataclass
class Board:
    """What the page shows now."""

    exhibits: list[Exhibit] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    """Empty until the scenario has been played."""


def landing_app(board: Board) -> Starlette:
    """The page over a board, which may change while it is served."""

    async def landing(_request: Request) -> Response:
        holding = sum(row.holds for row in board.rows)
        text = _page.render(board=board, pages=_DASHBOARD_PAGES, holding=holding)
        return HTMLResponse(text, headers={"Content-Security-Policy": _CSP})

    return Starlette(routes=[Route("/", landing)])


def storefront_exhibit(url: str, dashboard: str, mails: str) -> Exhibit:
    """The shop."""
    return Exhibit(
        title="Storefront",
        about="A shop whose payment webhook answers at once while confirmations, refunds and welcome e-mails are sent durably.",
        links=[("Mails it has sent", mails), ("API, to be tried in the browser", f"{url}/docs")],
        dashboard=dashboard,
        try_this=[
            "Open a run of send-purchase-confirmation: fetch, send, mark fulfilled, with every attempt and its delay.",
            "Dead letters are customers whose mailbox was full. Redrive one, and read the e-mail.",
            "POST /signup with your own name in the API page.",
        ],
    )


def catalogue_exhibit(url: str, dashboard: str, login: tuple[str, str], shop: str) -> Exhibit:
    """The merchants' catalogue."""
    return Exhibit(
        title="Catalogue",
        about="Merchants import products from a shop's page. Signed webhooks change products; a cron keeps their tokens fresh.",
        links=[("Import a product", f"{url}/import"), ("Products", url), ("Webhooks", f"{url}/webhooks")],
        dashboard=dashboard,
        try_this=[
            f"Log in as {login[0]} with the password {login[1]}.",
            f"Import {shop}/oud, which succeeds; {shop}/photo has no text, so a model writes it; {shop}/about is no product.",
            "Close the page in the middle of an import: it goes on, and its address shows how far it is.",
        ],
    )


def studio_exhibit(url: str, dashboard: str, mails: str) -> Exhibit:
    """The content studio."""
    return Exhibit(
        title="Studio",
        about="PDF export, signed webhook delivery with retries, a text model behind a retry policy, and e-mail.",
        links=[("The studio", url), ("API, to be tried in the browser", f"{url}/docs"), ("Mails it has sent", mails)],
        dashboard=dashboard,
        try_this=[
            "Look at a run of deliver-webhook whose receiver was down: it retries with backoff and becomes a dead letter.",
            'Send the event test/hello.world with {"name": "Ada"} from the dashboard\'s page Events.',
        ],
    )


def inbox_exhibit(url: str, dashboard: str) -> Exhibit:
    """The inbox with its counts."""
    return Exhibit(
        title="Inbox",
        about="Counts of a message table, recomputed at most once per client and ten seconds; versions and job status mirrored to Redis.",
        links=[("The inbox", url), ("API, to be tried in the browser", f"{url}/docs")],
        dashboard=dashboard,
        try_this=[
            "Flow control shows which client waits for which rule, and the backlog against its alert.",
            "POST /api/messages for a client of yours in the API page, and see its counts follow on the inbox's page.",
        ],
    )
