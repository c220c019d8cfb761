"""A client of the server under test that gives up on nothing it has no answer for."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any


class Client:
    """Plain HTTP, one connection per request: the server may be another process by the next one."""

    def __init__(self, port: int, timeout: float = 10) -> None:
        self.port = port
        self.timeout = timeout

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and decoded body; status 0 when there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"content-type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error)
        finally:
            connection.close()

    def send(self, name: str, event_id: str, headers: dict[str, str] | None = None, **data: Any) -> tuple[int, Any]:
        """Send an event."""
        return self.request("POST", "/e/key", {"name": name, "data": data, "id": event_id}, headers)

    def until(self, what: str, answered: Any, seconds: float = 60) -> Any:
        """Ask until the answer is a true one."""
        deadline = time.monotonic() + seconds
        while True:
            found = answered()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {what}; the last answer was {found!r}")
            time.sleep(0.02)
