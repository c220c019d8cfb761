"""The audit log: who changed what, when and from where."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.clock import iso
from holdfast.server.operation import Answer, Api, Operation, limit_param, read_limit
from holdfast.server.shapes import AuditEntry

_DEFAULT, _LARGEST = 100, 1000


async def list_audit(api: Api, request: Request) -> Response:
    entries = await api.reader.audit(limit=read_limit(request, _DEFAULT, _LARGEST))
    return api.answer(
        [AuditEntry(iso(one.at) or "", one.actor, one.action, one.target, one.detail, one.origin) for one in entries]
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/audit",
        id="listAudit",
        group="Server",
        handler=list_audit,
        summary="List what was changed, by whom and from where",
        description="The latest first. Entries are only ever added: the database refuses to change or remove one.",
        params=(limit_param(_DEFAULT, _LARGEST),),
        answers={200: Answer("Entries.", list[AuditEntry])},
    ),
)
