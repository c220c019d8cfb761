"""JSON in and out of the store, so that live and replayed runs see the same values.

A step's result is always decode(encode(value)). The return annotation says what to read it back as; without one, a tag
beside the JSON names the class of a model at the top, looked up among modules already imported, never imported for it.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, is_typeddict
from uuid import UUID

import msgspec
from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from holdfast.base.errors import NotSerializableError
from holdfast.base.limits import MAX_JSON_DEPTH

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_PLAIN = (str, int, bool, type(None))
_BUILTIN_TAGS: dict[str, type] = {
    cls.__name__: cls for cls in (datetime, date, time, timedelta, Decimal, UUID, bytes, set, frozenset, tuple)
}

decode_json = _decoder.decode
"""JSON bytes to plain Python values."""


def encode_json(value: Any, what: str) -> bytes:
    """Plain values (and what msgspec knows: dates, UUIDs, dataclasses, structs) and pydantic models as JSON.

    Args:
        value: The value.
        what: What it is, for the error message: `step 'charge'`.

    Raises:
        NotSerializableError: it names the thing, the type and the path.
    """
    try:
        raw = msgspec.json.encode(value, enc_hook=_encode_model)
    except (TypeError, ValueError, RecursionError, OverflowError, UnicodeError) as error:
        raise _explain(value, what, error) from error
    if _suspicious(raw):
        _check(value, what, "$", 0)
    return raw


def _suspicious(raw: bytes) -> bool:
    """Whether JSON may hide a NaN, or may be nested too deep: cheap to ask, so that few values are walked."""
    if raw.count(b"[") + raw.count(b"{") > MAX_JSON_DEPTH:
        return True
    return b"null" in raw or b"NaN" in raw or b"Infinity" in raw


def _encode_model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"type {type(value).__module__}.{type(value).__qualname__}")


def _explain(value: Any, what: str, error: BaseException) -> NotSerializableError:
    try:
        _check(value, what, "$", 0)
    except NotSerializableError as found:
        return found
    return NotSerializableError(f"{what}: a {type(value).__name__} can't be stored as JSON: {error}")


def _check(value: Any, what: str, path: str, depth: int) -> None:
    if depth > MAX_JSON_DEPTH:
        raise NotSerializableError(f"{what}: the value is nested deeper than {MAX_JSON_DEPTH} levels at {path[:80]}")
    if isinstance(value, float | Decimal):
        if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
            raise NotSerializableError(f"{what}: {value} at {path} has no JSON form; use None or a string instead")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, _KEYS):
                raise NotSerializableError(
                    f"{what}: a key of type {type(key).__qualname__} at {path} can't be stored as JSON; "
                    "keys are strings"
                )
            _check(item, what, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            _check(item, what, f"{path}[{index}]", depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _check(getattr(value, field.name), what, f"{path}.{field.name}", depth + 1)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _check(getattr(value, name), what, f"{path}.{name}", depth + 1)
    elif isinstance(value, BaseModel):
        for name, item in value:
            _check(item, what, f"{path}.{name}", depth + 1)
    elif isinstance(value, str):
        _check_text(value, what, path)
    elif not isinstance(value, _SUPPORTED):
        cls = type(value)
        raise NotSerializableError(
            f"{what}: a value of type {cls.__module__}.{cls.__qualname__} at {path} can't be stored as JSON; "
            "return plain values, a dataclass, a pydantic model or a msgspec struct"
        )


def _check_text(value: str, what: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeError as error:
        raise NotSerializableError(f"{what}: the text at {path} can't be stored: {error}") from error


_SUPPORTED = (int, bool, type(None), bytes, bytearray, datetime, date, time, timedelta, UUID, Enum)
_KEYS = (str, int, float, datetime, date, UUID, Decimal, Enum)


class ResultCodec:
    """Writes and reads the values of one annotated type."""

    __slots__ = ("_adapter", "_fast", "_plain", "_struct", "_type")

    def __init__(self, annotation: Any) -> None:
        self._type = annotation
        self._plain = _is_plain(annotation)
        # of the plain classes, those that need no validation to be read back
        self._fast = _PLAIN if self._plain else tuple(cls for cls in _PLAIN if cls in _members(annotation))
        self._struct = not self._plain and _mentions_struct(annotation)
        self._adapter: TypeAdapter[Any] | None = None

    @staticmethod
    def of(annotation: Any) -> ResultCodec:
        """The codec of a return annotation; Any, TypeVars and missing annotations give the untyped one."""
        try:
            return _codec(annotation)
        except TypeError:  # unhashable annotations, such as Annotated with a dict
            return ResultCodec(annotation)

    def encode(self, value: Any, what: str) -> tuple[bytes, str | None]:
        """JSON, and a tag when the JSON alone could not be read back.

        Raises:
            NotSerializableError: naming what, type and path.
        """
        if type(value) in self._fast:
            try:
                return _encoder.encode(value), None
            except UnicodeError as error:
                raise NotSerializableError(f"{what}: the text can't be stored: {error}") from error
        if self._plain:
            raw = encode_json(value, what)
            return raw, self._tag(value, what)
        return (self._encode_struct(value, what) if self._struct else self._encode_typed(value, what)), None

    def _encode_typed(self, value: Any, what: str) -> bytes:
        adapter = self._typed(what)
        try:
            # pydantic writes None whatever the type, without a warning
            if value is None:
                raw = self._encode_unexpected(adapter, value, what)
            else:
                raw = adapter.dump_json(value, by_alias=True, warnings="error")
        except NotSerializableError:
            raise
        except PydanticSerializationError:
            raw = self._encode_unexpected(adapter, value, what)
        except Exception as error:
            raise _explain(value, what, error) from error
        if _suspicious(raw):
            _check(value, what, "$", 0)
        return raw

    def _encode_unexpected(self, adapter: TypeAdapter[Any], value: Any, what: str) -> bytes:
        """A value that is not what the annotation says is accepted if its JSON can be read back as it."""
        try:
            raw = adapter.dump_json(value, by_alias=True, warnings="none")
        except Exception as error:
            raise _explain(value, what, error) from error
        try:
            adapter.validate_json(raw, by_alias=True, by_name=True)
        except ValueError as error:
            raise self._misfit(value, what, error) from error
        return raw

    def _encode_struct(self, value: Any, what: str) -> bytes:
        raw = encode_json(value, what)
        try:
            msgspec.json.decode(raw, type=self._type)
        except msgspec.ValidationError as error:
            raise self._misfit(value, what, error) from error
        return raw

    def _misfit(self, value: Any, what: str, error: Exception) -> NotSerializableError:
        return NotSerializableError(
            f"{what}: it returned a {type(value).__name__} that can't be read back as its annotation "
            f"{inspect.formatannotation(self._type)}: {misfit_reason(error)}"
        )

    def decode(self, raw: bytes, tag: str | None) -> Any:
        """The value of recorded JSON."""
        if tag is not None:
            return _decode_tagged(raw, tag)
        if self._plain:
            return _decoder.decode(raw)
        if self._struct:
            return msgspec.json.decode(raw, type=self._type)
        return self._typed("a result").validate_json(raw, by_alias=True, by_name=True)

    def _typed(self, what: str) -> TypeAdapter[Any]:
        if self._adapter is None:
            try:
                self._adapter = _adapter(self._type)
            except PydanticUserError as error:
                raise NotSerializableError(
                    f"{what}: its return annotation {inspect.formatannotation(self._type)} can't be stored as JSON; "
                    "return plain values, a dataclass, a pydantic model or a msgspec struct"
                ) from error
        return self._adapter

    def _tag(self, value: Any, what: str) -> str | None:
        cls = type(value)
        if cls in {dict, list, tuple, set, frozenset}:
            model = _find_model(value, 0)
            if model is not None:
                raise NotSerializableError(
                    f"{what}: it returns a {cls.__name__} with {model.__qualname__} in it; annotate the function "
                    "with its return type, so that it can be read back"
                )
        if cls in {dict, list, float}:
            return None
        if _BUILTIN_TAGS.get(cls.__name__) is cls:
            return cls.__name__
        if _is_model(cls) and _tagged_class(cls.__module__, cls.__qualname__) is not cls:
            raise NotSerializableError(
                f"{what}: it returns a {cls.__qualname__}, which can't be found again by its name; define the class at the "
                "top of its module, so that the result can be read back"
            )
        return f"{cls.__module__}:{cls.__qualname__}"


@lru_cache(maxsize=4096)
def _codec(annotation: Any) -> ResultCodec:
    return ResultCodec(annotation)


def _is_plain(annotation: Any) -> bool:
    if annotation in _UNTYPED or isinstance(annotation, TypeVar):
        return True
    arguments = get_args(annotation)
    if getattr(annotation, "__origin__", None) is dict:
        # the names of an object are text: other keys have to be read back as what they were
        return arguments[0] in {str, Any} and _is_plain(arguments[1])
    return getattr(annotation, "__origin__", None) is list and _is_plain(arguments[0])


_UNTYPED = frozenset({Any, object, str, int, bool, float, None, type(None), dict, list})


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # models bring a configuration of their own


def misfit_reason(error: Exception) -> str:
    """Why JSON does not fit a type, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in found)


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)


