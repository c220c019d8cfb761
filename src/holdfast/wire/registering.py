"""Registration: what an app says about itself, out of band, in band and when it is only asked (protocol section 1.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.wire import headers as h
from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError
from holdfast.wire.functions import FunctionConfig
from holdfast.wire.validation import problems

SCHEMA_VERSION = "2024-05-24"
IN_BAND = "in_band"
OUT_OF_BAND = "out_of_band"
_REFUSED_JS = ((3, 22, 0), (3, 53, 1))
"""The first and last of the versions that Inngest's server refuses as well."""


class Capabilities(msgspec.Struct, omit_defaults=True):
    """What else an SDK can do."""

    in_band_sync: str | None = None
    trust_probe: str | None = None
    connect: str | None = None


class RegisterRequest(msgspec.Struct, omit_defaults=True, rename="camel"):
    """The body of `POST /fn/register`."""

    url: str = ""
    sdk: str = ""
    """`<language>:v<version>`."""
    framework: str = ""
    app_name: str = ""
    functions: list[msgspec.Raw] | None = None
    """Each a `FunctionConfig`, kept as it came."""
    v: str = "0.1"
    deploy_type: str = "ping"
    """`ping`, or `connect` for workers over a websocket."""
    app_version: str | None = None
    headers: dict[str, str | None] | None = None
    idempotency_key: str | None = None
    feature_observations: Any = None
    capabilities: Capabilities | None = None


class RegisterAnswer(msgspec.Struct, omit_defaults=True):
    """What `POST /fn/register` answers."""

    ok: bool = False
    modified: bool = msgspec.field(default=False)
    message: str | None = None
    error: str | None = None
    sync_id: str | None = None
    app_id: str | None = None


class Introspection(msgspec.Struct):
    """What anybody may know of an app, and where it can't be told who asks, all that is said."""

    function_count: int
    has_event_key: bool
    has_signing_key: bool
    has_signing_key_fallback: bool
    mode: str
    """`dev` or `cloud`."""
    authentication_succeeded: bool | None = None
    schema_version: str = SCHEMA_VERSION


class FullIntrospection(Introspection):
    """What is said to a server that has signed its question."""

    api_origin: str | None = None
    app_id: str = ""
    capabilities: Capabilities | None = None
    env: str | None = None
    event_api_origin: str | None = None
    event_key_hash: str | None = None
    framework: str = ""
    sdk_language: str = ""
    sdk_version: str = ""
    serve_origin: str | None = None
    serve_path: str | None = None
    signing_key_hash: str | None = None
    signing_key_fallback_hash: str | None = None


class InBandSync(msgspec.Struct, omit_defaults=True):
    """What an app answers to an in-band sync: its registration, for the server to read off the response."""

    app_id: str
    sdk_author: str
    sdk_language: str
    sdk_version: str
    framework: str
    url: str
    functions: list[msgspec.Raw]
    inspection: FullIntrospection | None = None
    appVersion: str | None = None  # noqa: N815 - the protocol's spelling
    env: str | None = None
    platform: str | None = None


class InvalidFunctionsError(WireError):
    """Functions of a registration can't be used; the message has one reason each."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(f"At least one function is invalid: {'; '.join(reasons)}")
        self.reasons = tuple(reasons)


_FIELDS = {
    name.lower().replace("_", ""): name
    for name in (info.encode_name for info in msgspec.structs.fields(RegisterRequest))
}


def sdk_refused(sdk: str) -> str | None:
    """Why an SDK of this name and version may not register; None when it may."""
    language, version = h.sdk_parts(sdk)
    try:
        parts = tuple(int(part) for part in version.partition("-")[0].split("."))
    except ValueError:
        return None
    if language == "js" and _REFUSED_JS[0] <= parts <= _REFUSED_JS[1]:
        return f"version {version} of the TypeScript SDK is not accepted: upgrade to 3.54.0 or newer"
    return None


def decode_register(body: bytes) -> RegisterRequest:
    """Read a registration. Names of fields are taken in any case, with or without underscores: SDKs differ.

    Raises:
        WireError: it is not one, or has no app id.
    """
    loose: dict[str, msgspec.Raw] = decode(body, dict[str, msgspec.Raw])
    known: dict[str, msgspec.Raw] = {}
    for name, value in loose.items():
        field = _FIELDS.get(name.lower().replace("_", ""))
        if field is not None and bytes(value) != b"null":
            known[field] = value
    request: RegisterRequest = decode(msgspec.json.encode(known), RegisterRequest)
    if not request.app_name:
        raise WireError("App ID required")
    return request


def functions_of(request: RegisterRequest) -> list[FunctionConfig]:
    """The functions of a registration, each of them usable.

    Raises:
        InvalidFunctionsError: at least one is not.
    """
    found: list[FunctionConfig] = []
    reasons: list[str] = []
    for raw in request.functions or []:
        try:
            config: FunctionConfig = decode(bytes(raw), FunctionConfig)
        except WireError as error:
            reasons.append(str(error))
            continue
        reasons += [f"{config.slug}: {problem.message}" for problem in problems(config)]
        found.append(config)
    if reasons:
        raise InvalidFunctionsError(reasons)
    return found


def decode_in_band(body: bytes) -> InBandSync:
    """Read the answer to an in-band sync.

    Raises:
        WireError: it is not one.
    """
    found: InBandSync = decode(body, InBandSync)
    return found


def encode_register(request: RegisterRequest) -> bytes:
    """Write a registration, with the fields that servers insist on."""
    always: Mapping[str, Any] = {"v": request.v, "deployType": request.deploy_type, "functions": request.functions or []}
    return msgspec.json.encode({**_set_fields(request), **always})


def _set_fields(request: RegisterRequest) -> dict[str, Any]:
    return {
        info.encode_name: value
        for info in msgspec.structs.fields(RegisterRequest)
        if (value := getattr(request, info.name)) is not None
    }


def encode_register_answer(answer: RegisterAnswer) -> bytes:
    """Write the answer to a registration; `ok` and `modified` are always there."""
    return msgspec.json.encode({"ok": answer.ok, "modified": answer.modified, **msgspec.to_builtins(answer)})


def decode_register_answer(body: bytes) -> RegisterAnswer:
    """Read the answer to a registration.

    Raises:
        WireError: it is not one.
    """
    found: RegisterAnswer = decode(body, RegisterAnswer)
    return found
