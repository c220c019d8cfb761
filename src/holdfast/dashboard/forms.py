"""Posted forms, read from the raw body."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_FIELDS = 2000


class Form:
    """The fields of a form; a missing one reads as empty."""

    __slots__ = ("_fields",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._fields = pairs

    def get(self, name: str) -> str:
        return next((value for key, value in self._fields if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._fields if key == name]


async def read_form(request: Request) -> Form:
    """The form of a request.

    Raises:
        HTTPException: 415 when it is not a form, 400 when it can't be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind != "application/x-www-form-urlencoded" and body:
        raise HTTPException(415, "Send the form as application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise HTTPException(400, f"The form can't be read: {error}.") from error
    return Form(pairs)
