"""Where a run stands that is executed by calling an application: which steps are under way, and when to call again. Pure.

A run has one item for calls that find out what is next (discovery, the run's id), and one for each step that is executed or timed
by itself (the run's id and the step's hash). Finishing a step calls for a discovery, once for all that were under way together, or
for each where the function races them (protocol section 2.4).
"""

from __future__ import annotations

import msgspec

from holdfast.core.plan import Tx
from holdfast.core.queue import Goings, set_going
from holdfast.core.rows import ItemRow, ItemState, RunRow

replace = msgspec.structs.replace

COALESCING_VERSION = 2
"""The request version from which on steps that are under way together are followed by one discovery."""


class Progress(msgspec.Struct, omit_defaults=True):
    """What is kept of a run between calls."""

    version: int = -1
    """The request version that the SDK said it speaks; -1 before its first answer."""
    planning: bool = False
    """Whether steps are to be planned only, as others are under way beside them."""
    pending: list[str] = []
    """Steps under way, by hash."""
    racing: list[str] = []
    """Those among them whose end is told at once."""
    groups: list[list[str]] = []
    """The others, as they were begun together: the end of the last of a group is told."""
    owed: int = 0
    """Discoveries that were called for while one was under way."""
    attached: bool = False
    """Whether the request that began the run of a durable endpoint is still being answered, and executes it."""
    secret: str = ""
    """Of a durable endpoint's run: what tokens for its output are signed with."""


NEW_REMOTE = msgspec.json.encode(Progress()).decode()


def progress_of(run: RunRow) -> Progress:
    """Where a run stands."""
    return msgspec.json.decode(run.remote or b"{}", type=Progress)


def keep(run: RunRow, progress: Progress) -> RunRow:
    """The run's row with this progress."""
    return replace(run, remote=msgspec.json.encode(progress).decode())


def step_item(run_id: bytes, key: str) -> bytes:
    """The id of the item of one step."""
    return run_id + bytes.fromhex(key)


def step_of_item(item_id: bytes) -> str:
    """The step that an item is for; "" for a run's own."""
    return item_id[16:].hex()


def step_settled(tx: Tx, run: RunRow, item: ItemRow | None, key: str, out: Goings) -> None:
    """A step that was under way has its result, or its time has run out: call again if nothing else is waited for."""
    tx.delete(ItemRow, step_item(run.id, key))
    progress = progress_of(run)
    told = key in progress.racing or progress.version < COALESCING_VERSION or [key] in progress.groups
    progress.groups = [rest for group in progress.groups if (rest := [other for other in group if other != key])]
    progress.pending = [other for other in progress.pending if other != key]
    progress.racing = [other for other in progress.racing if other != key]
    if not progress.pending and progress.version >= COALESCING_VERSION:
        progress.planning = False
    run = keep(run, progress)
    tx.put(run)
    if item is not None and (told or not progress.pending):
        discover(tx, run, item, out)


def discover(tx: Tx, run: RunRow, item: ItemRow, out: Goings) -> None:
    """Call for a discovery: now, or after the one that is under way."""
    if item.state == ItemState.PARKED:
        set_going(tx, run, replace(item, attempt=0, due=0, rank=tx.now - run.priority * 1000), out)
    elif item.state == ItemState.LEASED:
        progress = progress_of(run)
        progress.owed = progress.owed + 1 if progress.racing or progress.version < COALESCING_VERSION else 1
        tx.put(keep(run, progress))
