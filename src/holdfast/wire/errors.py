"""What is wrong with a message of the protocol."""

from __future__ import annotations

from holdfast.base.errors import HoldfastError


class WireError(HoldfastError):
    """A message can't be read, or says something that the protocol does not allow."""

    code = "wire_invalid"


class SignatureError(WireError):
    """A request's signature is missing, wrong, or not of this moment."""

    code = "signature_invalid"
