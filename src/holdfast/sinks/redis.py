"""Statuses in Redis: a JSON text per key, written by a script so that an older run never overwrites a newer one."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.base.duration import Duration, duration_ms
from holdfast.base.errors import ConfigurationError
from holdfast.sdk.status import JobStatus, Mirrored
from holdfast.sinks.template import KeyTemplate

if TYPE_CHECKING:
    from redis.asyncio import Redis

_WRITE = """
-- KEYS: the status, whose it is, the runs that have not ended
-- ARGV: the run's place in time and its id, the status, whether it has ended, whether it only waits for its start,
--       its attempt, when it expires
if ARGV[4] == '1' then redis.call('SREM', KEYS[3], ARGV[2]) else redis.call('SADD', KEYS[3], ARGV[2]) end
local held = redis.call('GET', KEYS[2])
if held then
  local place, ended, attempt = string.match(held, '^(%S+) (%d) (%d+)$')
  if place > ARGV[1] then return 0 end
  if place == ARGV[1] then
    -- a late word from the same run
    if ended == '1' and ARGV[4] == '0' then return 0 end
    if ended == ARGV[4] and tonumber(attempt) > tonumber(ARGV[6]) then return 0 end
  elseif ended == '0' and ARGV[5] == '1' then
    -- a run that waits behind the one under way; it has its turn when it starts
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[4] .. ' ' .. ARGV[6])
if ARGV[4] == '1' then
  redis.call('PEXPIREAT', KEYS[1], ARGV[7])
  redis.call('PEXPIREAT', KEYS[2], ARGV[7])
end
return 1
"""


class RedisStatus:
    """Mirrors the status of each run to a key in Redis: `App("inbox", sinks=[RedisStatus(url, key="job:{function}")])`.

    The key holds `JobStatus.document()` as JSON. It belongs to the newest run that has begun: a run that is still queued
    takes it only when no other is under way, and an older run never overwrites a newer one. While a run is live its key
    does not expire. Beside each key there is one with `:run` at its end, which says whose the status is, and for each
    sink there are `<name>:unfinished` and `<name>:until`, from which holdfast goes on after a crash. On a Redis Cluster,
    put the same hash tag into `key` and `name`.

    Args:
        url: `redis://host:port/0`, `rediss://`, or `unix://path`; or a function that gives it when the app starts.
        key: See `KeyTemplate`. Runs whose event lacks a field of it are not mirrored.
        functions: Ids of the functions that are mirrored; all of the app unless given.
        expires: How long a status is kept after the run's end.
        name: Begins the names of the sink's own keys. Two sinks on one Redis need two names.
        timeout: Seconds that Redis may take to answer.

    Raises:
        ConfigurationError: the key has a field that there isn't, or the `redis` package is not installed.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        key: str,
        functions: Collection[str] | None = None,
        expires: Duration = "7d",
        name: str = "holdfast:status",
        timeout: float = 5.0,
    ) -> None:
        try:
            import redis.asyncio
        except ImportError as error:
            raise ConfigurationError("RedisStatus needs redis: pip install 'holdfast[redis]'") from error
        self._connect = redis.asyncio.Redis.from_url
        self._url = url
        self._template = KeyTemplate(key)
        self._functions = None if functions is None else frozenset(functions)
        self._expires_ms = duration_ms(expires)
        self._name = name
        self._timeout = timeout
        self._client: Redis | None = None
        self._script: Any = None

    async def open(self) -> Mirrored:
        """See `StatusSink.open`."""
        client = self._connected()
        until = await client.get(f"{self._name}:until")
        unfinished = await client.smembers(f"{self._name}:unfinished")
        return Mirrored(int(until or 0), sorted(map(str, unfinished)))

    async def write(self, statuses: Sequence[JobStatus]) -> None:
        """See `StatusSink.write`."""
        client = self._connected()
        async with client.pipeline(transaction=False) as pipeline:
            for status in statuses:
                await self._put(status, pipeline)
            await pipeline.execute()

    async def forget(self, run_ids: Sequence[str]) -> None:
        """See `StatusSink.forget`."""
        await self._connected().srem(f"{self._name}:unfinished", *run_ids)

    async def checkpoint(self, until: int) -> None:
        """See `StatusSink.checkpoint`."""
        await self._connected().set(f"{self._name}:until", until)

    async def close(self) -> None:
        """See `StatusSink.close`."""
        if self._client is not None:
            await self._client.aclose()
            self._client = self._script = None

    async def _put(self, status: JobStatus, pipeline: Any) -> None:
        if self._functions is not None and status.function not in self._functions:
            return
        key = self._template.key(status)
        if key is None:
            return
        document = json.dumps(status.document(), ensure_ascii=False, separators=(",", ":"))
        expires_at = (status.finished_at or 0) + self._expires_ms
        await self._script(
            keys=[key, f"{key}:run", f"{self._name}:unfinished"],
            args=[
                f"{status.queued_at:015d}-{status.run_id}",
                status.run_id,
                document,
                int(status.ended),
                int(status.status == "queued"),
                status.attempt,
                expires_at,
            ],
            client=pipeline,
        )

    def _connected(self) -> Redis:
        if self._client is None:
            url = self._url if isinstance(self._url, str) else self._url()
            self._client = self._connect(
                url, decode_responses=True, socket_timeout=self._timeout, socket_connect_timeout=self._timeout
            )
            self._script = self._client.register_script(_WRITE)
        return self._client
