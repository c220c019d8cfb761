"""What is in Redis: a version per client that rises whenever its counts have been worked out, and marks of what is dirty."""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis

DIRTY = "inbox:v1:dirty:{}"
VERSION = "inbox:v1:ver:{}"
ANALYTICS_VERSION = "analytics:v1:ver:{}"

STATUS = "job:v1:{}:{}"

_FINISH = """
-- KEYS: the version, the dirty mark, who was counted last
-- ARGV: the run, its request, the mark as it was when the run began to read
local last = redis.call('HGET', KEYS[3], 'run')
if last ~= ARGV[1] then
  redis.call('INCR', KEYS[1])
  redis.call('HSET', KEYS[3], 'run', ARGV[1], 'request', ARGV[2])
end
-- a mark that was set since stays: what it stands for may not have been read
if redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('DEL', KEYS[2]) end
return tonumber(redis.call('GET', KEYS[1]))
"""


class Versions:
    """The inbox's keys in Redis."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._finish = client.register_script(_FINISH)

    async def mark_dirty(self, client_id: str, request_id: str) -> None:
        """Note that a client's counts are no longer true. The mark says since which request."""
        await self._client.set(DIRTY.format(client_id), request_id)

    async def dirty(self, client_id: str) -> str | None:
        """A client's mark."""
        return _text(await self._client.get(DIRTY.format(client_id)))

    async def all_dirty(self) -> list[str]:
        """The clients that are marked."""
        prefix = DIRTY.format("")
        found = {key async for key in self._client.scan_iter(match=f"{prefix}*", count=1000)}
        return sorted(str(key).removeprefix(prefix) for key in found)

    async def served(self, client_id: str) -> str | None:
        """The request that was counted for last."""
        return _text(await self._client.hget(_last(client_id), "request"))

    async def finish(self, client_id: str, run_id: str, request_id: str, mark: str | None) -> int:
        """Raise a client's version, once per run, and take the mark away unless it is newer; the version.

        Args:
            client_id: Whose counts were worked out.
            run_id: The run that did. Asked again by the same run, nothing is raised again.
            request_id: What it was asked for by.
            mark: The mark as it was before the messages were read.
        """
        keys = [VERSION.format(client_id), DIRTY.format(client_id), _last(client_id)]
        return int(await self._finish(keys=keys, args=[run_id, request_id, mark or ""]))

    async def version(self, client_id: str) -> int:
        """A client's version; 0 when its counts were never worked out."""
        return int(await self._client.get(VERSION.format(client_id)) or 0)

    async def job(self, client_id: str, job: str) -> dict[str, Any]:
        """The status of a client's job as holdfast mirrors it here; empty when it never ran, or long ago."""
        found = _text(await self._client.get(STATUS.format(client_id, job)))
        return {} if found is None else json.loads(found)

    async def raise_analytics(self, client_id: str, run_id: str) -> int:
        """Raise the version of a client's aggregates, once per run; the version."""
        keys = [
            ANALYTICS_VERSION.format(client_id),
            f"analytics:v1:nothing:{client_id}",
            f"analytics:v1:last:{client_id}",
        ]
        return int(await self._finish(keys=keys, args=[run_id, "", ""]))


def _last(client_id: str) -> str:
    return f"inbox:v1:last:{client_id}"


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
