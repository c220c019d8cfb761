"""Style sheet, scripts and vendored libraries, served with the wheel and cached for ever under a version."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"


def version() -> str:
    """Changes with any file, so that a new release is never drawn with an old style sheet."""
    digest = blake2b(digest_size=6)
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Assets(StaticFiles):
    """Static files under `/static/<version>/`: immutable."""

    def __init__(self, current: str) -> None:
        super().__init__(directory=STATIC)
        self._prefix = f"{current}/"

    async def get_response(self, path: str, scope: Scope) -> Response:
        fresh = path.startswith(self._prefix)
        response = await super().get_response(path.partition("/")[2], scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if fresh else "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
