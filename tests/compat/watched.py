"""What an application notices: notes of its functions, and each request that it got."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs


@dataclass
class Request:
    """One call by the server, and what was answered."""

    method: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b""

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def step(self) -> str:
        return self.query.get("stepId", "")

    @property
    def told(self) -> list[str] | int:
        """Its operations with their names; the status where it answered none."""
        if self.status != 206:
            return self.status
        return [f"{op['op']} {op.get('displayName') or op.get('name')}" for op in json.loads(self.answer)]


class Watched:
    """An ASGI application whose requests are kept, and notes by run."""

    def __init__(self) -> None:
        self.app: Any = None
        self.requests: list[Request] = []
        self.notes: dict[str, list[Any]] = {}

    def note(self, run_id: str, what: Any) -> Any:
        self.notes.setdefault(run_id, []).append(what)
        return what

    def calls(self, run_id: str) -> list[Request]:
        """The calls for a run, in the order of their answers."""
        return [one for one in self.requests if one.headers.get("x-run-id") == run_id]

    def told(self, run_id: str) -> list[Any]:
        return [one.told for one in self.calls(run_id)]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        request = Request(scope["method"], query, headers, b"")

        async def watch_receive() -> Any:
            message = await receive()
            request.raw += message.get("body", b"")
            return message

        async def watch_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                request.answer_headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            else:
                request.answer += message.get("body", b"")
                if not message.get("more_body"):
                    self.requests.append(request)
            await send(message)

        await self.app(scope, watch_receive, watch_send)
