"""REST for the nodes that share a database."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.clock import iso
from holdfast.engine.nodes import nodes_of
from holdfast.server.operation import Answer, Api, Operation
from holdfast.store.reads import NodeView


class Node(Struct, frozen=True, kw_only=True):
    """A process that executes functions on this database."""

    number: Annotated[int, Meta(description="Under which it leases. A node that comes back has another one.")]
    name: str
    host: str
    pid: int
    version: Annotated[str, Meta(description="Of holdfast; empty for one too old to say.")]
    state: Annotated[str, Meta(description="alive, silent (its lease has run out), stopped, or dead (declared so by others).")]
    leads: Annotated[bool, Meta(description="Whether the duties that are needed once are its.")]
    here: Annotated[bool, Meta(description="Whether it is the node that answers.")]
    started_at: str | None
    seen_at: Annotated[str | None, Meta(description="When it last renewed its lease.")]
    ended_at: Annotated[str | None, Meta(description="When it stopped, or was declared dead.")]
    in_flight: Annotated[int, Meta(description="Runs it executed when it was last seen.")]
    capacity: Annotated[int, Meta(description="Runs it has room for in all.")]


async def list_nodes(api: Api, _request: Request) -> Response:
    return api.answer([_node(view) for view in await nodes_of(api.engine)])


def _node(view: NodeView) -> Node:
    return Node(
        number=view.number,
        name=view.name,
        host=view.host,
        pid=view.pid,
        version=view.version,
        state=view.state,
        leads=view.leads,
        here=view.here,
        started_at=iso(view.started_at),
        seen_at=iso(view.seen_at),
        ended_at=iso(view.ended_at),
        in_flight=view.in_flight,
        capacity=view.capacity,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/nodes",
        id="listNodes",
        group="Server",
        handler=list_nodes,
        summary="List the nodes on this database",
        description="Those alive first, then those that ended within a day; on SQLite there is one.",
        answers={200: Answer("Nodes.", list[Node])},
    ),
)
