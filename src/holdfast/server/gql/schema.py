"""The GraphQL schema, with scalars that take holdfast's own values and fields that resolve to attributes by their names."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any

from graphql import (
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    ValueNode,
    build_schema,
    value_from_ast_untyped,
)

from holdfast.base.clock import iso, to_ms
from holdfast.base.ids import ulid_bytes

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@lru_cache(maxsize=512)
def attribute(name: str) -> str:
    """The attribute of a field: `runID` is `run_id`."""
    return _WORD.sub("_", name).lower()


def resolve(source: Any, info: Any, **arguments: Any) -> Any:
    """The value of a field: an attribute of its object, called with the field's arguments where it is a method."""
    info.context.count_field()
    value = getattr(source, attribute(info.field_name))
    return value(info, **arguments) if callable(value) else value


@lru_cache(maxsize=1)
def schema() -> GraphQLSchema:
    """The schema."""
    text = (resources.files("holdfast.server.gql") / "schema.graphql").read_text(encoding="utf-8")
    built = build_schema(text)
    for name, (write, read) in _SCALARS.items():
        scalar = built.type_map[name]
        assert isinstance(scalar, GraphQLScalarType)
        _teach(scalar, write, read)
    for kind in built.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for field in kind.fields.values():
                field.resolve = resolve
                for name, argument in field.args.items():
                    argument.out_name = attribute(name)
        elif isinstance(kind, GraphQLInputObjectType):
            for name, given in kind.fields.items():
                given.out_name = attribute(name)
    union: Any = built.type_map["StepInfo"]
    union.resolve_type = lambda value, _info, _kind: type(value).__name__
    return built


def _teach(scalar: GraphQLScalarType, write: Any, read: Any) -> None:
    def literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
        return read(value_from_ast_untyped(node, variables))

    scalar.serialize = write  # type: ignore[method-assign]
    scalar.parse_value = read  # type: ignore[method-assign]
    scalar.parse_literal = literal  # type: ignore[method-assign]
    # the names of these in graphql-core 3.3, which looks at both
    for name, function in (("coerce_output_value", write), ("coerce_input_value", read)):
        if hasattr(scalar, name):
            setattr(scalar, name, function)


def _same(value: Any) -> Any:
    return value


def _moment(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise GraphQLError(f"a moment is RFC 3339 text, not {value!r:.60}")
    if isinstance(value, int):
        return value
    try:
        return to_ms(datetime.fromisoformat(value))
    except ValueError as error:
        raise GraphQLError(f"a moment is RFC 3339 text such as 2026-01-31T09:00:00Z, not {value[:60]!r}") from error


def _ulid(value: Any) -> str:
    try:
        ulid_bytes(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise GraphQLError(f"{value!r:.60} is not an id; ids have 26 letters and digits") from error
    return str(value).upper()


_SCALARS = {"Time": (iso, _moment), "ULID": (_same, _ulid)}
