"""All relays of one process, as the engine and the apps see them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence

from holdfast.base.clock import Clock
from holdfast.base.errors import ConfigurationError, HoldfastError
from holdfast.base.ids import step_hash, ulid_bytes
from holdfast.core.plan import Read
from holdfast.core.rows import RunRow, StepRow, StepState
from holdfast.engine.host import Host
from holdfast.engine.outboxes import DatabaseOutbox, Delivery, LocalDelivery, StoreOutbox
from holdfast.engine.relay import Relay
from holdfast.sdk.app import App
from holdfast.sdk.databases import Database
from holdfast.store.sqlite.connection import database_path
from holdfast.store.urls import is_postgres, schema_of

_log = logging.getLogger("holdfast")
_STEPS_AT_ONCE = 500


class Relays:
    """Looks into the outboxes of some databases.

    Args:
        clock: By which it waits.
        databases: The databases.
        delivery: Where their events go.
        every_ms: How often each is looked into when nobody says that there is something.
        schema: See `sdk.transactional.Relaying`.
    """

    def __init__(
        self,
        clock: Clock,
        databases: Iterable[Database],
        delivery: Delivery,
        every_ms: int,
        *,
        schema: str | None = None,
    ) -> None:
        self.clock = clock
        self.schema = schema
        self._outboxes = [DatabaseOutbox(database, delivery) for database in dict.fromkeys(databases)]
        self._relays = [Relay(outbox, clock, every_ms) for outbox in self._outboxes]
        self._store: Relay | None = None
        self._loop: asyncio.AbstractEventLoop

    @classmethod
    def of_node(cls, host: Host, databases: Iterable[Database], every_ms: int) -> Relays:
        """Those of a node, its store's own outbox among them."""
        relays = cls(host.clock, databases, LocalDelivery(host), every_ms, schema=schema_of(host.store.url))
        shared = host.store.shared
        if shared is not None:
            relays._store = Relay(StoreOutbox(host, shared), host.clock, every_ms)
            relays._relays.append(relays._store)
        return relays

    # -- life ----------------------------------------------------------------------------------------------------------

    def check(self, store_url: str) -> None:
        """Refuse databases that can't be the application's.

        Raises:
            ConfigurationError: one is the store itself.
        """
        for outbox in self._outboxes:
            _refuse_own_file(outbox.database, store_url)

    async def start(self, apps: Iterable[App]) -> None:
        """Make what is missing in the databases, and begin; the apps' sends are heard of from now on."""
        self._loop = asyncio.get_running_loop()
        for outbox in self._outboxes:
            await outbox.prepare()
        for relay in self._relays:
            relay.start()
        for app in apps:
            app.transactional.attach(self)

    def kill(self, apps: Iterable[App]) -> None:
        """Look no more."""
        for app in apps:
            app.transactional.detach(self)
        for relay in self._relays:
            relay.kill()

    async def stop(self, apps: Iterable[App]) -> None:
        """Look no more, and close the databases once the last look is over."""
        self.kill(apps)
        for relay in self._relays:
            await relay.stop()

    @property
    def looking(self) -> bool:
        """Whether something is being brought, or looked for, at this moment."""
        return any(relay.looking for relay in self._relays)

    # -- what there is to look for ---------------------------------------------------------------------------------------

    def expect(self, events: Sequence[bytes]) -> None:
        """See `Relaying.expect`."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._expect(events)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the next start looks anyway
                self._loop.call_soon_threadsafe(self._expect, events)

    def _expect(self, events: Sequence[bytes]) -> None:
        for relay in self._relays:
            relay.expect(events)

    def store_changed(self) -> None:
        """Something was committed to the store's own outbox."""
        if self._store is not None:
            self._store.look_soon()

    async def flush(self) -> int:
        """Bring everything that is committed now; how many events that was. For those who let time pass in tests."""
        # nobody but this process sends through the store of a test, so that it is asked only when there is something
        relays = [relay for relay in self._relays if relay is not self._store or relay.expects_something]
        return sum([await relay.flush() for relay in relays])

    # -- steps that are marked as done -----------------------------------------------------------------------------------

    async def forget_steps(self, host: Host, keep_ms: int) -> None:
        """Delete marks that are old, and whose steps are on record or whose runs have ended.

        A mark is of use from its commit until the step is on record. It stays far longer, as some process may have been
        stopped in the middle of the step, to go on some day.
        """
        for outbox in self._outboxes:
            try:
                old = await outbox.old_steps(self.clock.now() - keep_ms, _STEPS_AT_ONCE)
                if old:
                    await outbox.forget_steps(await _settled(host, old))
            except HoldfastError as error:
                _log.warning("marks of steps in %s were not looked through: %s", outbox.shown, error)


async def _settled(host: Host, steps: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    asked: dict[tuple[str, str], bytes] = {}
    for run_id, step in steps:
        with contextlib.suppress(ValueError):  # not one of ours
            asked[run_id, step] = ulid_bytes(run_id)
    reads: list[Read] = [(RunRow, run_id) for run_id in dict.fromkeys(asked.values())]
    # steps that an SDK has reported go by their hash
    reads += [(StepRow, (run_id, key)) for (_, step), run_id in asked.items() for key in (step, step_hash(step))]
    rows = await host.store.read(reads)

    def settled(step: str, run_id: bytes) -> bool:
        run = rows.get(RunRow, run_id)
        if run is None or run.ended_at is not None:
            return True
        recorded = rows.get(StepRow, (run_id, step)) or rows.get(StepRow, (run_id, step_hash(step)))
        return recorded is not None and recorded.state != StepState.PENDING

    return [key for key, run_id in asked.items() if settled(key[1], run_id)]


def _refuse_own_file(database: Database, store_url: str) -> None:
    path = database.address.path
    if path is None or is_postgres(store_url):
        return
    own = database_path(store_url)
    if own is not None and own.resolve() == path.resolve():
        raise ConfigurationError(
            f"{database.url} is holdfast's own file; a database of the application's is another one: give one of them "
            "another path"
        )
