"""Identifiers: monotonic ULIDs as 16 bytes inside, 26 characters outside."""

from __future__ import annotations

import os
import random
import uuid
from hashlib import sha1

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {c: i for i, c in enumerate(_ALPHABET)} | {c.lower(): i for i, c in enumerate(_ALPHABET)}
_RANDOM_BITS = 80
_POOL_BYTES = 4096
_HEADROOM = (1 << (_RANDOM_BITS - 1)) - 1


class IdFactory:
    """Makes 16-byte ULIDs that rise strictly within one process, so that keys are inserted at the end of their tree."""

    __slots__ = ("_last", "_ms", "_pool", "_seeded", "_used")

    def __init__(self, seed: int | None = None) -> None:
        self._seeded = None if seed is None else random.Random(seed)
        self._pool = b""
        self._used = 0
        self._ms = -1
        self._last = 0

    def new(self, ms: int) -> bytes:
        """A new id whose time part is `ms` (or the last one given out, if the clock went back)."""
        if ms > self._ms:
            self._ms = ms
            self._last = (ms << _RANDOM_BITS) | (self._random(10) & _HEADROOM)
        else:
            # a random stride keeps ids of the same millisecond unguessable
            self._last += 1 + self._random(4)
        return self._last.to_bytes(16, "big")

    def _random(self, count: int) -> int:
        start = self._used
        end = start + count
        if end > len(self._pool):
            # the system's randomness is asked for by the page: a call each would cost more than all the rest
            self._pool = os.urandom(_POOL_BYTES) if self._seeded is None else self._seeded.randbytes(_POOL_BYTES)
            start, end = 0, count
        self._used = end
        return int.from_bytes(self._pool[start:end], "big")


def ulid_text(raw: bytes) -> str:
    """The 26-character Crockford base32 form of a 16-byte id."""
    n = int.from_bytes(raw, "big")
    pairs = _PAIRS
    return "".join([pairs[(n >> shift) & 1023] for shift in range(120, -1, -10)])


def ulid_bytes(text: str) -> bytes:
    """The 16 bytes of a 26-character ULID.

    Raises:
        ValueError: `text` is not a ULID.
    """
    if len(text) != 26:
        raise ValueError(f"not a ULID: {text[:40]!r}")
    n = 0
    for char in text:
        value = _VALUES.get(char)
        if value is None:
            raise ValueError(f"not a ULID: {text!r}")
        n = (n << 5) | value
    if n >> 128:
        raise ValueError(f"not a ULID: {text!r}")
    return n.to_bytes(16, "big")


def ulid_ms(raw: bytes) -> int:
    """The milliseconds since 1970 that an id carries."""
    return int.from_bytes(raw[:6], "big")


def derived_id(ms: int, *parts: bytes | str) -> bytes:
    """A 16-byte id that is always the same for the same parts: for results that may be delivered twice."""
    digest = sha1(usedforsecurity=False)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return ms.to_bytes(6, "big") + digest.digest()[:10]


def step_hash(step_id: str, index: int = 0) -> str:
    """The protocol's hash of a step id and its repeat index (protocol, IDs)."""
    return sha1((step_id if index == 0 else f"{step_id}:{index}").encode(), usedforsecurity=False).hexdigest()


def name_uuid(*parts: str) -> str:
    """The stable UUID of an app or function (protocol section 1.3: uuid5 over NAMESPACE_OID)."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(parts)))
