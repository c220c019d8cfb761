"""Code around functions, steps and sends: tracing, context, encryption, metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.sdk.sender import Outgoing, Sent


class Middleware:
    """Subclass it, override what you need, and pass instances as `middleware=[...]` to App or `@app.function`.

    Each method wraps the next one: do something, `await call()`, do something else. An app's middleware is outside a
    function's, and the first of a list is outermost.
    """

    async def around_function(self, ctx: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        """Around each execution of a function, replays included.

        Args:
            ctx: The function's Context.
            call: Runs the rest; returns what the function returns.
        """
        return await call()

    async def around_step(self, ctx: Any, step_id: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Around each attempt of a step's body; not around recorded steps. The value returned is the one recorded."""
        return await call()

    async def around_send(
        self, events: list[Outgoing], call: Callable[[list[Outgoing]], Awaitable[list[Sent]]]
    ) -> list[Sent]:
        """Around each send of this app; pass changed events to `call` to change what is sent."""
        return await call(events)


def overrides(middleware: Middleware, method: str) -> bool:
    """Whether a middleware does anything there: what nobody wraps costs nothing."""
    return getattr(type(middleware), method) is not getattr(Middleware, method)
