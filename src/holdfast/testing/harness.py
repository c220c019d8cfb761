"""The harness: the way into the test kit, for tests that are async and for tests that aren't."""

from __future__ import annotations

from types import TracebackType

from holdfast.testing.async_harness import AsyncHarness
from holdfast.testing.blocking import BlockingHarness


class Harness(AsyncHarness):
    """Apps running in memory on a virtual clock, for as long as the block lasts.

    ```python
    async with Harness(app) as h:
        run = await h.run(fulfil, OrderPaid(order_id="o1", amount=5))
        assert run.output == "never shipped"
    ```

    Nothing but the clock is different from production: the same engine, the same store (its file is kept in memory and
    isn't synced). Time stands still until the test lets it pass, with `run`, `finish`, `settle` or `advance`; each call
    returns when everything that can happen has happened. In a test that isn't async, `with Harness(app) as h:` gives the
    same methods without `await`.

    Args:
        *apps: The apps to run; events go to all of them.
        start: The first moment: a datetime (naive is UTC) or milliseconds since 1970. Default: now.
        schedules: Whether cron schedules fire as time passes.
        linger: How long a waiting run stays in memory. With 0 each sleep and wait is replayed, so that code which isn't
            deterministic shows.
        patience: Seconds of real time after which something that keeps moving fails the test.
        databases: The application's own databases, in whose transactions it sends, beside those the apps name.
    """

    _blocking: BlockingHarness | None = None

    def __enter__(self) -> BlockingHarness:
        self._blocking = BlockingHarness(self)
        self._blocking.open()
        return self._blocking

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._blocking is not None:
            self._blocking.close(kind, error, trace)
