"""The server's own pages: login and the API's reference. Plain HTML that needs no script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from holdfast.base.version import __version__
from holdfast.dashboard.guard import CSRF_FIELD, Guard
from holdfast.dashboard.origin import origin_of
from holdfast.server.access import identity_of
from holdfast.server.keys import fingerprint
from holdfast.server.openapi import curl_text, schema_text
from holdfast.server.operation import Api, Operation
from holdfast.server.sessions import COOKIE, LoginBrake

_HERE = Path(__file__).parent
_CSS = (_HERE / "static" / "login.css").read_bytes()
_BACKTICKS = re.compile(r"`([^`]+)`")
_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals["schema_text"] = schema_text
_templates.filters["code"] = lambda text: Markup(_BACKTICKS.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped first
_templates.globals["version"] = __version__


def render(request: Request, template: str, status: int = 200, **view: Any) -> Response:
    """A page of the server."""
    root = request.scope.get("root_path", "")
    html = _templates.get_template(template).render(root=root, **view)
    return Response(html, status, media_type="text/html")


async def style_sheet(_request: Request) -> Response:
    """`GET /login.css`: the one style sheet of these pages, public because the login page needs it."""
    return Response(_CSS, media_type="text/css", headers={"cache-control": "public, max-age=3600"})


class Login:
    """`/login` and `/logout`."""

    def __init__(self, api: Api, guard: Guard) -> None:
        self._api = api
        self._guard = guard
        self._brake = LoginBrake()

    async def show(self, request: Request) -> Response:
        """`GET /login`: the form, or on to where one was going when logged in already."""
        target = safe_target(request.query_params.get("next", ""))
        identity = identity_of(request.scope)
        if identity.via != "public":
            return self._go(request, target)
        return self._form(request, target)

    def _form(self, request: Request, target: str, problem: str = "", status: int = 200) -> Response:
        return render(request, "login.html", status, target=target, problem=problem, what=self._api.access.logs_in_with)

    @staticmethod
    def _go(request: Request, target: str) -> Response:
        return RedirectResponse(request.scope.get("root_path", "") + target, 303)

    async def enter(self, request: Request) -> Response:
        """`POST /login`: a session for who knows the password or key."""
        api, now = self._api, self._api.engine.clock.now()
        address = request.client.host if request.client else "unknown"
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
        target = safe_target(fields.get("next", [""])[0])
        wait = self._brake.wait_ms(address, now)
        if wait:
            response = self._form(request, target, "Too many wrong tries. Wait a minute and try again.", 429)
            response.headers["retry-after"] = str(wait // 1000 + 1)
            return response
        given = fields.get("credential", [""])[0]
        if not api.access.accepts_login(given):
            self._brake.failed(address, now)
            return self._form(request, target, f"This is not the {api.access.logs_in_with} of this server.", 401)
        session, cookie = api.access.start_session(f"dashboard ({api.access.logs_in_with} {fingerprint(given)})")
        await api.engine.audit(session.actor, "login", address, "", origin_of(request, "dashboard"))
        response = self._go(request, target)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=api.access.sessions.lifetime_ms // 1000,
            path=request.scope.get("root_path", "") or "/",
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    async def leave(self, request: Request) -> Response:
        """`POST /logout`: end the session."""
        await self._guard.check_csrf(request)
        session = identity_of(request.scope).session
        if session is not None:
            self._api.access.sessions.end(session, self._api.engine.clock.now())
            await self._api.engine.audit(
                session.actor,
                "logout",
                request.client.host if request.client else "unknown",
                "",
                origin_of(request, "dashboard"),
            )
        response = RedirectResponse(request.scope.get("root_path", "") + "/login", 303)
        response.delete_cookie(COOKIE, path=request.scope.get("root_path", "") or "/")
        return response

    async def ask_leave(self, request: Request) -> Response:
        """`GET /logout`: the question, because following a link must not log anybody out."""
        identity = identity_of(request.scope)
        if identity.via != "session":
            raise HTTPException(404, "there is no login to leave: this server is open to this machine")
        return render(
            request, "logout.html", field=CSRF_FIELD, token=self._guard.csrf_token(request), actor=identity.actor
        )


def safe_target(text: str) -> str:
    """Where to go after the login: a path of this server, whatever a link made of it."""
    if (
        not text.startswith("/")
        or text.startswith(("//", "/\\"))
        or any(ord(char) < 33 or char == "\\" for char in text)
    ):
        return "/"
    return text


def docs_page(request: Request, document: dict[str, Any], operations: Sequence[Operation], *, keys: bool) -> Response:
    """`GET /docs`: the reference, for people."""
    base = f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"
    groups: dict[str, list[dict[str, Any]]] = {}
    for operation in operations:
        entry = document["paths"][operation.path][operation.method.lower()]
        groups.setdefault(operation.group, []).append(
            {
                "method": operation.method,
                "path": operation.path,
                "curl": curl_text(operation, base, keys=keys),
                "entry": entry,
            }
        )
    return render(request, "docs.html", groups=groups, schemas=document["components"]["schemas"], keys=keys)
