"""Requests that an application lets the server make for it: `step.fetch`, and calls to language models (protocol section 2.3)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import msgspec

from holdfast.base.codec import decode_json
from holdfast.base.errors import AddressRefusedError
from holdfast.core.remote import Answered, Operation
from holdfast.core.rows import AttemptRow, StepKind, StepRow, StepState
from holdfast.engine.host import Host
from holdfast.engine.remote_run import RemoteRun

_SECONDS = 600.0
_MAX_REDIRECTS = 10
_MAX_BYTES = 4 * 1024 * 1024
_NAMES = {StepKind.FETCH: "GatewayError", StepKind.AI: "AIGatewayError"}


class RequestFailed(Exception):  # noqa: N818 - what is told to the function, not an error of this program
    """The request could not be made, or its answer is of no use."""


async def perform(host: Host, remote: RemoteRun, step: StepRow) -> Answered:
    """Make a step's request; what is to be recorded of it."""
    began = host.clock.now()
    options: dict[str, Any] = decode_json(step.data or b"{}")
    attempt = remote.leased.item.attempt
    try:
        async with _requested(host, options, StepKind(step.kind)) as response:
            content = await _read(response)
            data = _result(response, content, StepKind(step.kind), options)
    except (RequestFailed, AddressRefusedError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return _failed(host, remote, step, error, attempt, began)
    now = host.clock.now()
    done = msgspec.structs.replace(
        step, state=StepState.DONE, ended_at=now, attempt=attempt, due=None, data=data, started_at=began
    )
    return Answered(remote.lease, [Operation(done)])


def _requested(
    host: Host, options: dict[str, Any], kind: StepKind
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    url = options.get("url")
    if not isinstance(url, str):
        raise RequestFailed(f"a request needs an http or https address, not {url!r:.100}")
    # written as programs expect that look at case; to all others it is the same
    headers = {str(name).title(): str(value) for name, value in (options.get("headers") or {}).items()}
    body = options.get("body")
    if kind == StepKind.AI:
        headers, url = _authorised(headers, url, options)
        headers.setdefault("Content-Type", "application/json")
        return host.outbound.request(
            "POST", url, data=msgspec.json.encode(body), headers=headers, seconds=_SECONDS, redirects=_MAX_REDIRECTS
        )
    content = body if isinstance(body, str) or body is None else msgspec.json.encode(body)
    return host.outbound.request(
        str(options.get("method") or "POST"), url, data=content, headers=headers, seconds=_SECONDS, redirects=_MAX_REDIRECTS
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _MAX_BYTES:
            break
    return bytes(content)


def _authorised(headers: dict[str, str], url: str, options: dict[str, Any]) -> tuple[dict[str, str], str]:
    key = options.get("auth_key") or ""
    match options.get("format"):
        case "anthropic":
            headers = {"X-Api-Key": key, "Anthropic-Version": "2023-06-01", **headers}
        case "gemini":
            url += ("&" if "?" in url else "?") + f"key={key}"
        case "bedrock":
            headers = {"Authorization": key, **headers}
        case _:
            headers = {"Authorization": f"Bearer {key}", **headers}
    return headers, url


def _result(response: aiohttp.ClientResponse, content: bytes, kind: StepKind, options: dict[str, Any]) -> bytes:
    if len(content) > _MAX_BYTES:
        raise RequestFailed(f"the answer is larger than {_MAX_BYTES} bytes")
    if kind == StepKind.FETCH:
        return msgspec.json.encode(
            {
                "url": options["url"],
                "headers": dict(response.headers),
                "body": content.decode(errors="replace"),
                "status_code": response.status,
            }
        )
    if response.status > 299:
        raise RequestFailed(f"the model answered HTTP {response.status}: {content[:2000].decode(errors='replace')}")
    try:
        return msgspec.json.encode(msgspec.json.decode(content))
    except msgspec.DecodeError as error:
        raise RequestFailed(f"the model's answer is not JSON: {error}") from error


def _failed(
    host: Host, remote: RemoteRun, step: StepRow, error: Exception, attempt: int, began: int
) -> Answered:
    now = host.clock.now()
    recorded = msgspec.json.encode({"name": _NAMES[StepKind(step.kind)], "message": f"{error}" or type(error).__name__})
    if attempt >= remote.fn.retries:
        failed = msgspec.structs.replace(
            step, state=StepState.FAILED, ended_at=now, attempt=attempt, due=None, data=None, error=recorded
        )
        return Answered(
            remote.lease,
            [Operation(failed, attempt=AttemptRow(remote.run.id, step.key, attempt, began, now, None, recorded))],
        )
    due = now + host.retry_delay_ms(remote.fn.backoff, attempt)
    waiting = msgspec.structs.replace(step, attempt=attempt + 1, due=due)
    row = AttemptRow(remote.run.id, step.key, attempt, began, now, due, recorded)
    return Answered(remote.lease, [Operation(waiting, attempt=row)])
