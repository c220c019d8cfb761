"""Executing runs by calling their application over HTTP, one call for each lease (protocol sections 2.1 and 2.2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from holdfast.base.errors import AddressRefusedError, HoldfastError
from holdfast.base.ids import ulid_text
from holdfast.core.checkpoint import Checkpoint
from holdfast.core.ending import End, Ending
from holdfast.core.endpoints import Attached
from holdfast.core.ingest import Accepted
from holdfast.core.plan import EventsOfBatch, Plan, Refused, StepsOf
from holdfast.core.queue import Leased
from holdfast.core.remote import Answered, Operation, RetryCall
from holdfast.core.rows import AttemptRow, EventRow, RunStatus, StepKind, StepRow, StepState
from holdfast.core.signals import CONFLICT
from holdfast.engine import failures, gateway
from holdfast.engine.calling import call_body, call_headers, endpoint_call
from holdfast.engine.host import Host
from holdfast.engine.notices import Notice
from holdfast.engine.operations import RunFailure, Translator, error_json
from holdfast.engine.outbound import REDIRECTS
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.engine.remote_limits import check_limits, check_progress
from holdfast.engine.remote_run import RemoteRun
from holdfast.engine.workers import Workers, call_worker, worker_function
from holdfast.wire.answers import MAX_ANSWER_BYTES, Answer, Outcome, read
from holdfast.wire.calls import DISCOVERY
from holdfast.wire.errors import WireError
from holdfast.wire.opcodes import EXECUTED, SETTLED, Op, Opcode, StepFailure

_log = logging.getLogger("holdfast")
_MAX_REDIRECTS = 60
_CALL_SECONDS = 7200.0


class Unreachable(Exception):  # noqa: N818 - what is told of an application, not an error of this program
    """An application could not be reached, or broke off."""


class HttpDriver:
    """Calls applications. Every call is one task; what it brings is decided in a plan, fenced by the lease of its item.

    Args:
        host: The node.
        signing_key: Signs calls, where there is one.
        kind: `dev` or `cloud`: what the server says it is.
    """

    def __init__(self, host: Host, *, signing_key: str | None = None, kind: str = "dev") -> None:
        self._host = host
        self.signing_key = signing_key
        self.kind = kind
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: dict[bytes, RemoteRun] = {}
        self.workers: Workers | None = None
        """Processes of this host that execute the functions of this node's own apps."""
        self._own: dict[int, RemoteFunction] = {}

    def function(self, function_id: int) -> RemoteFunction | None:
        """A function that is executed by calling an application, or one of this node's own that a worker executes."""
        return self._host.applications.functions.get(function_id) or self._own_function(function_id)

    def _own_function(self, function_id: int) -> RemoteFunction | None:
        fn = self._host.function_by_id(function_id)
        if fn is None or self.workers is None:
            return None
        if function_id not in self._own:
            self._own[function_id] = worker_function(fn)
        return self._own[function_id]

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    def launch(self, leased: Sequence[Leased]) -> None:
        """Call for runs that are leased to this node."""
        for one in leased:
            task = self._host.loop.create_task(self._execute(one))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a call ended with an error of holdfast's own", exc_info=task.exception())
        self._host.call_ended()

    async def stop(self, seconds: float) -> None:
        """Wait for the calls under way, then break off those that take longer; they are made again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._host.outbound.close()

    # -- one lease -----------------------------------------------------------------------------------------------------

    async def _execute(self, leased: Leased) -> None:
        host = self._host
        fn = self.function(leased.run.function_id)
        if fn is None:
            self._nobody(leased)  # its lease ends with this boot
            return
        try:
            remote = self._calls[leased.item.id] = await self._load(leased, fn)
            host.metrics.of(fn.id).started += leased.item.epoch == 1 and leased.item.id == leased.run.id
            if host.notices.wanted:
                host.notices.publish(Notice("run", ulid_text(leased.run.id), fn.id))
            await self._step(remote)
        except HoldfastError as error:
            _log.warning("run %s could not be moved forward: %s", ulid_text(leased.run.id), error)
        finally:
            self._calls.pop(leased.item.id, None)

    def _nobody(self, leased: Leased) -> None:
        if self._host.function_by_id(leased.run.function_id) is not None:
            _log.error(
                "run %s of %s began in a worker process, or while its app was called over HTTP, and can't go on inside this one: "
                "run `holdfast start` until it has ended, or cancel it",
                ulid_text(leased.run.id),
                self._host.slug_of(leased.run.function_id),
            )

    def recorded(self, item_id: bytes, steps: Sequence[StepRow]) -> None:
        """Steps were recorded while a call goes on that they came from."""
        remote = self._calls.get(item_id)
        if remote is not None:
            known = {step.key for step in remote.steps}
            remote.steps += [step for step in steps if step.key not in known]

    async def _load(self, leased: Leased, fn: RemoteFunction) -> RemoteRun:
        store, run = self._host.store, leased.run
        reads: list[Any] = [(EventRow, run.event_id), StepsOf(run.id)]
        if run.batch:
            reads.append(EventsOfBatch(run.id))
        rows = await store.read(reads)
        steps = [step for step in rows.find(StepsOf(run.id)) if step.kind != StepKind.END]
        batch: list[EventRow] = []
        if run.batch:
            ids = [place.event_id for place in rows.find(EventsOfBatch(run.id))]
            found = await store.read([(EventRow, event_id) for event_id in ids])
            batch = [event for event_id in ids if (event := found.get(EventRow, event_id)) is not None]
        event = rows.get(EventRow, run.event_id)
        return RemoteRun(run, leased, fn, event, batch, steps, self._host.clock.now())

    async def _step(self, remote: RemoteRun) -> None:
        target = remote.target
        if target != DISCOVERY:
            step = next((step for step in remote.steps if step.key == target), None)
            if step is not None and step.kind in {StepKind.FETCH, StepKind.AI}:
                await self._submit(remote, await gateway.perform(self._host, remote, step))
                return
        if remote.event is None:
            await self._fail(remote, StepFailure(message="the event of this run is no longer stored"), b"null")
            return
        try:
            employed = self.workers if remote.fn.id in self._own else None
            answer = await (self._call(remote) if employed is None else call_worker(self._host, employed, remote))
        except Unreachable as error:
            failure = StepFailure("Error", str(error))
            output = msgspec.json.encode({"error": {"error": str(error), "name": "Error", "message": str(error)}})
            answer = Answer(Outcome.FAILED, error=failure, output=output)
        await self._decide(remote, answer)

    async def _call(self, remote: RemoteRun) -> Answer:
        remote.given = frozenset(step.key for step in remote.steps if step.state != StepState.PENDING)
        key, kind = self.signing_key, self.kind
        if remote.fn.endpoint:
            method, url, body, headers = endpoint_call(self._host, remote, signing_key=key, kind=kind)
        else:
            method, url, body = "POST", remote.fn.url_for(remote.target), call_body(remote)
            headers = call_headers(self._host, remote, body, signing_key=key, kind=kind)
        try:
            status, got, content = await self._request(method, url, body, headers)
        except AddressRefusedError as error:
            # whoever looks at the application sees it too, not only at its runs
            await self._host.applications.failed(remote.fn.app, str(error))
            raise Unreachable(f"Unable to reach SDK URL: {error}") from error
        return read(status, got, content, self._host.clock.now())

    async def _request(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        request = self._host.outbound.request(
            method, url, data=body, headers=headers, seconds=_CALL_SECONDS, redirects=_MAX_REDIRECTS, same_request=True
        )
        try:
            async with request as response:
                if response.status in REDIRECTS and "location" in response.headers:
                    raise Unreachable(f"Unable to reach SDK URL: more than {_MAX_REDIRECTS} redirects")
                content = await _bounded(response)
                return response.status, {name.lower(): value for name, value in response.headers.items()}, content
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"Unable to reach SDK URL: {error}") from error
        except ValueError as error:  # aiohttp's InvalidURL is one
            raise Unreachable(f"Unable to reach SDK URL: {url!r:.200} is no address") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(
                f"Your server reset the connection while we were reading the reply: {type(error).__name__}: {error}"
            ) from error

    # -- what an answer means --------------------------------------------------------------------------------------------

    async def report(self, remote: RemoteRun, answer: Answer, *, goes_on: bool) -> None:
        """Record what the request to a durable endpoint has brought so far; it counts while the run is attached to it.

        Args:
            remote: The attached run.
            answer: What was reported.
            goes_on: Whether the request goes on after a step that has failed for good.
        """
        settled = SETTLED | {Op.STEP_FAILED} if goes_on else SETTLED
        if answer.outcome is Outcome.OPERATIONS and all(one.op in settled for one in answer.operations):
            await self._submit(remote, Checkpoint(remote.lease, self._operations(remote, answer, answer.operations)))
        else:
            await self._decide(remote, answer)

    async def _decide(self, remote: RemoteRun, answer: Answer) -> None:
        if answer.outcome is Outcome.FINISHED:
            await self._end(remote, Ending(RunStatus.COMPLETED, answer.result))
            return
        if answer.outcome is Outcome.OPERATIONS:
            done = next((one for one in answer.operations if one.op in {Op.RUN_COMPLETE, Op.SYNC_RUN_COMPLETE}), None)
            try:
                if done is not None:
                    await self._complete(remote, answer, done)
                    return
                plan = self._answered(remote, answer)
            except WireError as error:
                answer = _not_understood(error)
            except RunFailure as failure:
                output = msgspec.json.encode(failure.output)
                await self._fail(remote, StepFailure(failure.name, failure.message), output)
                return
            else:
                if await self._submit(remote, plan) == CONFLICT:
                    await self._fail(remote, StepFailure("Error", CONFLICT), msgspec.json.encode(CONFLICT))
                return
        await self._failed(remote, answer)

    async def _complete(self, remote: RemoteRun, answer: Answer, done: Opcode) -> None:
        """The function has returned; the steps that come with it were executed before."""
        last = [one for one in answer.operations if one.op in EXECUTED]
        if last:
            await self._submit(remote, Checkpoint(remote.lease, self._operations(remote, answer, last)))
        await self._end(remote, Ending(RunStatus.COMPLETED, bytes(done.data) or b"null"))

    def _answered(self, remote: RemoteRun, answer: Answer) -> Plan[Any]:
        check_progress(remote, answer.operations)
        check_limits(self._host, remote.fn.id, remote.steps, answer.operations)
        # waits are registered before anything is recorded that may make their event come
        opcodes = sorted(answer.operations, key=lambda one: one.op is not Op.WAIT_FOR_EVENT)
        operations = self._operations(remote, answer, opcodes)
        order = {opcode.id: position for position, opcode in enumerate(answer.operations)}
        operations.sort(key=lambda one: order[one.key])
        asked = any(one.op is Op.DISCOVERY_REQUEST for one in answer.operations)
        return Answered(remote.lease, operations, version=answer.version, discovery=asked)

    def _operations(self, remote: RemoteRun, answer: Answer, opcodes: Sequence[Opcode]) -> list[Operation]:
        assert remote.event is not None
        translator = Translator(
            self._host, remote.fn, remote.run, remote.leased.item, remote.event,
            began=remote.began, no_retry=answer.no_retry, retry_after=answer.retry_after,
        )  # fmt: skip
        return [one for one in map(translator.translate, opcodes) if one is not None]

    async def _failed(self, remote: RemoteRun, answer: Answer) -> None:
        """The function itself failed, or there was no answer that can be understood."""
        host = self._host
        failure = answer.error or StepFailure()
        attempt = remote.leased.item.attempt
        if answer.no_retry or failure.no_retry or attempt >= remote.fn.retries:
            await self._fail(remote, failure, answer.output, attempt=attempt, status=answer.status)
            return
        now = host.clock.now()
        delay = host.retry_delay_ms(remote.fn.backoff, attempt) if answer.retry_after is None else answer.retry_after
        row = AttemptRow(remote.run.id, "", attempt, remote.began, now, now + delay, error_json(failure))
        await self._submit(remote, RetryCall(remote.lease, now + delay, row))
        host.metrics.of(remote.fn.id).retried += 1

    async def _fail(
        self,
        remote: RemoteRun,
        failure: StepFailure,
        output: bytes,
        *,
        attempt: int | None = None,
        status: int | None = None,
    ) -> None:
        error = msgspec.json.decode(error_json(failure))
        if status is not None:
            error["error"] = f"invalid status code: {status}"
        error["output"] = msgspec.Raw(output)
        step = failure.data.get("step") if isinstance(failure.data, dict) else None
        if isinstance(step, str):  # as holdfast's own applications say which step ended the function
            error["step"] = next((one.key for one in reversed(remote.steps) if one.name == step), step)
            error["step_name"] = step
        raw = msgspec.json.encode(error)
        row = None
        if attempt is not None:
            now = self._host.clock.now()
            row = AttemptRow(remote.run.id, "", attempt, remote.began, now, None, error_json(failure))
        await self._end(remote, Ending(RunStatus.FAILED, error=raw, fingerprint=failures.fingerprint(raw)), row)

    async def _end(self, remote: RemoteRun, ending: Ending, attempt: AttemptRow | None = None) -> None:
        host, run = self._host, remote.run
        plan = End(
            remote.lease,
            ending,
            invoked=run.origin == 1,
            waits=True,
            lifecycle=host.end_events(run, remote.event, ending),
            logs=[attempt] if attempt is not None else [],  # type: ignore[list-item]
            remote=True,
        )
        await self._submit(remote, plan, then=lambda accepted: host.remote_ended(run, ending, accepted))

    async def _submit(
        self, remote: RemoteRun, plan: Plan[Accepted], then: Callable[[Any], None] | None = None
    ) -> str | None:
        """Record; the reason if it was refused."""
        if remote.attached:
            plan = Attached(remote.lease, plan)
        plan.then = then or self._host.accepted
        answer = await self._host.submit(plan)
        return answer.reason if isinstance(answer, Refused) else None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, read no further than what makes it too large."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            break
    return b"".join(chunks)


def _not_understood(error: WireError) -> Answer:
    message = f"error reading generator opcode response: {error}"
    output = msgspec.json.encode({"error": {"error": message, "name": "Error", "message": message}})
    return Answer(Outcome.FAILED, error=StepFailure("Error", message), output=output)

