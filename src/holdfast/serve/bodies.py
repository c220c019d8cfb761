"""Executing the body of one step."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from holdfast.base.codec import encode_json
from holdfast.base.errors import NonRetriableError, NotSerializableError, StepTimeoutError
from holdfast.base.limits import MAX_STEP_OUTPUT_BYTES
from holdfast.engine.tasks import current_step
from holdfast.engine.threads import Bridge
from holdfast.sdk import inputs
from holdfast.sdk.calls import NowCall, RunCall, SendCall, SendSignalCall, StepCall
from holdfast.sdk.sender import Outgoing
from holdfast.serve.memos import tagged
from holdfast.serve.place import Place, Served
from holdfast.wire.calls import Memo


class Body:
    """One body, ready to be executed once."""

    __slots__ = ("_bridge", "_call", "_context", "_fn", "_outgoing", "_place", "_run_id", "_target")

    def __init__(
        self, place: Place, fn: Served, call: StepCall[Any], memo: Memo | None, run_id: str, context: Any,
        bridge: Bridge | None,
    ) -> None:
        """Prepare it.

        Raises:
            EventInvalidError: `step.send` was given events that can't be sent.
        """  # fmt: skip
        self._place = place
        self._fn = fn
        self._call = call
        self._run_id = run_id
        self._context = context
        self._bridge = bridge
        self._outgoing: list[Outgoing] = []
        self._target: Callable[[], Any] | None = None
        if isinstance(call, SendCall):
            self._outgoing = [fn.app.outgoing(event, call.event_id) for event in call.events]
        elif isinstance(call, RunCall) and memo is not None and memo.input is not None:
            self._target = partial(self._edited, call, memo)

    async def execute(self) -> bytes:
        """JSON of its result.

        Raises:
            Exception: what the body raised.
        """
        call = self._call
        if isinstance(call, NowCall):
            return str(self._place.clock.now()).encode()
        if isinstance(call, SendCall):
            ids = await self._place.send(self._outgoing, self._run_id, call.key)
            return encode_json(ids, f"step {call.key!r}")
        if isinstance(call, SendSignalCall):
            resumed = await self._place.send_signal(call.signal, call.data)
            return encode_json(resumed, f"step {call.key!r}")
        assert isinstance(call, RunCall)
        raw = await self._run(call)
        if len(raw) > MAX_STEP_OUTPUT_BYTES:
            raise NotSerializableError(
                f"step {call.key!r} returned {len(raw)} bytes of JSON, {MAX_STEP_OUTPUT_BYTES} are allowed; "
                "store it elsewhere and return a reference"
            )
        return raw

    async def _run(self, call: RunCall[Any]) -> bytes:
        info = self._place.callables.of(call.fn)
        token = current_step.set(call.key)
        try:
            inner: Callable[[], Awaitable[Any]] = partial(self._timed, call, is_async=info.is_async)
            for wrapper in reversed(self._fn.step_wrappers):
                inner = partial(wrapper.around_step, self._context, call.key, inner)
            value = await inner()
        except (KeyboardInterrupt, SystemExit) as error:
            raise NonRetriableError(f"step {call.key!r} raised {type(error).__name__}") from error
        finally:
            current_step.reset(token)
        return tagged(*info.codec.encode(value, f"step {call.key!r}"))

    async def _timed(self, call: RunCall[Any], *, is_async: bool) -> Any:
        own = call.options.timeout_ms
        limit = self._fn.function.options.step_timeout_ms if own is None else own
        scope = asyncio.timeout(limit / 1000)
        try:
            async with scope:
                return await self._plain(call, is_async=is_async)
        except TimeoutError:
            if scope.expired():
                what = "its timeout" if own is not None else "the function's step_timeout"
                raise StepTimeoutError(f"step {call.key!r} took longer than {what} of {limit / 1000:g} s") from None
            raise

    async def _plain(self, call: RunCall[Any], *, is_async: bool) -> Any:
        body = self._target or partial(call.fn, *call.args, **call.kwargs)
        if is_async:
            return await body()
        threads = self._place.threads
        execute = threads.run if self._bridge is None else self._bridge.execute
        limit_ms = call.options.timeout_ms or self._fn.function.options.step_timeout_ms
        value = await threads.pace.run(call.fn, body, execute, limit_ms)
        return await value if inspect.isawaitable(value) else value

    @staticmethod
    def _edited(call: RunCall[Any], memo: Memo) -> Any:
        assert memo.input is not None
        args, kwargs = inputs.bound(call.fn, inputs.as_input(bytes(memo.input)), call.key)
        return call.fn(*args, **kwargs)
