"""The arguments of step bodies as JSON: kept of attempts that fail, and taken back once a person has edited them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from holdfast.base.codec import decode_json, encode_json
from holdfast.base.errors import ConfigurationError, NonRetriableError, NotSerializableError

MAX_INPUT_BYTES: Final = 64 * 1024
"""A larger input is not kept."""
_SHAPE = 'a list of the positional arguments, such as ["o1", 5], or an object {"args": [...], "kwargs": {...}}'


def recorded(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
    """The JSON of a body's arguments, or None when they have none or it is too large."""
    try:
        raw = encode_json({"args": args, "kwargs": kwargs} if kwargs else args, "the input")
    except NotSerializableError:
        return None  # a session, a callback: nothing that a person could edit
    return raw if len(raw) <= MAX_INPUT_BYTES else None


def checked(value: Any) -> bytes:
    """The JSON of an edited input.

    Raises:
        ConfigurationError: it has not the form of one, or is too large.
    """
    _parts(value)
    try:
        raw = encode_json(value, "the edited input")
    except NotSerializableError as error:
        raise ConfigurationError(str(error)) from error
    if len(raw) > MAX_INPUT_BYTES:
        raise ConfigurationError(f"the edited input is {len(raw):,} bytes; it may have {MAX_INPUT_BYTES:,}")
    return raw


def bound(fn: Callable[..., Any], raw: bytes, key: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an edited input, converted to what the body's parameters are annotated with.

    Raises:
        NonRetriableError: they don't fit; it names the step, the parameter and what is wrong.
    """
    args, kwargs = _parts(decode_json(raw))
    try:
        signature = inspect.signature(fn)
    except ValueError:  # some builtins don't tell: they get the values as they are
        return tuple(args), dict(kwargs)
    try:
        found = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise NonRetriableError(
            f"the edited input of step {key!r} does not fit {_name(fn)}{signature}: {error}"
        ) from error
    hints = _hints(fn)
    for name, value in found.arguments.items():
        annotation = hints.get(name, Any)
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            found.arguments[name] = tuple(_converted(one, annotation, name, key) for one in value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            found.arguments[name] = {word: _converted(one, annotation, word, key) for word, one in value.items()}
        else:
            found.arguments[name] = _converted(value, annotation, name, key)
    return found.args, found.kwargs


def as_input(raw: bytes) -> bytes:
    """An input that any server gave: a value that has not the form of one is the only argument."""
    try:
        _parts(decode_json(raw))
    except ConfigurationError:
        return b"[" + raw + b"]"
    return raw


def _parts(value: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(value, list | tuple):
        return list(value), {}
    if isinstance(value, dict) and value.keys() <= {"args", "kwargs"}:
        args, kwargs = value.get("args", []), value.get("kwargs", {})
        if isinstance(args, list | tuple) and isinstance(kwargs, dict) and all(isinstance(k, str) for k in kwargs):
            return list(args), kwargs
    raise ConfigurationError(f"the input of a step is {_SHAPE}")


def _converted(value: Any, annotation: Any, name: str, key: str) -> Any:
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    try:
        return TypeAdapter(annotation).validate_json(msgspec.json.encode(value))
    except PydanticUserError:
        return _converted_plainly(value, annotation, name, key)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part!r}]" for part in first["loc"])
        raise NonRetriableError(
            f"the edited input of step {key!r} does not fit: {name}{where}: {first['msg']}"
        ) from error


def _converted_plainly(value: Any, annotation: Any, name: str, key: str) -> Any:
    """A value for a class that pydantic knows nothing of: a struct is made of it, anything else takes it as it is."""
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise NonRetriableError(f"the edited input of step {key!r} does not fit: {name}: {error}") from error
    except TypeError:
        return value


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    target = getattr(fn, "func", fn)  # a partial's own
    if inspect.isclass(target):
        target = target.__init__
    elif not inspect.isroutine(target):
        target = getattr(type(target), "__call__")  # noqa: B004, B009 - the method itself is wanted
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError):  # names that only type checkers see: the values are taken as they are
        return {}


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
