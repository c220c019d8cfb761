"""What can be changed by GraphQL (protocol section 6)."""

from __future__ import annotations

from typing import Any

import msgspec
from graphql import GraphQLError

from holdfast.base.findings import Level
from holdfast.base.ids import name_uuid
from holdfast.sdk.sender import Edit, Outgoing
from holdfast.server.gql.objects import AppNode, Asked, RunNode
from holdfast.server.gql.query import app_named

_INVOKED = "inngest/function.invoked"


class Mutation:
    """The root of all changes. Each is kept in the audit log."""

    # -- applications --------------------------------------------------------------------------------------------------

    async def create_app(self, info: Any, input: dict[str, Any]) -> AppNode:  # noqa: A002 - the protocol's word
        return await _sync(info.context, input["url"])

    async def update_app(self, info: Any, input: dict[str, Any]) -> AppNode:  # noqa: A002 - the protocol's word
        return await _sync(info.context, input["url"])

    async def delete_app(self, info: Any, id: str) -> str:  # noqa: A002 - the protocol's word
        name = app_named(info.context, id)
        if name is None or not await _remove(info.context, name):
            raise GraphQLError(f"there is no application {id[:60]!r}")
        return id

    async def delete_app_by_name(self, info: Any, name: str) -> bool:
        return await _remove(info.context, name)

    # -- runs ----------------------------------------------------------------------------------------------------------

    async def cancel_run(self, info: Any, run_id: str) -> RunNode:
        asked: Asked = info.context
        if not await asked.api.engine.cancel(run_id):
            raise GraphQLError(f"run {run_id} has ended already")
        await asked.audit("run.cancel", run_id)
        view = await asked.reader.run_view(run_id)
        assert view is not None
        return RunNode(view)

    async def rerun(self, info: Any, run_id: str, from_step: dict[str, Any] | None = None) -> str:
        edit = None
        if from_step is not None:
            edit = Edit(from_step=from_step["step_id"], input=_input(from_step.get("input")))
        made: str = await info.context.api.engine.rerun(run_id, edit)
        await info.context.audit("run.rerun", run_id, made)
        return made

    async def invoke_function(
        self, info: Any, function_slug: str, data: Any = None, user: Any = None
    ) -> bool:
        asked: Asked = info.context
        if all(view.slug != function_slug for view in await asked.functions()):
            raise GraphQLError(f"there is no function {function_slug[:100]!r}")
        if data is not None and not isinstance(data, dict):
            raise GraphQLError("data must be an object")
        event = Outgoing(_INVOKED, msgspec.json.encode(data or {}), user=msgspec.json.encode(user) if user else None)
        _, made = await asked.api.engine.control.start_event(function_slug, event)
        await asked.audit("function.invoke", function_slug, made)
        return True


def _input(text: str | None) -> Any:
    """The arguments of a step, from JSON."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise GraphQLError(f"input must be JSON: {error}") from error


async def _sync(asked: Asked, url: str) -> AppNode:
    if not url.startswith(("http://", "https://")):
        raise GraphQLError(f"{url[:200]!r} is no address; write it as http://localhost:3000/api/inngest")
    finding = await asked.api.asker.sync(url)
    if finding.level is not Level.FINE:
        raise GraphQLError(finding.sentence)
    await asked.audit("app.sync", url)
    for name, record in asked.records().items():
        if record.url == url:
            return AppNode(name, record)
    raise GraphQLError(f"{url} answered, but registered no application with this server: is it told of another one?")


async def _remove(asked: Asked, name: str) -> bool:
    record = asked.records().get(name)
    if record is None or not await asked.api.engine.applications.remove(record.url):
        return False
    await asked.audit("app.remove", record.url, name_uuid(name))
    return True
