"""The OpenAPI 3.1 document, made from the table of operations and the structs it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args, get_origin

import msgspec

from holdfast.base.version import __version__
from holdfast.server.operation import Answer, Operation
from holdfast.server.shapes import Metadata

_REF = "#/components/schemas/{name}"


def openapi_document(operations: Sequence[Operation], *, server_url: str, keys: bool) -> dict[str, Any]:
    """The document.

    Args:
        operations: All of the API.
        server_url: Where it is served, relative to the document.
        keys: Whether the server asks for keys.
    """
    structs = _structs(operations)
    schemas, components = msgspec.json.schema_components([Metadata, *structs], ref_template=_REF)
    named = {**components}
    refs = dict(zip([Metadata, *structs], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, refs, keys=keys)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "holdfast",
            "version": __version__,
            "description": "Send events, read runs, steer them. An accepted event is on disk when the answer comes.",
        },
        "servers": [{"url": server_url or "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.group for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": named,
            "securitySchemes": {
                "signingKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The signing key, or the SHA-256 of its bytes. Not needed in development.",
                }
            },
        },
    }


def _structs(operations: Sequence[Operation]) -> list[type]:
    found: dict[type, None] = {}
    for operation in operations:
        for answer in operation.answers.values():
            struct = _struct(answer.body)
            if struct is not None:
                found[struct] = None
    return list(found)


def _struct(body: Any) -> type | None:
    inner = get_args(body)[0] if get_origin(body) is list else body
    return inner if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None


def _operation(operation: Operation, refs: dict[type, dict[str, Any]], *, keys: bool) -> dict[str, Any]:
    answers = {str(status): _answer(answer, refs) for status, answer in operation.answers.items()}
    if keys and not operation.public:
        answers.setdefault(
            "401",
            {
                "description": "The key is missing or not known.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
        )
    document: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.group],
        "responses": answers,
        "security": [{"signingKey": []}] if keys and not operation.public else [],
    }
    if operation.description:
        document["description"] = operation.description
    if operation.params:
        document["parameters"] = [
            {
                "name": p.name,
                "in": p.where,
                "required": p.where == "path",
                "description": p.description,
                "schema": dict(p.schema),
            }
            for p in operation.params
        ]
    if operation.body is not None:
        content: dict[str, Any] = {"schema": dict(operation.body)}
        if operation.example is not None:
            content["example"] = operation.example
        document["requestBody"] = {"required": operation.body_required, "content": {"application/json": content}}
    return document


def _answer(answer: Answer, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {"description": answer.description}
    schema = _schema(answer, refs)
    if schema is not None:
        document["content"] = {answer.media_type: {"schema": schema}}
    return document


def _schema(answer: Answer, refs: dict[type, dict[str, Any]]) -> dict[str, Any] | None:
    if answer.body is None:
        return {"type": "string"} if answer.media_type.startswith("text/") else None
    struct = _struct(answer.body)
    schema: dict[str, Any] = dict(refs[struct]) if struct is not None else {"type": "object"}
    if get_origin(answer.body) is list:
        schema = {"type": "array", "items": schema}
    if not answer.envelope:
        return schema
    return {
        "type": "object",
        "required": ["data", "metadata"],
        "properties": {"data": schema, "metadata": refs[Metadata]},
    }


# -- the page ----------------------------------------------------------------------------------------------------------


def schema_text(schema: dict[str, Any]) -> str:
    """A schema in a word or two, for people."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(schema_text(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {schema_text(schema.get('items', {}))}"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    properties = schema.get("properties", {})
    if set(properties) == {"data", "metadata"}:
        return f"data: {schema_text(properties['data'])}, metadata: Metadata"
    return str(schema.get("type", "any"))


def curl_text(operation: Operation, base: str, *, keys: bool) -> str:
    """A command line that calls an operation."""
    path = re.sub(r"\{(\w+)\}", lambda match: "$" + match[1].upper(), operation.path)
    parts = ["curl"]
    if operation.method != "GET":
        parts.append(f"-X {operation.method}")
    if keys and not operation.public:
        parts.append('-H "Authorization: Bearer $INNGEST_SIGNING_KEY"')
    if operation.example is not None:
        parts.append("-H 'content-type: application/json'")
        parts.append("-d '" + msgspec.json.encode(operation.example).decode() + "'")
    parts.append(f'"{base}{path}"')
    return " \\\n  ".join([" ".join(parts[:2]), *parts[2:]]) if len(parts) > 3 else " ".join(parts)
