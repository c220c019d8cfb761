"""Processes of this host that execute the functions of the node's own apps, so that they use more than one core.

A worker is called like an application over HTTP, by the same messages, and the node decides, records and is asked about runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from holdfast.engine.functions import Registered
from holdfast.engine.remote_functions import RemoteFunction
from holdfast.wire.answers import Answer, Outcome
from holdfast.wire.opcodes import StepFailure


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


def poisoned(deaths: int) -> Answer:
    """What becomes of a run that takes its worker with it each time."""
    failure = StepFailure(
        "ProcessDiedError",
        f"{deaths} worker processes died one after the other while they executed this run, without a step being recorded",
        no_retry=True,
    )
    return Answer(Outcome.FAILED, error=failure, no_retry=True)
