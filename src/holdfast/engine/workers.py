"""Processes of this host that execute the functions of the node's own apps, so that they use more than one core.

A worker is called like an application over HTTP, by the same messages, and the node decides, records and is asked about runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from holdfast.base.ids import ulid_text
from holdfast.core.rows import StepState
from holdfast.engine.calling import call_body, call_headers
from holdfast.engine.functions import Registered
from holdfast.engine.host import Host
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.engine.remote_run import RemoteRun
from holdfast.wire.answers import Answer, Outcome, read
from holdfast.wire.opcodes import StepFailure

_log = logging.getLogger("holdfast")
MAX_DEATHS = 5
"""How often a run may take a worker process down, without a step being recorded, before it fails for good."""


class WorkerDied(Exception):  # noqa: N818 - what is told of another process
    """The worker that executed a call has ended before it answered."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"worker process {pid} died")
        self.pid = pid


class Workers(Protocol):
    """Whoever executes calls."""

    take_new: bool
    """Whether runs that begin now are executed by them; else only those that began so before."""

    async def execute(
        self, app: str, slug: str, target: str, headers: Mapping[str, str], body: bytes, *, suspect: bool = False
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer to a call (protocol section 2.1).

        A `suspect` may be what workers have died of: no two are given to one worker.

        Raises:
            WorkerDied: it was not answered.
        """
        ...


def worker_function(fn: Registered) -> RemoteFunction:
    """A function of the node's own as it is called."""
    document = fn.function.config()
    retries = document.pop("retries")
    runtime = {"type": "http", "url": f"worker:{fn.app.id}"}
    document["steps"] = {"step": {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": retries}}}
    return RemoteFunction(fn.id, fn.version, fn.app.id, document)


async def call_worker(host: Host, workers: Workers, remote: RemoteRun) -> Answer:
    """Have a worker move a run forward; when it dies, another one, without the run losing an attempt.

    A run in whose company workers have died twice is a suspect: it shares its worker with no other suspect, so that one that
    kills workers is found out, and condemns only itself. Recording a step clears it.
    """
    deaths, known = 0, len(remote.steps)
    while True:
        remote.given = frozenset(step.key for step in remote.steps if step.state != StepState.PENDING)
        body = call_body(remote)
        headers = call_headers(host, remote, body, signing_key=None, kind="dev")
        fn = remote.fn
        try:
            status, got, content = await workers.execute(
                fn.app, fn.slug, remote.target, headers, body, suspect=deaths > 1
            )
        except WorkerDied as died:
            deaths = 1 if len(remote.steps) > known else deaths + 1
            known = len(remote.steps)
            run_id = ulid_text(remote.run.id)
            _log.warning("worker process %d died while it executed run %s; another one goes on", died.pid, run_id)
            if deaths > MAX_DEATHS:
                return _poisoned(deaths)
        else:
            return read(status, got, content, host.clock.now())


def _poisoned(deaths: int) -> Answer:
    """What becomes of a run that takes its worker with it each time."""
    failure = StepFailure(
        "ProcessDiedError",
        f"{deaths} worker processes died one after the other while they executed this run, without a step being recorded",
        no_retry=True,
    )
    return Answer(Outcome.FAILED, error=failure, no_retry=True)
