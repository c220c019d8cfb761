"""Durable endpoints: runs that an SDK executes within its client's request, and reports (protocol section 1.6)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from holdfast.base.ids import step_hash
from holdfast.core.endpoints import Begin, attached_lease
from holdfast.core.ingest import Accepted
from holdfast.core.plan import Refused, StepsOf
from holdfast.core.progress import Progress
from holdfast.core.queue import Leased
from holdfast.core.rows import EventRow, ItemRow, RunRow
from holdfast.engine.applications import Applications
from holdfast.engine.host import Host
from holdfast.engine.http_driver import HttpDriver
from holdfast.engine.notices import Notice
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.engine.remote_run import RemoteRun
from holdfast.wire.answers import Answer, Outcome
from holdfast.wire.endpoints import REQUESTED, NewRun
from holdfast.wire.opcodes import Op, Opcode, StepFailure

_WHOLE_FUNCTION = step_hash("complete")
"""SDKs report under this id what became of the function itself."""
_FAILED = frozenset({Op.STEP_ERROR, Op.STEP_FAILED})


class Begun(msgspec.Struct):
    """A run that has begun within a request."""

    fn: RemoteFunction
    secret: str
    """What tokens for its output are signed with."""


class Endpoints:
    """Takes what SDKs report of durable endpoints.

    Args:
        host: The node.
        applications: Where endpoints are registered, as they are first heard of.
        driver: Decides what a report means, as it does of answers to calls.
    """

    def __init__(self, host: Host, applications: Applications, driver: HttpDriver) -> None:
        self._host = host
        self._applications = applications
        self._driver = driver

    async def begin(self, new: NewRun, run_id: bytes, sdk: str) -> Begun | Refused:
        """Begin a run, and record what it has done already.

        Args:
            new: What the SDK says of it.
            run_id: Its id, as bytes.
            sdk: The SDK, as it calls itself.

        Raises:
            ConfigurationError: the application has too many endpoints to take another.
        """
        host = self._host
        fn = await self._applications.endpoint(new.request, retries=new.retries, sdk=sdk)
        now = host.clock.now()
        event = EventRow(host.ids.new(now), REQUESTED, new.ts or now, now, new.data, new.event_id)
        progress = Progress(version=new.version, attached=True, secret=secrets.token_hex(16))
        plan = Begin(event, run_id, fn.id, fn.version, progress)
        plan.then = host.accepted
        answer: Accepted | Refused = await host.submit(plan)
        if isinstance(answer, Refused):
            return answer
        host.metrics.of(fn.id).started += 1
        if host.notices.wanted:
            host.notices.publish(Notice("run", "", fn.id))
        if new.steps:
            await self.report(run_id, new.steps, goes_on=not sdk.startswith("js"))
        return Begun(fn, progress.secret)

    async def report(self, run_id: bytes, opcodes: Sequence[Opcode], *, goes_on: bool) -> bool:
        """Record what a request has brought its run; False when the run is not attached to one any more.

        Args:
            run_id: The run.
            opcodes: What the SDK reports.
            goes_on: Whether the SDK goes on with the function after a step has failed for good, rather than leaving it to us.
        """
        remote = await self._load(run_id)
        if remote is None:
            return False
        await self._driver.report(remote, _answer(opcodes), goes_on=goes_on)
        return True

    async def _load(self, run_id: bytes) -> RemoteRun | None:
        store = self._host.store
        rows = await store.read([(RunRow, run_id), (ItemRow, run_id), StepsOf(run_id)])
        run, item = rows.get(RunRow, run_id), rows.get(ItemRow, run_id)
        fn = None if run is None else self._applications.functions.get(run.function_id)
        if run is None or item is None or fn is None or not fn.endpoint:
            return None
        lease = attached_lease(run_id)
        item = msgspec.structs.replace(item, owner=lease.owner, epoch=lease.epoch)
        event = (await store.read([(EventRow, run.event_id)])).get(EventRow, run.event_id)
        now = self._host.clock.now()
        return RemoteRun(run, Leased(run, item), fn, event, [], rows.find(StepsOf(run_id)), now, attached=True)


def _answer(opcodes: Sequence[Opcode]) -> Answer:
    """What a report means, as if it were the answer to a call."""
    for one in opcodes:
        if one.op in _FAILED and one.id == _WHOLE_FUNCTION and not one.display_name:
            failure = one.error or StepFailure(message="the function failed without saying why")
            output = msgspec.json.encode(failure)
            return Answer(Outcome.FAILED, error=failure, output=output, no_retry=one.op is Op.STEP_FAILED)
    return Answer(Outcome.OPERATIONS, operations=list(opcodes))
