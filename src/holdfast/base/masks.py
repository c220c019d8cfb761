"""What people don't get to see: marked fields of payloads, and credentials in text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from holdfast.base.errors import ConfigurationError

MASKED = "[masked]"
"""What stands in the place of a marked value."""
_MIN_ELSEWHERE = 6
"""Marked values as long as this, in characters, are also hidden where they occur in other text of the same run."""
_PATH = re.compile(r"[^.\s]+(\.[^.\s]+)*")
_CREDENTIALS = re.compile(r"(?P<scheme>\b[\w+.-]+://[^\s/:@'\"]*:)[^\s/'\"]+@|(?P<key>\bsignkey-\w+-)[0-9a-fA-F]{8,}")

# numbers keep all their digits
_decoder = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode()))


def hide_credentials(text: str) -> str:
    """A text without the passwords of the URLs in it, and without signing keys."""
    if "://" not in text and "signkey-" not in text:
        return text
    return _CREDENTIALS.sub(lambda found: f"{found['scheme']}{MASKED}@" if found["scheme"] else f"{found['key']}{MASKED}", text)


class Masks:
    """The marked fields of payloads, by name.

    Args:
        paths: Names of fields, such as `card_number`, or with the names of the objects around them, such as `card.number`.
            A field is masked wherever a document has it, at any depth; lists count for nothing.

    Raises:
        ConfigurationError: one is not such a path.
    """

    __slots__ = ("_by_name", "_hint", "paths")

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(sorted(set(paths)))
        self._by_name: dict[str, list[tuple[str, ...]]] = {}
        for path in self.paths:
            if not _PATH.fullmatch(path):
                raise ConfigurationError(f"{path!r} names no field; write it as card_number or card.number")
            *around, name = path.split(".")
            self._by_name.setdefault(name, []).append(tuple(around))
        names = "|".join(re.escape(msgspec.json.encode(name).decode()) for name in self._by_name)
        self._hint = re.compile(names.encode()) if names else None

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def document(self, raw: bytes) -> bytes:
        """A JSON document with the marked fields masked."""
        # a key may be spelt with escapes, and then the hint does not find it
        if self._hint is None or (b"\\" not in raw and not self._hint.search(raw)):
            return raw
        try:
            return msgspec.json.encode(self.value(_decoder.decode(raw)))
        except (msgspec.DecodeError, RecursionError):
            # what can't be looked through is not shown
            return msgspec.json.encode(MASKED)

    def value(self, value: Any, around: tuple[str, ...] = ()) -> Any:
        """A decoded document with the marked fields masked."""
        if isinstance(value, Mapping):
            return {
                key: MASKED if item is not None and self._marks(str(key), around) else self.value(item, (*around, str(key)))
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item, around) for item in value]
        return value

    def hidden_in(self, raw: bytes) -> frozenset[str]:
        """The marked values of a document that are long enough to be told from other text."""
        if self._hint is None or (b"\\" not in raw and not self._hint.search(raw)):
            return frozenset()
        try:
            document = _decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return frozenset()
        return frozenset(text for text in self._hidden(document, ()) if len(text) >= _MIN_ELSEWHERE)

    def _hidden(self, value: Any, around: tuple[str, ...]) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from _scalars(item) if self._marks(key, around) else self._hidden(item, (*around, key))
        elif isinstance(value, list):
            for item in value:
                yield from self._hidden(item, around)

    def _marks(self, name: str, around: tuple[str, ...]) -> bool:
        return any(around[len(around) - len(path) :] == path for path in self._by_name.get(name, ()))


def holds_mask(value: Any) -> bool:
    """Whether plain data has a mask in the place of a value."""
    if isinstance(value, Mapping):
        return any(holds_mask(item) for item in value.values())
    return any(map(holds_mask, value)) if isinstance(value, list | tuple) else value == MASKED


def hide(text: str, values: Iterable[str]) -> str:
    """A text without these values; longer ones first, as one may be part of another."""
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASKED)
    return text


def hide_in(value: Any, values: frozenset[str]) -> Any:
    """Plain data without these values in its texts and numbers."""
    if isinstance(value, str):
        return hide(value, values)
    if isinstance(value, dict):
        return {hide(str(key), values): hide_in(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(item, values) for item in value]
    return MASKED if not isinstance(value, bool) and _text(value) in values else value


def hide_in_document(raw: bytes, values: frozenset[str]) -> bytes:
    """A JSON document without these values."""
    try:
        return msgspec.json.encode(hide_in(_decoder.decode(raw), values)) if values else raw
    except (msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(MASKED)


def _scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from _scalars(item)
    elif value is not None and not isinstance(value, bool):
        yield _text(value)


def _text(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)
