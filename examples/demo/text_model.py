"""A stand-in for a text model behind an HTTP API: it answers at once, in the form of the real ones, and costs nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class StandInModel:
    """The model, and how it behaves."""

    key: str = "development"
    """The key it accepts."""
    failures: list[int] = field(default_factory=list)
    """Statuses with which the next requests are refused."""
    answers: list[str] = field(default_factory=list)
    """What the next requests are answered, instead of what the model makes up."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of all requests with the right key."""

    def routes(self) -> list[Route]:
        """The part of the API that there is."""
        return [Route("/v1/chat/completions", self._complete, methods=["POST"])]

    async def _complete(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            return JSONResponse({"error": {"message": f"Incorrect API key provided: {given}"}}, 401)
        body = await request.json()
        self.requests.append(body)
        if self.failures:
            return JSONResponse({"error": {"message": "the model is out of order"}}, self.failures.pop(0))
        text = self.answers.pop(0) if self.answers else _made_up(body["messages"])
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return JSONResponse({"object": "chat.completion", "model": body["model"], "choices": [choice]})


def _made_up(messages: list[dict[str, str]]) -> str:
    instructions, request = messages[0]["content"], messages[-1]["content"]
    if "product texts" in instructions:
        known = json.loads(request)
        title = known.get("title") or "Handmade piece"
        text = {"title": title, "description": f"{title}, shown in {len(known['pictures'])} picture. Made with care."}
        return f"```json\n{json.dumps(text)}\n```"
    topic = request.splitlines()[0]
    return (
        f"Strategy: {topic}\n\n"
        "1. Say who it is for, in one sentence.\n"
        "2. Show it in use, where these people already are.\n"
        "3. Measure what comes back in the first two weeks, and keep what works."
    )