def _mentions_struct(annotation: Any) -> bool:
    """Whether msgspec has to read it back: structs, and typing.TypedDict, which pydantic refuses before Python 3.12."""
    if isinstance(annotation, type) and (issubclass(annotation, msgspec.Struct) or is_typeddict(annotation)):
        return True
    return any(_mentions_struct(arg) for arg in get_args(annotation))


def _is_model(cls: type) -> bool:
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return named_tuple or issubclass(cls, BaseModel | msgspec.Struct | Enum) or dataclasses.is_dataclass(cls)


def _find_model(value: Any, depth: int) -> type | None:
    if depth > MAX_JSON_DEPTH:
        return None
    if isinstance(value, dict):
        return next((m for item in value.values() if (m := _find_model(item, depth + 1))), None)
    if type(value) in {list, tuple, set, frozenset}:
        return next((m for item in value if (m := _find_model(item, depth + 1))), None)
    return type(value) if _is_model(type(value)) else None


def _tagged_class(module: str, name: str) -> type | None:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and _is_model(found) else None


def _decode_tagged(raw: bytes, tag: str) -> Any:
    builtin = _BUILTIN_TAGS.get(tag)
    if builtin is not None:
        return msgspec.json.decode(raw, type=builtin)
    module, _, name = tag.partition(":")
    found = _tagged_class(module, name)
    if found is None:
        # the class has gone since: its plain JSON is what can be known
        return _decoder.decode(raw)
    if issubclass(found, BaseModel):
        return found.model_validate_json(raw, by_alias=True, by_name=True)
    if issubclass(found, msgspec.Struct):
        return msgspec.json.decode(raw, type=found)
    return TypeAdapter(found).validate_json(raw)
