"""What a server process and its workers ask of each other, over Unix sockets in a directory of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast.base.errors import NotRunningError, StepUsageError
from holdfast.base.ids import ulid_bytes
from holdfast.core.plan import EventsOfBatch, StepsOf
from holdfast.core.rows import EventRow, RunRow, StepKind, StepState
from holdfast.engine.calling import call_event, memo
from holdfast.engine.checkpoints import checkpoint
from holdfast.engine.engine import Engine
from holdfast.engine.operations import RunFailure
from holdfast.neighbours.methods import METHODS, Method
from holdfast.sdk.app import App
from holdfast.serve.client import ServerAnswer, ServerClient
from holdfast.serve.handler import ServeHandler
from holdfast.serve.http import Request
from holdfast.serve.settings import CheckpointSettings, ServeSettings
from holdfast.wire.calls import CallEvent
from holdfast.wire.canonical import decode
from holdfast.wire.checkpoints import STALE, checkpoint_path, decode_checkpoint
from holdfast.wire.errors import WireError
from holdfast.wire.metadata import metadata_path

Executed = tuple[int, dict[str, str], bytes]
Ask = Callable[[str, Sequence[Any]], Awaitable[Any]]
_RECORDED, _NOT_UNDERSTOOD, _TOO_LARGE = 200, 400, 413


# -- the server's side: what workers need while they execute a run ---------------------------------------------------------


async def _checkpoint(engine: Engine, run_id: str, body: bytes) -> tuple[int, str]:
    try:
        taken = await checkpoint(engine, engine.driver, ulid_bytes(run_id), decode_checkpoint(body))
    except WireError as error:
        return _NOT_UNDERSTOOD, str(error)
    except RunFailure as error:
        return _TOO_LARGE, error.message
    return (_RECORDED, "") if taken else (STALE, "another call counts by now")


async def _report(engine: Engine, run_id: str, body: bytes) -> tuple[int, str]:
    try:
        await engine.reported.take(ulid_bytes(run_id), body)
    except (WireError, StepUsageError) as error:
        return _NOT_UNDERSTOOD, str(error)
    return _RECORDED, ""


async def _memos(engine: Engine, run_id: str) -> dict[str, bytes]:
    raw = ulid_bytes(run_id)
    steps = (await engine.store.read([StepsOf(raw)])).find(StepsOf(raw))
    settled = [step for step in steps if step.state != StepState.PENDING and step.kind != StepKind.END]
    return {step.key: bytes(memo(step)) for step in sorted(settled, key=lambda one: one.seq)}


async def _events(engine: Engine, run_id: str) -> bytes:
    raw = ulid_bytes(run_id)
    run = (await engine.store.read([(RunRow, raw)])).get(RunRow, raw)
    if run is None:
        return b"[]"
    ids = [run.event_id]
    if run.batch:
        places = (await engine.store.read([EventsOfBatch(raw)])).find(EventsOfBatch(raw))
        ids = [place.event_id for place in places]
    rows = await engine.store.read([(EventRow, event_id) for event_id in ids])
    return msgspec.json.encode([call_event(row) for event_id in ids if (row := rows.get(EventRow, event_id)) is not None])


SERVER_METHODS: dict[str, Method] = {
    **METHODS,
    "checkpoint": Method(tuple[str, bytes], tuple[int, str], _checkpoint, while_stopping=True),
    "report": Method(tuple[str, bytes], tuple[int, str], _report, while_stopping=True),
    "memos": Method(tuple[str], dict[str, bytes], _memos, while_stopping=True),
    "events": Method(tuple[str], bytes, _events, while_stopping=True),
}
"""An app's own calls, and what executing a run takes."""


class OwnerClient(ServerClient):
    """The server, as the code that executes calls knows it."""

    def __init__(self, settings: ServeSettings, framework: str, ask: Ask) -> None:
        super().__init__(settings, framework)
        self._ask_owner = ask

    async def post(self, path: str, body: bytes, timeout: float = 0) -> ServerAnswer:
        """See `ServerClient.post`; checkpoints and reports are all that is posted while a call goes on."""
        _, _, _, run_id, *_ = path.split("/")
        methods = {checkpoint_path(run_id): "checkpoint", metadata_path(run_id): "report"}
        if path not in methods:
            raise NotRunningError(f"a worker process has nothing to post to {path}")
        status, error = await self._ask_owner(methods[path], (run_id, body))
        return ServerAnswer(status, msgspec.json.encode({"error": error}))

    async def steps_of(self, run_id: str) -> dict[str, msgspec.Raw]:
        """See `ServerClient.steps_of`."""
        found = await self._ask_owner("memos", (run_id,))
        return {key: msgspec.Raw(data) for key, data in found.items()}

    async def events_of(self, run_id: str) -> list[CallEvent]:
        """See `ServerClient.events_of`."""
        found: list[CallEvent] = decode(await self._ask_owner("events", (run_id,)), list[CallEvent])
        return found


# -- the worker's side -------------------------------------------------------------------------------------------------------


class Executor:
    """Executes calls for functions of the apps that are loaded in this process.

    Args:
        apps: The apps.
        ask: Asks the server.
    """

    def __init__(self, apps: Sequence[App], ask: Ask) -> None:
        settings = ServeSettings(mode="dev", checkpoint=CheckpointSettings())
        self._handlers: dict[str, ServeHandler] = {}
        for app in apps:
            handler = ServeHandler(app, settings, "worker")
            handler.client = handler.place.client = OwnerClient(settings, "worker", ask)
            self._handlers[app.id] = handler

    async def execute(self, app: str, slug: str, target: str, headers: Mapping[str, str], body: bytes) -> Executed:
        """See `Workers.execute`."""
        lower = {name.lower(): value for name, value in headers.items()}
        query = {"fnId": slug, "stepId": target}
        response = await self._handlers[app].handle(Request("POST", "worker:", query, lower, body))
        return response.status, response.headers, response.body

    async def close(self) -> None:
        """Leave the apps' lifespans."""
        for handler in self._handlers.values():
            await handler.close()


WORKER_METHODS: dict[str, Method] = {
    "execute": Method(
        tuple[str, str, str, dict[str, str], bytes],
        Executed,
        lambda executor, *args: executor.execute(*args),
        repeatable=False,
    )
}


class Inline:
    """Executes in the server's own process the runs that began in workers, once there are none any more."""

    take_new = False

    def __init__(self, apps: Sequence[App], engine: Engine) -> None:
        self._executor = Executor(apps, lambda name, args: SERVER_METHODS[name].call(engine, *args))

    async def execute(
        self, app: str, slug: str, target: str, headers: Mapping[str, str], body: bytes, *, suspect: bool = False
    ) -> tuple[int, Mapping[str, str], bytes]:
        """See `Workers.execute`."""
        return await self._executor.execute(app, slug, target, headers, body)

    async def close(self) -> None:
        """Leave the apps' lifespans."""
        await self._executor.close()
