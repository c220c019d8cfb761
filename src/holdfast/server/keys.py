"""Event keys, signing keys and the dashboard's password: kept as digests, compared in constant time."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from hashlib import sha256

from holdfast.base.errors import ConfigurationError
from holdfast.wire.signatures import hashed_key, strip_prefix


def check_signing_key(signing_key: str, what: str) -> None:
    """Refuse what the protocol's SDKs could not use.

    Args:
        signing_key: The key as configured.
        what: The setting it came from, for the message.

    Raises:
        ConfigurationError: it is not hexadecimal, has an odd number of digits or fewer than 32.
    """
    key = strip_prefix(signing_key)
    if not re.fullmatch(r"([0-9a-fA-F]{2}){16,}", key):
        raise ConfigurationError(
            f"{what} is not a signing key: after `signkey-<environment>-` it must be an even number of "
            "hexadecimal digits, at least 32; make one with `holdfast keys new`"
        )


class KeyRing:
    """The keys that are valid now. What it keeps are SHA-256 digests, so that no dump or log of it shows a key."""

    __slots__ = ("_digests",)

    def __init__(self, accepted: Iterable[str]) -> None:
        self._digests = tuple(_digest(text) for text in accepted)

    @classmethod
    def of_event_keys(cls, keys: Iterable[str]) -> KeyRing:
        """Accepts each key as it is."""
        return cls(keys)

    @classmethod
    def of_signing_keys(cls, keys: Iterable[str]) -> KeyRing:
        """Accepts each key, and the hash of it that SDKs send instead (protocol section 1.1)."""
        accepted = []
        for key in keys:
            accepted += [strip_prefix(key), hashed_key(key)]
        return cls(accepted)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._digests)}>"

    def accepts(self, text: str) -> bool:
        """Whether this is one of the keys. Takes the same time whichever it is, or none."""
        given = _digest(text)
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(digest, given)
        return found


def fingerprint(text: str) -> str:
    """Eight digits by which people can tell keys apart in the audit log, and from which no key can be found."""
    return sha256(b"holdfast fingerprint\0" + text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def derived_secret(source: str, purpose: str) -> bytes:
    """A secret for one purpose, the same on every process that has the same source."""
    return hmac.digest(source.encode("utf-8", "surrogateescape"), f"holdfast {purpose}".encode(), "sha256")


def random_secret() -> bytes:
    """A secret that lasts as long as the process."""
    return secrets.token_bytes(32)


def new_token() -> str:
    """128 random bits as text, for session ids."""
    return secrets.token_urlsafe(16)


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()
