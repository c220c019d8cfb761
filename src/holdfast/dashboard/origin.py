"""Where a change came from, for the audit log."""

from __future__ import annotations

from starlette.requests import Request

_COMMAND_LINE = "holdfast-cli"


def origin_of(request: Request, way: str) -> str:
    """The address of whoever asked, and by which way: `203.0.113.7, dashboard`.

    Args:
        request: What was asked. Behind a proxy that is trusted, its client is the proxy's.
        way: `dashboard` or `API`; requests of the command line are told apart.
    """
    if request.headers.get("user-agent", "").startswith(_COMMAND_LINE):
        way = "command line"
    return f"{request.client.host if request.client else 'unknown'}, {way}"
