"""What the dashboard asks of whoever lets viewers in."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

CSRF_FIELD = "csrf_token"
"""Name of the hidden field that every form of the dashboard carries."""
CSRF_HEADER = "X-CSRF-Token"
"""Header that may carry the token instead."""


class Guard(Protocol):
    """Sessions and rights, as the server implements them. Who may see a page at all is decided before it is reached."""

    def csrf_token(self, request: Request) -> str:
        """The token to put into forms; the same for the whole of a session, so that unchanged pages stay unchanged."""
        ...

    async def check_csrf(self, request: Request) -> None:
        """Refuse a change that does not carry the session's token in `CSRF_FIELD` or `CSRF_HEADER`.

        Forms are `application/x-www-form-urlencoded`; read them with `await request.body()`, which keeps them for the page.

        Raises:
            starlette.exceptions.HTTPException: 403, with a sentence.
        """
        ...

    def actor(self, request: Request) -> str:
        """Who asks, for the audit log."""
        ...

    def logout_path(self, request: Request) -> str | None:
        """Where this viewer logs out, below the prefix; None when nobody is logged in."""
        ...

    def can_change(self, request: Request) -> bool:
        """Whether this viewer may change anything; without it, pages show no buttons and changes answer 403."""
        ...
