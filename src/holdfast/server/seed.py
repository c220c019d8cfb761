"""The seed header of the event API: internal ids that are the same when a client retries (protocol section 1.2)."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error

import msgspec


class Seed(msgspec.Struct, frozen=True):
    """Where the internal ids of a request come from, so that a client's retry stores each event once."""

    ms: int
    entropy: bytes

    @classmethod
    def of_header(cls, header: str) -> Seed | None:
        """The seed of `<milliseconds>,<base64 of 10 bytes>`; None when it is something else."""
        millis, _, encoded = header.partition(",")
        try:
            ms, entropy = int(millis), b64decode(encoded, validate=True)
        except (ValueError, Base64Error):
            return None
        return cls(ms, entropy) if 0 < ms < 1 << 48 and len(entropy) == 10 else None

    def id(self, index: int) -> bytes:
        """The internal id of the event at a 1-based index."""
        counter = (int.from_bytes(self.entropy[6:], "big") + index) & 0xFFFFFFFF
        return self.ms.to_bytes(6, "big") + self.entropy[:6] + counter.to_bytes(4, "big")
