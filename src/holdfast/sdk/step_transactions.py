"""`step.transaction`: a step whose effect is in a database of the application's, and whose mark commits with it.

The mark (run id, step, result) is inserted before the body runs. Its primary key makes all others wait who would do the
same step, a process that was taken for dead among them: they find it, and give its result instead of doing it again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from holdfast.base.clock import SystemClock
from holdfast.base.errors import ConfigurationError, NotSerializableError
from holdfast.base.limits import MAX_STEP_OUTPUT_BYTES
from holdfast.sdk.callables import Callee
from holdfast.sdk.calls import RunCall, StepDriver, StepOptions
from holdfast.sdk.databases import Database
from holdfast.store.userdb.asking import Kept, claim_step, keep_step, missing_steps
from holdfast.store.userdb.callers import Caller, ask, ask_async, recognise
from holdfast.store.userdb.transactions import transaction, transaction_async

TransactionSource: TypeAlias = Any
"""What transactions are made with: a `holdfast.Database`; SQLAlchemy's `sessionmaker`, `async_sessionmaker`, `Engine` or
`AsyncEngine`; a psycopg connection pool; or the alias of a Django database."""


class TransactionBody:
    """The body of such a step, for whatever executes steps: called with the arguments after the connection.

    Args:
        run_id: The run's id.
        source: What transactions are made with.
        fn: The user's function.
    """

    def __init__(self, run_id: str, source: TransactionSource, fn: Callable[..., Any]) -> None:
        self.func = fn
        """Where those who execute steps look for what kind of function it is, and what it returns."""
        self._run_id = run_id
        self._source = source
        self._address = source.address if isinstance(source, Database) else None
        self._callee = Callee(fn)
        self.key = ""
        """The step's key, once it is fixed."""
        self.__signature__ = _without_first(fn)

    @property
    def __name__(self) -> str:
        return getattr(self.func, "__name__", type(self.func).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The step's result; to be awaited where the user's function is async."""
        return self._run_async(args, kwargs) if self._callee.is_async else self._run(args, kwargs)

    async def _run_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        async with transaction_async(self._source, self._address) as connection:
            caller = recognise(connection)
            try:
                known = await ask_async(caller, claim_step(self._run_id, self.key, _now()))
            except Exception as error:
                raise _explained(error, caller) from error
            if known is not None:
                return self._again(known)
            value = await self.func(connection, *args, **kwargs)
            await ask_async(caller, keep_step(self._run_id, self.key, *self._written(value)))
            return value

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with transaction(self._source, self._address) as connection:
            caller = recognise(connection)
            try:
                known = ask(caller, claim_step(self._run_id, self.key, _now()))
            except Exception as error:
                raise _explained(error, caller) from error
            if known is not None:
                return self._again(known)
            value = self.func(connection, *args, **kwargs)
            ask(caller, keep_step(self._run_id, self.key, *self._written(value)))
            return value

    def _again(self, known: Kept) -> Any:
        return self._callee.codec.decode(known.data, known.type)

    def _written(self, value: Any) -> tuple[bytes, str | None]:
        data, kind = self._callee.codec.encode(value, f"step {self.key!r}")
        if len(data) > MAX_STEP_OUTPUT_BYTES:  # found out here, the effect is undone
            raise NotSerializableError(
                f"step {self.key!r} returned {len(data)} bytes of JSON, {MAX_STEP_OUTPUT_BYTES} are allowed; "
                "return a reference to what is in the database"
            )
        return data, kind


def transaction_call(
    driver: StepDriver, step_id: str, options: StepOptions, source: TransactionSource, fn: Callable[..., Any],
    args: tuple[Any, ...], kwargs: dict[str, Any],
) -> RunCall[Any]:  # fmt: skip
    """The call of such a step."""
    body = TransactionBody(driver.run_id, source, fn)
    call: RunCall[Any] = RunCall(driver, step_id, options, body, args, kwargs)
    body.key = call.key
    return call


def _explained(error: Exception, caller: Caller) -> Exception:
    return missing_steps(error, caller.dialect) or error


def _now() -> int:
    # the age of a mark is compared with that of others in the same database: a test's clock has nothing to do with it
    return SystemClock().now()


def _without_first(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of the function as the step is called, which is without the connection."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise ConfigurationError(
            f"{getattr(fn, '__name__', fn)!r} can't be the body of step.transaction: its first argument is the connection"
        )
    if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return signature
    return signature.replace(parameters=parameters[1:])
