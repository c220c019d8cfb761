"""JSON in its canonical form (RFC 8785), which is what signatures are made over."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import msgspec

from holdfast.base.limits import MAX_JSON_DEPTH
from holdfast.wire.errors import WireError

_EXACT = 2**53


def canonical_json(value: Any) -> bytes:
    """Plain values (str, int, float, bool, None, list, dict with text keys) in canonical form.

    Raises:
        WireError: it has no JSON form, or is nested too deep.
    """
    try:
        return _write(value, 0).encode()
    except UnicodeEncodeError as error:
        raise WireError(f"the text can't be encoded: {error}") from error


def canonicalise(raw: bytes) -> bytes:
    """The canonical form of any JSON.

    Raises:
        WireError: it is not JSON, or is nested too deep.
    """
    ordinary = _ordinary(raw)
    return canonical_json(decode(raw)) if ordinary is None else ordinary


class _UnusualError(Exception):
    """A number whose canonical form is not what Python writes."""


def _ordinary(raw: bytes) -> bytes | None:
    """The canonical form of what nearly all JSON is, ten times faster; None where it takes more care, or isn't JSON."""
    if _LARGE in b":" + raw.translate(_CLASSES) or raw.count(b"{") + raw.count(b"[") > MAX_JSON_DEPTH:
        return None
    if (not raw.isascii() or b"\\u" in raw) and _BEYOND.search(raw):
        return None
    try:
        return _write_sorted(_decode_plain(raw)).encode()
    except (_UnusualError, msgspec.MsgspecError, UnicodeError):
        return None


def _plain_number(text: str) -> float:
    value = float(text)
    if value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if 1e-4 <= abs(value) < 1e16:
        return value
    raise _UnusualError


_CLASSES = bytes(48 if chr(n).isdecimal() and n < 128 else 58 if n in b"[:,- \t\r\n" else 120 for n in range(256))
_LARGE = b":" + b"0" * 16
"""With `_CLASSES`: a number that may not be exact."""
_BEYOND = re.compile(rb"[\xf0-\xff]|\\u[dD][89a-fA-F]")
"""Characters beyond the first plane, by which keys are ordered in a way of their own."""
_decode_plain = msgspec.json.Decoder(float_hook=_plain_number).decode
_write_sorted = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def decode(raw: bytes, type: Any = Any) -> Any:  # noqa: A002 - as msgspec calls it
    """JSON as plain values, or as a type.

    Raises:
        WireError: it is not JSON, does not fit, or is nested too deep.
    """
    try:
        return msgspec.json.decode(raw, type=type)
    except RecursionError as error:
        raise WireError("the JSON is nested too deep") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WireError(str(error)) from error


def _write(value: Any, depth: int) -> str:
    if depth > MAX_JSON_DEPTH:
        raise WireError(f"the JSON is nested deeper than {MAX_JSON_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return str(value)
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(_write(item, depth + 1) for item in value) + "]"
    if isinstance(value, dict):
        keys = sorted(value, key=_utf16)
        return "{" + ",".join(f"{_write(key, depth)}:{_write(value[key], depth + 1)}" for key in keys) + "}"
    raise WireError(f"a {type(value).__name__} has no JSON form")


def _utf16(key: Any) -> bytes:
    if not isinstance(key, str):
        raise WireError(f"a key of an object must be text, not {key!r:.40}")
    return key.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    """As ECMAScript writes it: the shortest digits that read back as the same double."""
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise WireError(f"{value} has no JSON form")
    if value == 0:
        return "0"
    sign, found, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, found)).rstrip("0")
    digits = len(found) + int(exponent)  # those before the decimal point
    out = "-" if sign else ""
    if len(text) <= digits <= 21:
        return out + text + "0" * (digits - len(text))
    if 0 < digits <= 21:
        return f"{out}{text[:digits]}.{text[digits:]}"
    if -6 < digits <= 0:
        return f"{out}0.{'0' * -digits}{text}"
    mantissa = text[0] + (f".{text[1:]}" if len(text) > 1 else "")
    return f"{out}{mantissa}e{digits - 1:+d}"
