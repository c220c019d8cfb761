"""Example payloads from an event's schema, to fill in a form with."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.sdk.events import Event

_MAX_DEPTH = 6
_FORMATS = {
    "date-time": "2026-01-01T12:00:00Z",
    "date": "2026-01-01",
    "time": "12:00:00",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "duration": "PT1H",
}


def sample_text(model: type[Event]) -> str:
    """A pretty-printed example of the event's data."""
    return msgspec.json.format(msgspec.json.encode(sample(model)), indent=2).decode()


def sample(model: type[Event]) -> Any:
    """An example of the event's data, under the wire names."""
    schema = model.model_json_schema(by_alias=True)
    return _value(schema, schema.get("$defs", {}), "", 0)


def _value(schema: dict[str, Any], defs: dict[str, Any], name: str, depth: int) -> Any:
    if "default" in schema:
        return schema["default"]
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _value(defs.get(schema["$ref"].rpartition("/")[2], {}), defs, name, depth + 1)
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return _value(schema[union][0], defs, name, depth + 1)
    return _plain(schema, defs, name, depth)


def _plain(schema: dict[str, Any], defs: dict[str, Any], name: str, depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object":
        return {key: _value(inner, defs, key, depth + 1) for key, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [_value(schema["items"], defs, name, depth + 1)] if isinstance(schema.get("items"), dict) else []
    if kind == "string":
        return _FORMATS.get(
            schema.get("format", ""), "ada@example.com" if "email" in name.lower() else f"{name or 'text'}-1"
        )
    if kind in {"integer", "number"}:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        return 1 if low is None else low + (1 if "exclusiveMinimum" in schema else 0)
    return {"boolean": True, "null": None}.get(str(kind))
