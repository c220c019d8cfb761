"""Pages of an application for its own team: one look, a sign-in with the application's key, forms that only its pages can send.

The key is typed once, into a form. What the browser keeps is a signed cookie without it; no page, script or address has it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, FastAPI, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.middleware.sessions import SessionMiddleware

from .hardening import Hardening

_HERE = Path(__file__).parent
_LIFETIME = 14 * 86_400
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
STALE = "This page had been open for too long. Please send it again."
Text = Annotated[str, Form()]


class SignInRequiredError(Exception):
    """A page is only for the team. Answered with a redirect to the sign-in."""


class FormRefusedError(Exception):
    """A form did not come from a page of this session."""


class Pages:
    """The pages of one application.

    Args:
        name: What the application is called on them.
        folder: Where its `templates` and `static` are.
        key: What one signs in with; None while nobody has to, in development.
        production: Whether cookies go over https only.
    """

    def __init__(self, name: str, folder: Path, key: str | None, *, production: bool) -> None:
        self.name = name
        self._key = key
        self._production = production
        self._static = folder / "static"
        self.templates = Jinja2Templates(directory=[folder / "templates", _HERE / "templates"])
        self.templates.env.autoescape = True
        self.templates.env.globals.update(name=name, open=key is None)

    def install(self, api: FastAPI, router: APIRouter) -> None:
        """Put the pages, their sign-in and what protects them into a web application."""
        api.state.pages = self
        api.include_router(_door)
        api.include_router(router)
        api.mount("/static/common", StaticFiles(directory=_HERE / "static"))
        api.mount("/static", StaticFiles(directory=self._static))
        api.add_exception_handler(SignInRequiredError, _to_sign_in)
        api.add_exception_handler(FormRefusedError, _refused)
        api.add_middleware(Hardening, policy=_POLICY)
        # the cookie is worth as much as the key, so it ends with it
        secret = hashlib.sha256(f"pages {self.name} {self._key}".encode()).hexdigest()
        api.add_middleware(
            SessionMiddleware,
            secret_key=secret if self._key else secrets.token_hex(32),
            session_cookie=f"{self.name.lower()}_session",
            max_age=_LIFETIME,
            same_site="lax",
            https_only=self._production,
        )

    def admits(self, request: Request) -> bool:
        """Whether somebody may see the pages."""
        return self._key is None or request.session.get("team") is True

    def accepts(self, key: str) -> bool:
        """Whether this is the key."""
        return self._key is not None and hmac.compare_digest(self._key.encode(), key.encode())

    def show(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page."""
        context = {"form_token": _form_token(request), "here": request.url.path, **values}
        return self.templates.TemplateResponse(request, template, context, status_code=status)


def pages_of(request: Request) -> Pages:
    """The pages of the application."""
    pages: Pages = request.app.state.pages
    return pages


async def team(request: Request) -> None:
    """For pages: refuse whoever has not signed in.

    Raises:
        SignInRequiredError: one has to.
    """
    if not pages_of(request).admits(request):
        raise SignInRequiredError


async def own_form(request: Request, form: Text = "") -> None:
    """For what forms send: refuse those of other sites.

    Raises:
        FormRefusedError: it is no page's of this session.
    """
    expected = str(request.session.get("form", ""))
    if not expected or not hmac.compare_digest(expected.encode(), form.encode()):
        raise FormRefusedError


def _form_token(request: Request) -> str:
    token: str = request.session.setdefault("form", secrets.token_urlsafe(24))
    return token


# -- signing in ------------------------------------------------------------------------------------------------------

_door = APIRouter(include_in_schema=False)


@_door.get("/sign-in")
async def sign_in_form(request: Request, next: str = "/") -> Response:  # noqa: A002 - the name in the address
    """Where one signs in."""
    pages = pages_of(request)
    if pages.admits(request):
        return RedirectResponse(_ours(next), 303)
    return pages.show(request, "sign_in.html", next=_ours(next), problem=None)


@_door.post("/sign-in")
async def sign_in(request: Request, key: Text = "", next: Text = "/", form: Text = "") -> Response:  # noqa: A002
    """Sign in."""
    pages = pages_of(request)
    problem = None
    try:
        await own_form(request, form)
    except FormRefusedError:
        problem = STALE
    if problem is None and not pages.accepts(key):
        problem = "That is not the key."
    if problem is not None:
        return pages.show(request, "sign_in.html", 403, next=_ours(next), problem=problem)
    request.session.clear()
    request.session["team"] = True
    return RedirectResponse(_ours(next), 303)


@_door.post("/sign-out")
async def sign_out(request: Request, form: Text = "") -> Response:
    """Sign out."""
    await own_form(request, form)
    request.session.clear()
    return RedirectResponse("/sign-in", 303)


def _ours(address: str) -> str:
    parts = urlsplit(address)
    ours = address.startswith("/") and not address.startswith(("//", "/\\")) and not parts.netloc
    return address if ours and address.isprintable() else "/"


async def _to_sign_in(request: Request, _error: Exception) -> Response:
    if request.method != "GET" or "text/html" not in request.headers.get("accept", ""):
        return Response("sign in first", 401)
    return RedirectResponse(f"/sign-in?next={quote(request.url.path, safe='')}", 303)


async def _refused(request: Request, _error: Exception) -> Response:
    return pages_of(request).show(request, "problem.html", 403, title="Not sent", text=STALE)
