"""Checkpointing: steps are reported while the function goes on, so that a chain of them is one call (protocol 1.6).

By default each step is reported, and recorded by the server, before the next one begins. With batches a crash may lose
what was not reported yet, and those steps run again.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from enum import Enum

from holdfast.base.clock import Clock
from holdfast.base.errors import HoldfastError
from holdfast.serve.client import ServerClient
from holdfast.serve.settings import CheckpointSettings
from holdfast.wire import answers
from holdfast.wire.answers import Written
from holdfast.wire.calls import CallRequest
from holdfast.wire.checkpoints import STALE, AsyncCheckpoint, checkpoint_path, encode_checkpoint
from holdfast.wire.opcodes import Op, Opcode

_log = logging.getLogger("holdfast.serve")


class Verdict(Enum):
    """Whether a function may go on after a step."""

    GO_ON = "go on"
    STOP = "stop"
    """The server has to be answered first: it did not take the steps, or the call has lasted long enough."""
    STALE = "stale"
    """The run is somebody else's by now."""


class Checkpoints:
    """The steps of one call that were executed and are not recorded yet."""

    def __init__(
        self, client: ServerClient, request: CallRequest, settings: CheckpointSettings, generation: str | None, clock: Clock
    ) -> None:
        self._client = client
        self._request = request
        self._settings = settings
        self._generation = generation
        self._clock = clock
        self._started = clock.now()
        self._pending: list[Opcode] = []
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[bool] | None = None
        self._refused = False
        self.stale = False
        self.recorded = 0
        """Steps that the server has recorded during this call."""

    async def add(self, opcode: Opcode) -> Verdict:
        """A step has been executed: report it, alone or with others."""
        self._pending.append(opcode)
        if self._refused or len(self._pending) >= self._settings.batch_steps:
            await self.flush()
        elif self._timer is None and self._settings.batch_interval_ms:
            loop = asyncio.get_running_loop()
            # in a context of its own: what it starts is no task of the function
            self._timer = loop.call_later(self._settings.batch_interval_ms / 1000, self._flush_soon, context=Context())
        if self.stale:
            return Verdict.STALE
        limit = self._settings.max_runtime_ms
        late = bool(limit) and self._clock.now() - self._started >= limit
        return Verdict.STOP if self._refused or late else Verdict.GO_ON

    def _flush_soon(self) -> None:
        self._flushing = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> bool:
        """Report what is not reported yet; whether the server has taken it."""
        async with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            steps = list(self._pending)
            if steps and not self._refused and not self.stale:
                await self._post(steps)
            return not self._pending

    async def _post(self, steps: list[Opcode]) -> None:
        run_id = self._request.ctx.run_id
        try:
            answer = await self._client.post(checkpoint_path(run_id), self._body(steps))
        except HoldfastError as error:
            self._refused = True
            _log.warning("run %s: %d steps could not be reported meanwhile, and go with the answer: %s", run_id, len(steps), error)
            return
        if answer.status == STALE:
            self.stale = True
        elif not answer.ok:
            self._refused = True
            _log.warning("run %s: the server refused %d steps, which go with the answer: %s", run_id, len(steps), answer.reason)
        else:
            del self._pending[: len(steps)]
            self.recorded += len(steps)

    def _body(self, steps: list[Opcode]) -> bytes:
        ctx = self._request.ctx
        generation = self._generation or ""
        return encode_checkpoint(
            AsyncCheckpoint(
                ctx.run_id, steps, ctx.fn_id, ctx.qi_id, ctx.request_id,
                int(generation) if generation.isdecimal() else 0, self._started, self._clock.now(),
            )
        )  # fmt: skip

    async def close(self, answer: Written, opcodes: list[Opcode] | None) -> Written:
        """The call's answer, once everything is reported; with it go the steps that could not be.

        Args:
            answer: What came of the call.
            opcodes: Those in it, where it is a report; None where the function has ended.
        """
        taken = await self.flush()
        if self.stale:
            return answers.operations([])
        if taken:
            return answer
        return answers.operations([*self._pending, *(opcodes or [])])


DISCOVER = Opcode(Op.DISCOVERY_REQUEST)
"""What asks the server for another call."""
