"""`POST /v0/gql`: questions and changes by GraphQL."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import msgspec
from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    execute,
    get_operation_ast,
    parse,
    validate,
)
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import HoldfastError
from holdfast.server.errors import ApiError, ErrorBody
from holdfast.server.gql.mutation import Mutation
from holdfast.server.gql.objects import MAX_FIELDS, Asked
from holdfast.server.gql.query import Query
from holdfast.server.gql.schema import schema
from holdfast.server.operation import Answer, Api, Operation, json_response

_log = logging.getLogger("holdfast.server")
MAX_TOKENS = 5_000
"""Words and signs of a document."""
MAX_DEPTH = 16
"""Enough for the schema's own description, which nests deepest."""


class GraphQLRequest(msgspec.Struct, frozen=True, rename="camel"):
    """A question."""

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


class GraphQLResult(msgspec.Struct, frozen=True):
    """An answer, or what was wrong; both where a part could not be answered."""

    data: dict[str, Any] | None = None
    errors: list[dict[str, Any]] | None = None


async def ask(api: Api, request: Request) -> Response:
    """Answer a document."""
    try:
        asked = msgspec.json.decode(await request.body(), type=GraphQLRequest)
    except msgspec.MsgspecError as error:
        raise ApiError(400, f"the body must be JSON with `query`, and `variables` where it has some: {error}") from error

    async def audit(action: str, target: str, detail: str = "") -> None:
        await api.audit(request, action, target, detail)

    result = await _answer(asked, Asked(api, audit))
    body: dict[str, Any] = {"data": result.data}
    if result.errors:
        body["errors"] = [_formatted(error) for error in result.errors]
    return json_response(body)


async def _answer(asked: GraphQLRequest, context: Asked) -> ExecutionResult:
    try:
        document = parse(asked.query, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        return ExecutionResult(None, [error])
    problems = validate(schema(), document, max_errors=10) or too_deep(document)
    if problems:
        return ExecutionResult(None, problems)
    result = await _execute(document, asked, context)
    if context.exhausted:
        # every field that came too late has an error of its own: one says it all
        return ExecutionResult(None, [GraphQLError(f"the answer has more than {MAX_FIELDS:,} fields; ask for less at once")])
    return result


def too_deep(document: DocumentNode) -> list[GraphQLError]:
    """An error if fields are nested deeper than any tool nests them: objects refer to each other in circles."""
    fragments = {one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)}

    def depth(selections: SelectionSetNode | None) -> int:
        deepest = 0
        for one in selections.selections if selections is not None else ():
            if isinstance(one, FieldNode):
                deepest = max(deepest, 1 + depth(one.selection_set))
            elif isinstance(one, InlineFragmentNode):
                deepest = max(deepest, depth(one.selection_set))
            elif isinstance(one, FragmentSpreadNode):
                deepest = max(deepest, depth(fragments[one.name.value].selection_set))
        return deepest

    operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
    if all(depth(one.selection_set) <= MAX_DEPTH for one in operations):
        return []
    return [GraphQLError(f"fields are nested more than {MAX_DEPTH} deep")]


async def _execute(document: DocumentNode, asked: GraphQLRequest, context: Asked) -> ExecutionResult:
    operation = get_operation_ast(document, asked.operation_name)
    changes = operation is not None and operation.operation is OperationType.MUTATION
    result = execute(
        schema(), document, Mutation() if changes else Query(), context, asked.variables, asked.operation_name
    )
    return await result if inspect.isawaitable(result) else result


def _formatted(error: GraphQLError) -> dict[str, Any]:
    """An error for the client; what is holdfast's own fault is in its log."""
    cause = error.original_error
    formatted: dict[str, Any] = {**error.formatted}
    if cause is not None and not isinstance(cause, HoldfastError | GraphQLError):
        _log.error("a GraphQL field failed: %s", error, exc_info=cause)
        formatted["message"] = "holdfast failed to answer this; its log says why"
    return formatted


OPERATIONS = (
    Operation(
        method="POST",
        path="/v0/gql",
        id="graphql",
        group="Server",
        handler=ask,
        summary="Ask by GraphQL",
        description=(
            "The part of the Inngest server's schema that the official SDKs' tools use. Lists look at the newest "
            "10,000 runs or events, expressions over contents at the newest 1,000 runs of them."
        ),
        body={
            "type": "object",
            "required": ["query"],
            "properties": {
                "query": {"type": "string"},
                "variables": {"type": "object"},
                "operationName": {"type": "string"},
            },
        },
        example={"query": "{ functions { id name } }"},
        answers={
            200: Answer("The data asked for; `errors` says what could not be answered.", GraphQLResult, envelope=False),
            400: Answer("The body is not JSON with a query.", ErrorBody, envelope=False),
        },
    ),
)
