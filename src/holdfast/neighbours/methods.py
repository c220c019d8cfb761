"""What one process may ask of the one that owns the store: everything that an app offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from holdfast.sdk.sender import BulkInfo, Control, Edit, Outgoing, RunInfo, Sent


class Method(NamedTuple):
    """A call: its arguments, its answer, and how the owner comes by it."""

    args: Any
    """The type of the tuple of its arguments."""
    answer: Any
    call: Callable[..., Awaitable[Any]]
    """Called with the owner's `Control` and the arguments."""
    repeatable: bool = True
    """Whether asking a second time, after an answer was lost, does nothing more than asking once."""
    while_stopping: bool = False
    """Whether it is answered by an owner that is stopping, which needs it to finish."""


async def _list_runs(control: Control, where: dict[str, Any]) -> list[RunInfo]:
    return [run async for run in control.list_runs(**where)]


METHODS: dict[str, Method] = {
    # a send and a start have ids that were fixed before they were asked for
    "send": Method(tuple[list[Outgoing]], list[Sent], lambda control, events: control.send(events)),
    "start": Method(tuple[str, Outgoing], str, lambda control, slug, event: control.start(slug, event)),
    "send_signal": Method(
        tuple[str, bytes], str | None, lambda control, name, data: control.send_signal(name, data), repeatable=False
    ),
    "result": Method(tuple[str, None], bytes, lambda control, run_id, timeout: control.result(run_id, timeout)),
    "run_info": Method(tuple[str], RunInfo, lambda control, run_id: control.run_info(run_id)),
    "list_runs": Method(tuple[dict[str, Any]], list[RunInfo], _list_runs),
    "cancel": Method(tuple[str], bool, lambda control, run_id: control.cancel(run_id)),
    "rerun": Method(
        tuple[str, Edit | None], str, lambda control, run_id, edit: control.rerun(run_id, edit), repeatable=False
    ),
    "redrive": Method(tuple[str, Edit | None], str, lambda control, run_id, edit: control.redrive(run_id, edit)),
    "bulk": Method(
        tuple[str, dict[str, Any], str | None],
        str,
        lambda control, action, where, rate: control.bulk(action, where, rate=rate),
        repeatable=False,
    ),
    "bulk_info": Method(tuple[str], BulkInfo, lambda control, bulk_id: control.bulk_info(bulk_id)),
    "cancel_bulk": Method(tuple[str], bool, lambda control, bulk_id: control.cancel_bulk(bulk_id)),
    "pause": Method(tuple[str, str], None, lambda control, slug, mode: control.flow_control.pause(slug, mode)),
    "resume": Method(tuple[str], None, lambda control, slug: control.flow_control.resume(slug)),
    "set_limit": Method(
        tuple[str, str, int | None],
        None,
        lambda control, slug, rule, limit: control.flow_control.set_limit(slug, rule, limit),
    ),
    "flush": Method(tuple[str, str | None], int, lambda control, slug, key: control.flow_control.flush(slug, key)),
}
