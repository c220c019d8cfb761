"""Who is logged in, and whether a form came from one of our pages. Both are in a signed cookie."""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from .models import Merchant
from .web import web_of

COOKIE = "catalogue_session"
LIFETIME = 14 * 86_400
"""Seconds after which one has to log in again."""


class LoginRequiredError(Exception):
    """A page is only for merchants who are logged in. Answered with a redirect to the login."""


async def current_merchant(request: Request) -> Merchant | None:
    """The merchant who is logged in, if any."""
    merchant_id = request.session.get("merchant")
    return await web_of(request).merchants.get(str(merchant_id)) if merchant_id else None


async def page_merchant(request: Request) -> Merchant:
    """For pages: the merchant who is logged in.

    Raises:
        LoginRequiredError: nobody is.
    """
    merchant = await current_merchant(request)
    if merchant is None:
        raise LoginRequiredError
    return merchant


async def api_merchant(request: Request) -> Merchant:
    """For JSON: the merchant who is logged in.

    Raises:
        HTTPException: 401, nobody is.
    """
    merchant = await current_merchant(request)
    if merchant is None:
        raise HTTPException(401, "log in first")
    return merchant


def begin(request: Request, merchant: Merchant) -> None:
    """Log a merchant in. Nothing of the session before stays."""
    request.session.clear()
    request.session["merchant"] = merchant.id


def form_token(request: Request) -> str:
    """What a form must carry to be accepted, the same for one session."""
    token: str = request.session.setdefault("form", secrets.token_urlsafe(24))
    return token


def form_fits(request: Request, token: str) -> bool:
    """Whether a form came from a page of this session."""
    expected = str(request.session.get("form", ""))
    return bool(expected) and hmac.compare_digest(expected.encode(), token.encode())


def safe_next(text: str) -> str:
    """Where to go after the login: a page of ours, whatever the address asks for."""
    parts = urlsplit(text)
    ours = text.startswith("/") and not text.startswith(("//", "/\\")) and not parts.netloc and text.isprintable()
    return text if ours else "/"
