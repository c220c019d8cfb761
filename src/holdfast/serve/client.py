"""Requests from a serve route to its server, with the signing key that it knows (protocol sections 1.3 - 1.6)."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping

import msgspec

from holdfast.base.errors import HoldfastError, NotRunningError
from holdfast.serve.settings import ServeSettings
from holdfast.wire import headers as h
from holdfast.wire.calls import CallEvent
from holdfast.wire.canonical import decode
from holdfast.wire.signatures import hashed_key

_TIMEOUT_SECONDS = 30
_MAX_ANSWER = 64 * 1024 * 1024


class ServerAnswer(msgspec.Struct):
    """What the server answered."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """Why it refused, in its own words where it has any."""
        try:
            document = decode(self.body)
        except HoldfastError:
            document = None
        said = document if isinstance(document, dict) else {}
        text = said.get("error") or said.get("message")
        return str(text) if text else f"HTTP {self.status} {self.body[:200].decode(errors='replace')}".strip()


class ServerClient:
    """The server's API, from a serve route."""

    def __init__(self, settings: ServeSettings, framework: str) -> None:
        self._settings = settings
        self._headers = {
            "Content-Type": "application/json",
            h.SDK: h.SDK_NAME,
            h.REQUEST_VERSION: str(h.REQUEST_VERSION_NOW),
            h.FRAMEWORK: framework,
            **({h.ENV: settings.env} if settings.env else {}),
        }

    async def post(self, path: str, body: bytes, timeout: float = _TIMEOUT_SECONDS) -> ServerAnswer:
        """POST JSON.

        Raises:
            NotRunningError: no server answers, or its address isn't known.
        """
        return await asyncio.to_thread(self._ask, "POST", path, body, timeout)

    async def events_of(self, run_id: str) -> list[CallEvent]:
        """The events of a run that a call left out.

        Raises:
            HoldfastError: they can't be had.
        """
        found: list[CallEvent] = decode(await self._get(f"/v0/runs/{run_id}/batch"), list[CallEvent])
        return found

    async def steps_of(self, run_id: str) -> dict[str, msgspec.Raw]:
        """The memos of a run that a call left out.

        Raises:
            HoldfastError: they can't be had.
        """
        found: dict[str, msgspec.Raw] = decode(await self._get(f"/v0/runs/{run_id}/actions"), dict[str, msgspec.Raw])
        return found

    async def _get(self, path: str) -> bytes:
        answer = await asyncio.to_thread(self._ask, "GET", path, None, _TIMEOUT_SECONDS)
        if not answer.ok:
            raise NotRunningError(f"the server did not give {path}: {answer.reason}")
        return answer.body

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> ServerAnswer:
        base = self._settings.api_url
        if base is None:
            raise NotRunningError(
                "the server's address isn't known: set INNGEST_BASE_URL, or INNGEST_DEV=1 for one on this machine"
            )
        keys = self._settings.signing_keys or (None,)
        answer = ServerAnswer(401, b"")
        for key in keys:
            headers = dict(self._headers)
            if key is not None:
                headers["Authorization"] = f"Bearer {hashed_key(key)}"
            answer = _exchange(f"{base}{path}", method, body, headers, timeout)
            if answer.status != 401:
                break
        return answer


def _exchange(url: str, method: str, body: bytes | None, headers: Mapping[str, str], timeout: float) -> ServerAnswer:
    request = urllib.request.Request(url, body, dict(headers), method=method)  # noqa: S310 - configured address
    try:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
                return ServerAnswer(response.status, response.read(_MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return ServerAnswer(error.code, error.read(_MAX_ANSWER))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NotRunningError(
            f"no server answers at {url} ({reason}): start one with `holdfast dev`, or correct INNGEST_BASE_URL"
        ) from error
