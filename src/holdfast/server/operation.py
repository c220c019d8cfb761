"""How a route of the API is declared: once, for routing, for the OpenAPI document and for the page at /docs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.clock import iso, to_ms
from holdfast.base.errors import RunNotFoundError
from holdfast.base.ids import ulid_bytes
from holdfast.dashboard.origin import origin_of
from holdfast.engine.engine import Engine
from holdfast.server.access import Access, identity_of
from holdfast.server.errors import ApiError
from holdfast.server.metrics import HttpMetrics
from holdfast.server.receipts import Receipts
from holdfast.server.settings import ServerSettings
from holdfast.server.shapes import Metadata
from holdfast.server.syncing import Asker
from holdfast.store.reads import Reader

T = TypeVar("T")
MAX_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Api:
    """What handlers work with."""

    engine: Engine
    settings: ServerSettings
    access: Access
    metrics: HttpMetrics
    asker: Asker
    reader: Reader
    """Reads what is shown, with marked fields masked."""
    receipts: Receipts = field(default_factory=Receipts)

    def answer(self, data: Any, *, next_cursor: str | None = None) -> Response:
        """The success envelope (protocol section 1.5)."""
        metadata = Metadata(iso(self.engine.clock.now()) or "", None, next_cursor)
        return json_response({"data": data, "metadata": metadata})

    async def audit(self, request: Request, action: str, target: str, detail: str = "") -> None:
        """Record that this request changed something."""
        actor = identity_of(request.scope).actor
        await self.engine.audit(actor, action, target, detail, origin_of(request, "API"))


Handler: TypeAlias = Callable[[Api, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter in the path or the query."""

    name: str
    description: str
    where: Literal["path", "query", "header"] = "query"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A possible answer."""

    description: str
    body: Any = None
    """A struct of `shapes`, `list[...]` of one, or None for an empty body."""
    envelope: bool = True
    """Whether it comes as `data` beside `metadata`."""
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    id: str
    summary: str
    description: str = ""
    group: str
    handler: Handler | None = None
    """None for what is routed by itself."""
    params: tuple[Param, ...] = ()
    body: Mapping[str, Any] | None = None
    """JSON schema of the request's body."""
    body_required: bool = True
    example: Any = None
    """An example of the request's body."""
    answers: Mapping[int, Answer]
    public: bool = False
    """Whether it needs no signing key or login."""


RUN_ID = Param("run_id", "The run, a ULID.", "path")
CURSOR = Param("cursor", "`metadata.next_cursor` of the page before.")


def limit_param(default: int, largest: int) -> Param:
    """How many rows a list answers."""
    return Param(
        "limit",
        f"How many at most: 1 to {largest}; what is out of range is taken as the nearest.",
        "query",
        {"type": "integer", "minimum": 1, "maximum": largest, "default": default},
    )


def json_response(body: Any, status: int = 200) -> Response:
    """A body as JSON."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


# -- reading parameters ----------------------------------------------------------------------------------------------


def read_limit(request: Request, default: int, largest: int) -> int:
    """The `limit`, clamped.

    Raises:
        ApiError: it is not a number.
    """
    text = request.query_params.get("limit", "")
    if not text:
        return default
    try:
        return min(max(int(text), 1), largest)
    except ValueError:
        raise ApiError(400, f"limit must be a number from 1 to {largest}, not {text[:40]!r}") from None


def read_cursor(request: Request) -> str | None:
    """The `cursor`, or None on the first page.

    Raises:
        ApiError: no page was answered with it.
    """
    text = request.query_params.get("cursor", "")
    if not text:
        return None
    try:
        ulid_bytes(text)
    except ValueError:
        raise ApiError(400, f"{text[:40]!r} is no cursor; pass on `metadata.next_cursor` of the page before") from None
    return text


def read_moment(request: Request, name: str) -> int | None:
    """A moment as RFC 3339 or milliseconds since 1970.

    Raises:
        ApiError: it is neither.
    """
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        # a plus sign in a query that was not escaped arrives as a space
        return (
            int(text)
            if text.isdecimal()
            else to_ms(datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text))
        )
    except (ValueError, OverflowError):
        raise ApiError(
            400, f"{name} must be a moment such as 2026-01-31T09:00:00Z or milliseconds since 1970, not {text[:40]!r}"
        ) from None


async def read_object(request: Request, kind: type[T]) -> T:
    """The JSON object of a body as a struct; an empty body is an empty object.

    Raises:
        ApiError: it is not JSON, or not such an object; the message names the field.
    """
    raw = await request.body()
    try:
        return msgspec.json.decode(raw.strip() or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"the body: {error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None


def read_id(request: Request, name: str, what: str) -> str:
    """A ULID of the path.

    Raises:
        ApiError: it is not one.
    """
    text: str = request.path_params[name]
    try:
        ulid_bytes(text)
    except ValueError:
        raise ApiError(400, f"{text[:40]!r} is not the id of {what}; ids have 26 letters and digits") from None
    return text.upper()


def no_run(run_id: str) -> RunNotFoundError:
    """The error for a run that is not there."""
    return RunNotFoundError(f"there is no run {run_id}; it may have been removed when its retention was over")
