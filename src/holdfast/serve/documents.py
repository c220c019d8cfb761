"""What an app registers about itself, and what it says when it is asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.base.version import __version__
from holdfast.core.cron import Schedule
from holdfast.sdk.app import App
from holdfast.sdk.functions import Function
from holdfast.serve.settings import ServeSettings
from holdfast.wire import headers as h
from holdfast.wire.registering import Capabilities, FullIntrospection, InBandSync, Introspection, RegisterRequest

CAPABILITIES = Capabilities(in_band_sync="v1", trust_probe="v1")
_FAILED = "inngest/function.failed"


def function_documents(app: App, settings: ServeSettings, url: str) -> list[msgspec.Raw]:
    """The configuration of each function, as servers take it (protocol section 3).

    Args:
        app: The app.
        settings: Those of its serve route.
        url: The route's address.

    Raises:
        ConfigurationError: a function has something that only works in process.
    """
    functions = dict.fromkeys(app.functions.values())
    return [msgspec.Raw(msgspec.json.encode(_document(app, settings, function, url))) for function in functions]


def _document(app: App, settings: ServeSettings, function: Function[Any, Any], url: str) -> dict[str, Any]:
    if function.options.keys:
        name = min(function.options.keys)
        raise ConfigurationError(
            f"{function.where}: the key {name} is a Python function, which a server that calls the app can't ask; "
            "write it as an expression, such as 'event.data.order_id'"
        )
    document = function.config()
    retries = document.pop("retries", None)
    document["triggers"] = [_trigger(app, trigger) for trigger in document["triggers"]]
    checkpoints = settings.checkpoints_of(function)
    if checkpoints is not None:
        document["checkpoint"] = checkpoints.document()
    document["steps"] = {
        "step": {
            "id": "step",
            "name": "step",
            "runtime": {"type": "http", "url": f"{url}?fnId={quote(function.slug)}&stepId=step"},
            **({} if retries is None else {"retries": {"attempts": retries}}),
        }
    }
    return document


def _trigger(app: App, trigger: dict[str, Any]) -> dict[str, Any]:
    if "cron" in trigger:
        return {**trigger, "cron": five_fields(trigger["cron"])}
    if trigger.get("event") == _FAILED and trigger.get("expression") == f"event.data.app_id == '{app.id}'":
        # other servers don't say the app in this event, only the function
        functions = dict.fromkeys(app.functions.values())
        slugs = ", ".join(f"'{f.slug}'" for f in functions if all(t.event != _FAILED for t in f.triggers))
        return {**trigger, "expression": f"event.data.function_id in [{slugs}]"}
    return trigger


def five_fields(cron: str) -> str:
    """A schedule without names such as `@daily`, which servers don't take."""
    schedule = Schedule.parse(cron)
    zone = schedule.zone.key
    return schedule.fields if zone == "UTC" else f"TZ={zone} {schedule.fields}"


def register_request(app: App, settings: ServeSettings, framework: str, url: str) -> RegisterRequest:
    """The body of an out-of-band sync."""
    return RegisterRequest(
        url=url,
        sdk=h.SDK_NAME,
        framework=framework,
        app_name=app.id,
        functions=function_documents(app, settings, url),
        app_version=settings.app_version,
        headers={"env": settings.env, "platform": None},
        capabilities=CAPABILITIES,
    )


def in_band_sync(app: App, settings: ServeSettings, framework: str, url: str) -> InBandSync:
    """The answer to an in-band sync."""
    return InBandSync(
        app_id=app.id,
        sdk_author="holdfast",
        sdk_language=h.LANGUAGE,
        sdk_version=__version__,
        framework=framework,
        url=url,
        functions=function_documents(app, settings, url),
        inspection=full_introspection(app, settings, framework),
        appVersion=settings.app_version,
        env=settings.env,
    )


def introspection(app: App, settings: ServeSettings, authenticated: bool | None) -> Introspection:
    """What anybody may know.

    Args:
        app: The app.
        settings: Those of its route.
        authenticated: Whether the question was signed rightly; None when it wasn't signed.
    """
    return Introspection(
        function_count=len(set(app.functions.values())),
        has_event_key=settings.event_key is not None,
        has_signing_key=bool(settings.signing_keys),
        has_signing_key_fallback=settings.has_fallback,
        mode=settings.mode,
        authentication_succeeded=authenticated,
    )


def full_introspection(app: App, settings: ServeSettings, framework: str) -> FullIntrospection:
    """What a server may know that has the signing key."""
    return FullIntrospection(
        **msgspec.structs.asdict(introspection(app, settings, authenticated=True)),
        api_origin=settings.api_url,
        app_id=app.id,
        capabilities=CAPABILITIES,
        env=settings.env,
        event_api_origin=settings.event_url,
        event_key_hash=settings.event_key_hash,
        framework=framework,
        sdk_language=h.LANGUAGE,
        sdk_version=__version__,
        serve_origin=settings.serve_origin,
        serve_path=settings.serve_path,
        signing_key_hash=settings.key_hash(0),
        signing_key_fallback_hash=settings.key_hash(1),
    )
