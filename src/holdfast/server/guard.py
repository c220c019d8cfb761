"""The rights of a viewer, as the dashboard asks for them."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request

from holdfast.dashboard.guard import CSRF_FIELD, CSRF_HEADER
from holdfast.server.access import Access, identity_of


class SessionGuard:
    """`holdfast.dashboard.guard.Guard` over the server's sessions."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def csrf_token(self, request: Request) -> str:
        return self._access.sessions.csrf_token(identity_of(request.scope).subject)

    async def check_csrf(self, request: Request) -> None:
        token = request.headers.get(CSRF_HEADER)
        if token is None:
            body = await request.body()
            token = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10_000).get(CSRF_FIELD, [""])[0]
        if not self._access.sessions.csrf_matches(identity_of(request.scope).subject, token):
            raise HTTPException(
                403, "This page is from before a new login or a restart of the server: reload it and try again."
            )

    def actor(self, request: Request) -> str:
        return identity_of(request.scope).actor

    def logout_path(self, request: Request) -> str | None:
        return "/logout" if identity_of(request.scope).via == "session" else None

    def can_change(self, request: Request) -> bool:
        return identity_of(request.scope).via != "public"
