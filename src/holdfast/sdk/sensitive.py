"""Marking the fields of events and results that people are not to see."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints, is_typeddict

import msgspec
from pydantic import BaseModel, PlainSerializer, SecretBytes, SecretStr

from holdfast.base.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, slots=True)
class Sensitive:
    """Marks a field: `card_number: Annotated[str, Sensitive()]`.

    Functions get the real value. Wherever people look, at the dashboard, the API or the command line, it is masked: in the
    event, and in every other payload that has a field of the same name (for one inside a model, of the same name below the
    same field). The database has the real value.
    """


def _reveal(secret: SecretStr) -> str:
    return secret.get_secret_value()


Secret: TypeAlias = Annotated[SecretStr, PlainSerializer(_reveal, return_type=str, when_used="json"), Sensitive()]
"""A marked text that doesn't show in Python's `repr` either: pydantic's `SecretStr`, whose value is what travels and is stored.

`card_number: Secret`, and `ctx.event.data.card_number.get_secret_value()`. A plain `SecretStr` would be stored as asterisks.
"""


def sensitive_paths(annotation: Any) -> tuple[str, ...]:
    """The marked fields of a type under their wire names, each with the name of the field it is in: `card.number`.

    Raises:
        ConfigurationError: a field is a plain `SecretStr`, whose value would be lost.
    """
    try:
        return _cached(annotation)
    except TypeError:  # unhashable, such as Annotated with a dict
        return tuple(sorted(set(_paths(annotation, "", frozenset()))))


@lru_cache(maxsize=4096)
def _cached(annotation: Any) -> tuple[str, ...]:
    return tuple(sorted(set(_paths(annotation, "", frozenset()))))


def _paths(annotation: Any, within: str, seen: frozenset[Any]) -> Iterator[str]:
    for cls in _classes(annotation):
        if cls in seen:
            continue
        for name, field, marks in _fields(cls):
            path = f"{within}.{name}" if within else name
            if any(isinstance(mark, Sensitive) for mark in marks) or _is_marked(field):
                yield path
            elif any(cls_ in {SecretStr, SecretBytes} for cls_ in _classes(field)):
                raise ConfigurationError(
                    f"{cls.__qualname__}.{name} is a {next(iter(_classes(field))).__name__}, which pydantic writes as asterisks: its "
                    "value would be lost; use holdfast.Secret, or Annotated[str, holdfast.Sensitive()]"
                )
            else:
                yield from _paths(field, name, seen | {cls})


def _fields(cls: type) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Wire name, type and marks of the fields of a model; nothing for other classes."""
    if issubclass(cls, BaseModel):
        for name, field in cls.model_fields.items():
            yield field.serialization_alias or field.alias or name, field.annotation, tuple(field.metadata)
    elif dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct) or is_typeddict(cls):
        names = dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)) if issubclass(cls, msgspec.Struct) else {}
        try:
            hints = get_type_hints(cls, include_extras=True)
        except NameError:  # a type that is imported for checkers only
            return
        for name, annotation in hints.items():
            yield names.get(name, name), annotation, ()


def _classes(annotation: Any) -> Iterator[type]:
    """The classes in an annotation: of unions, lists and whatever else takes parameters."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


def _is_marked(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated and any(isinstance(mark, Sensitive) for mark in annotation.__metadata__):
        return True
    return any(_is_marked(argument) for argument in get_args(annotation))
