"""One call of one function: it runs from the start over its memoised steps, until it has something to report.

The function's code may use plain asyncio (gather, task groups, locks), so a call knows the tasks that it creates. Memos
are released in the order in which the steps finished, each when no task can move by itself; what is new is looked at
when all tasks wait for steps or for each other: one executable step is executed, several are planned. Then `Suspended`
is thrown in, and the report is the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec

from holdfast.base.errors import NonRetriableError, StepUsageError, Suspended
from holdfast.base.limits import MAX_STEP_OUTPUT_BYTES
from holdfast.base.masks import Masks
from holdfast.base.retry import RetryPolicy
from holdfast.core.reporting import checked
from holdfast.engine import failures
from holdfast.engine.tasks import TaskFactory, current_run, current_step
from holdfast.engine.threads import Bridge
from holdfast.sdk.calls import RaceCall, RunCall, StepCall
from holdfast.sdk.context import Context, SyncContext
from holdfast.sdk.repeats import StepKeys
from holdfast.sdk.triggers import Trigger
from holdfast.serve import reports
from holdfast.serve.bodies import Body
from holdfast.serve.checkpoints import DISCOVER, Checkpoints, Verdict
from holdfast.serve.logs import CallLogger
from holdfast.serve.memos import memo_of, value_of
from holdfast.serve.metadata import Metadata
from holdfast.serve.place import Place, Served
from holdfast.serve.turns import Found, Turns
from holdfast.wire import answers
from holdfast.wire.answers import Written
from holdfast.wire.calls import CallRequest, wrapped_memo
from holdfast.wire.opcodes import Opcode, StepFailure

_log = logging.getLogger("holdfast.runs")
_GONE = "the step that this call is for is not reached: the function's code changed under a run in progress, or takes another way on replay"


class FunctionCall(Turns):
    """One call. It is the driver of the function's steps and what its context asks about the run."""

    def __init__(
        self,
        place: Place,
        fn: Served,
        request: CallRequest,
        target: str | None,
        checkpoints: Checkpoints | None = None,
        *,
        shows_lines: bool = False,
    ) -> None:
        """Prepare it.

        Args:
            place: Where it is executed.
            fn: The function.
            request: The call, its steps and events fetched.
            target: The hash of the one step to execute; None to execute or plan whatever comes next.
            checkpoints: Reports steps while the function goes on; None to end the call after one.
            shows_lines: Whether the server shows what the function logs.
        """
        stack = request.ctx.stack
        super().__init__((stack and stack.stack) or ())
        self.place = place
        self.fn = fn
        self.request = request
        self.target = target
        self.checkpoints = checkpoints
        self.shows_lines = shows_lines
        self.resources: Any = None
        self.memos = request.steps or {}
        self.unreached = set(self.memos)
        """Memos that the code has not come to yet."""
        self.keys = StepKeys()
        self.bridge: Bridge | None = None
        self.context: Any = None
        self._answer: Written | None = None
        self._opcodes: list[Opcode] | None = None
        self._racing: set[asyncio.Future[Any]] = set()
        self._logger: CallLogger | None = None
        self._metadata: Metadata | None = None

    # -- what the context asks -----------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        return self.request.ctx.run_id

    @property
    def attempt(self) -> int:
        return self.request.ctx.attempt

    @property
    def triggers(self) -> Sequence[Trigger]:
        """See `StepDriver.triggers`."""
        return self.fn.function.triggers

    @property
    def function_slug(self) -> str:
        return self.fn.function.slug

    def logger(self) -> CallLogger:
        if self._logger is None:
            run = {"run_id": self.run_id, "function_id": self.function_slug, "attempt": self.attempt}
            self._logger = CallLogger(self.fn.function.id, run, self._replaying, self._told().line, self._hidden())
        return self._logger

    def _hidden(self) -> frozenset[str]:
        """The marked values of its event, which no line is to show."""
        paths, event = self.fn.function.sensitive, self.request.event
        return Masks(paths).hidden_in(bytes(event.data)) if paths and event is not None else frozenset()

    def show_progress(self, fraction: float | None, text: str) -> None:
        """See `RunScope.show_progress`."""
        progress = checked(fraction, text, self.place.clock.now())
        if self.unwinding or (self._replaying() and current_step.get() is None):
            return
        self._told().progress(progress)

    def _told(self) -> Metadata:
        if self._metadata is None:
            self._metadata = Metadata(self.place, self.run_id, self.loop, lines=self.shows_lines)
        return self._metadata

    def _replaying(self) -> bool:
        # a call for one planned step repeats what the planning call has logged
        return bool(self.unreached) or (self.target is not None and current_step.get() is None)

    # -- executing the function ----------------------------------------------------------------------------------------

    async def answer(self) -> Written:
        """Execute the function, as far as it goes, and say what came of it. Never raises what the function raises."""
        self.loop = loop = asyncio.get_running_loop()
        if not isinstance(loop.get_task_factory(), TaskFactory):
            TaskFactory(loop).install()
        self.resources = await self.place.resources()
        self._concluded: asyncio.Future[Written] = loop.create_future()
        self.root = asyncio.Task(self._main(), loop=loop)
        try:
            answer = await self._concluded
        finally:
            self.unwinding = True
            await self._drop_tasks()
        if self._metadata is not None:
            await self._metadata.close()
        return answer if self.checkpoints is None else await self.checkpoints.close(answer, self._opcodes)

    async def _main(self) -> None:
        current_run.set(self)
        self.tasks.add(self.root)
        result: Any = None
        failure: BaseException | None = None
        try:
            result = await self._execute()
        except BaseException as error:
            failure = error
        current_run.set(None)
        unwound = self.unwinding
        self.over = True
        await self._join()
        if failure is None:
            self._conclude(self._returned(result, unwound=unwound))
        else:
            self._conclude(self._raised(failure, unwound=unwound))

    async def _execute(self) -> Any:
        function = self.fn.function
        events = [
            self.fn.receiver.read(one.id, one.name, one.ts, bytes(one.data))
            for one in (self.request.events or ([] if self.request.event is None else [self.request.event]))
        ]
        if not events:
            raise NonRetriableError("the call has no event")
        if function.is_async:
            self.context = Context(self, events[0], events)
            call: Callable[[], Awaitable[Any]] = partial(function.fn, self.context)
        else:
            self.context = SyncContext(self, events[0], events)
            self.bridge = Bridge(self.loop)
            current_run.set(None)  # its steps come through the bridge; no task of theirs is the function's
            call = partial(self.place.function_threads.run, function.fn, self.context)
        for wrapper in reversed(self.fn.wrappers):
            call = partial(wrapper.around_function, self.context, call)
        return await call()

    async def _join(self) -> None:
        """Bodies in progress when the function ends are let finish, so that their work is reported."""
        bodies = self.bodies - {self.root}
        if bodies:
            await asyncio.wait(bodies)

    async def _drop_tasks(self) -> None:
        rest = [task for task in {*self.tasks, *self.in_step, self.root} if not task.done()]
        for task in rest:
            task.cancel()
        if rest and not (self.bridge is not None and self.bridge.held):
            await asyncio.wait(rest)

    # -- how it ends ---------------------------------------------------------------------------------------------------

    def _conclude(self, answer: Written) -> None:
        if not self._concluded.done():
            self._concluded.set_result(answer)

    def _returned(self, result: Any, *, unwound: bool) -> Written:
        if unwound:
            return self._swallowed("it returned")
        if self._answer is not None:
            return self._answer
        if result is None:
            return answers.finished(b"null")
        try:
            output, _ = self.fn.codec.encode(result, f"result of function {self.fn.function.id!r}")
        except NonRetriableError as error:
            return self._failed(error)
        if len(output) > MAX_STEP_OUTPUT_BYTES:
            return self._failed(
                NonRetriableError(
                    f"the return value of {self.fn.function.id!r} is {len(output)} bytes of JSON, {MAX_STEP_OUTPUT_BYTES} are allowed"
                )
            )
        return answers.finished(output)

    def _raised(self, error: BaseException, *, unwound: bool) -> Written:
        if unwound and self._answer is not None and _consists_of(error, Suspended, asyncio.CancelledError):
            return self._answer
        if _consists_of(error, Suspended):
            return self._swallowed("it raised Suspended by itself")
        if unwound:
            return self._swallowed(f"it raised {type(error).__name__}: {failures.message_of(error)}")
        if self._answer is not None:
            return self._answer  # a body that was in progress; the function's error comes again
        if isinstance(error, KeyboardInterrupt | SystemExit):
            error = NonRetriableError(f"the function raised {type(error).__name__}")
        return self._failed(error)

    def _swallowed(self, how: str) -> Written:
        return self._failed(
            StepUsageError(
                f"the function did not let Suspended pass ({how}): it is thrown in when a call ends, and code that catches "
                "BaseException, or raises or returns in a finally block, must let it through"
            )
        )

    def _failed(self, error: BaseException) -> Written:
        again, after = self._again(error, self.fn.function.options.backoff)
        self._report_failure("the function", error, final=not again)
        return answers.failed(reports.failure_of(error), no_retry=not again, retry_after=after)

    @property
    def _tries(self) -> int:
        """Failed tries, as the server counts them: anew once it has recorded a step."""
        return 0 if self.checkpoints is not None and self.checkpoints.recorded else self.attempt

    def _again(self, error: BaseException, policy: RetryPolicy) -> tuple[bool, int | None]:
        """See `reports.again`."""
        return reports.again(error, policy, self._tries, self.place.clock.now())

    def _report_failure(self, what: str, error: BaseException, *, final: bool) -> None:
        _log.log(
            logging.ERROR if final else logging.WARNING,
            "%s, run %s: %s, attempt %d, failed: %s: %s",
            self.function_slug,
            self.run_id,
            what,
            self._tries + 1,
            type(error).__name__,
            failures.message_of(error).partition("\n")[0][:300],
            extra={"run_id": self.run_id, "function_id": self.function_slug, "attempt": self.attempt},
        )

    # -- steps ---------------------------------------------------------------------------------------------------------

    def begin(self, call: StepCall[Any]) -> None:
        """See `StepDriver.begin`."""
        if self.unwinding:
            raise Suspended
        inside = current_step.get()
        if inside is not None:
            raise StepUsageError(
                f"step {call.id!r} was called inside the body of step {inside!r}: a body is one unit of work; call steps from the function"
            )
        self.keys.begin(call)

    def perform(self, call: StepCall[Any]) -> Coroutine[Any, Any, Any]:
        """See `StepDriver.perform`."""
        return self._perform(call)

    def perform_sync(self, call: StepCall[Any]) -> Any:
        """See `StepDriver.perform_sync`."""
        assert self.bridge is not None
        return self.bridge.perform(self._perform(call))

    async def _perform(self, call: StepCall[Any]) -> Any:
        if self.unwinding:
            raise Suspended
        task = asyncio.current_task()
        assert task is not None
        self.in_step[task] = call.key
        try:
            result = await (self._race(call) if isinstance(call, RaceCall) else self._step(call, task))
        finally:
            self.in_step.pop(task, None)
            self.check()
        self.keys.finish(call)
        return result

    async def _race(self, call: RaceCall) -> int:
        """The first to finish. Memos are released in the order of their finishing, so it is the same on every call."""
        if not call.tasks:
            raise StepUsageError(f"race {call.id!r} needs at least one step")
        self._racing.update(call.tasks)
        await asyncio.wait(call.tasks, return_when=asyncio.FIRST_COMPLETED)
        if self.unwinding:
            raise Suspended
        self._racing.difference_update(call.tasks)
        return next(index for index, task in enumerate(call.tasks) if task.done())

    async def _step(self, call: StepCall[Any], task: asyncio.Task[Any]) -> Any:
        step = reports.hash_of(call)
        raw = self.memos.get(step)
        memo = None if raw is None else memo_of(call, raw)
        if memo is not None:
            self.unreached.discard(step)
            if memo.input is None:
                await self.turn(step)
                return value_of(call, memo, self.place.callables)
        reports.check(call)
        body = None
        if isinstance(call, reports.EXECUTABLE):
            body = Body(self.place, self.fn, call, memo, self.run_id, self.context, self.bridge)
        found = self.found[step] = Found(call, body, task)
        try:
            if step == self.target:
                self._aim(found)
            elif self.multi:
                self.check()
            else:
                self.decide()
            await found.go
            return await self._execute_body(found)
        finally:
            self.found.pop(step, None)

    def _aim(self, found: Found) -> None:
        """The step that this call is for."""
        if found.body is None:
            self._end([reports.planned(found.call, race=self._is_racing(found))])
        else:
            found.go.set_result(None)

    async def _execute_body(self, found: Found) -> Any:
        call, body, task = found.call, found.body, found.task
        assert body is not None
        assert task is not None
        self.bodies.add(task)
        try:
            data = await body.execute()
        except Exception as error:
            self._body_failed(found, error)
        else:
            if not self.unwinding and await self._report(reports.done(call, data, race=self._is_racing(found))):
                return value_of(call, wrapped_memo(msgspec.Raw(b'{"data":' + data + b"}")), self.place.callables)
        finally:
            self.bodies.discard(task)
        if not self._is_root(task) and not self.over:
            await self.loop.create_future()  # until the function's end cancels it
        raise Suspended

    async def _report(self, opcode: Opcode) -> bool:
        """A step has been executed: end the call with it, unless checkpoints let the function go on."""
        if self.checkpoints is None or self.over:
            self._end([opcode])
            return False
        verdict = await self.checkpoints.add(opcode)
        if verdict is Verdict.GO_ON:
            return not self.unwinding
        self._end([DISCOVER] if verdict is Verdict.STOP and await self.checkpoints.flush() else [])
        return False

    def _is_root(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a task is the function's own, or for a plain `def` one of its bridge."""
        return task is self.root or self.bridge is not None

    def _body_failed(self, found: Found, error: Exception) -> None:
        if self.unwinding:
            return
        call = found.call
        options = self.fn.function.options
        most = self.request.ctx.max_attempts
        retries = options.retries if most is None else most - 1
        backoff = options.backoff
        if isinstance(call, RunCall):
            retries = retries if call.options.retries is None else call.options.retries
            backoff = call.options.policy(backoff)
        again, after = self._again(error, backoff)
        final = not again or self._tries >= retries
        self._report_failure(f"step {call.key!r}", error, final=final)
        opcode = reports.failed(call, error, final=final, race=self._is_racing(found))
        self._end([opcode], retry_after=None if final else after)

    def _is_racing(self, found: Found) -> bool:
        return found.task in self._racing

    # -- deciding ------------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """All tasks wait: execute the one step there is to execute, or plan what there is."""
        found = list(self.found.values())
        if self.target is not None:
            done = self.target in self.memos and self.target not in self.unreached
            self._end([]) if done else self._lost()
        elif len(found) == 1 and found[0].body is not None and not self.request.ctx.disable_immediate_execution:
            found[0].go.set_result(None)
        else:
            self._end([reports.planned(one.call, race=self._is_racing(one)) for one in found])

    def _lost(self) -> None:
        failure = StepFailure("StepNotFoundError", _GONE, data={"step": self.target})
        self._unwind(answers.failed(failure))

    def _end(self, opcodes: list[Opcode], *, retry_after: int | None = None) -> None:
        self._opcodes = opcodes
        self._unwind(answers.operations(opcodes, retry_after=retry_after))

    def _unwind(self, answer: Written) -> None:
        """This is the answer; the function ends where it waits.

        Suspended is thrown in where the function itself waits for a step. Where it waits for tasks of its own it is
        cancelled, and they with it: what a task raises is the function's to read (`gather(return_exceptions=True)`).
        """
        self._answer = answer
        self.unwinding = True
        waiting = [found for found in self.found.values() if self._is_root(found.task)]
        for found in waiting:
            if not found.go.done():
                found.go.set_exception(Suspended())
        if not waiting and not self.over:
            self.root.cancel()
        if self.bridge is not None and self.bridge.held:
            self._conclude(answer)  # a body that ran out of time still holds the function's thread


def _consists_of(error: BaseException, *kinds: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_consists_of(inner, *kinds) for inner in error.exceptions)
    return isinstance(error, kinds)


def call_failed(name: str, message: str, code: str, *, status: int = 500, no_retry: bool = False) -> Written:
    """The answer to a call that never came to its function."""
    return answers.failed(StepFailure(name, message, code=code), status=status, no_retry=no_retry)
