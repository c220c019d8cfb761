"""Functions that are executed by calling their application."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from holdfast.base.duration import duration_ms
from holdfast.base.ids import name_uuid
from holdfast.base.retry import Backoff, RetryPolicy
from holdfast.core.cron import Schedule
from holdfast.core.firing import Firing
from holdfast.wire.calls import DISCOVERY
from holdfast.wire.endpoints import EndpointRequest
from holdfast.wire.functions import FunctionConfig

_NOT_IN_SLUG = re.compile(r"[^A-Za-z0-9.:-]")
_PLAIN_NAME = re.compile(r"[A-Z]+ /[A-Za-z0-9.:/-]*|[A-Za-z0-9.:-]+")


class RemoteFunction:
    """A function that is executed by calling its application."""

    __slots__ = ("_discovery", "app", "backoff", "config", "document", "id", "name", "retries", "slug", "uuid", "version")

    def __init__(self, function_id: int, version: int, app: str, document: Mapping[str, Any]) -> None:
        self.id = function_id
        self.version = version
        self.app = app
        self.document = document
        """Its configuration as it was registered."""
        self.config = msgspec.convert(document, FunctionConfig, strict=False)
        self.slug = self.config.slug
        self.name = self.config.name or self.slug
        self.retries = self.config.retry_count
        self._discovery = ""
        self.uuid = name_uuid(app, self.slug)
        described = document.get("backoff")
        self.backoff: RetryPolicy = (
            RetryPolicy.parse(described) if isinstance(described, Mapping) else Backoff.table()
        )

    @property
    def endpoint(self) -> bool:
        """Whether it is a durable endpoint: it is called as its client called it, not with a call of the protocol."""
        driver = self.document.get("driver")
        return isinstance(driver, Mapping) and driver.get("type") == "sync"

    @property
    def url(self) -> str:
        """Where it is called, with `fnId`."""
        return self.config.url

    def url_for(self, step: str) -> str:
        """Where it is called for a step, or for discovery with `step`."""
        if step != DISCOVERY:
            return self._url(step)
        self._discovery = self._discovery or self._url(DISCOVERY)
        return self._discovery

    def _url(self, step: str) -> str:
        scheme, host, path, query, fragment = urlsplit(self.url)
        parameters = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "stepId"]
        if not any(name == "fnId" for name, _ in parameters):
            parameters.append(("fnId", self.slug))
        return urlunsplit((scheme, host, path, urlencode([*parameters, ("stepId", step)]), fragment))

    @property
    def firings(self) -> list[Firing]:
        """How its schedules fire."""
        return [
            Firing(
                Schedule.parse(trigger["cron"]),
                self.slug,
                duration_ms(trigger["jitter"]) if trigger.get("jitter") else 0,
                trigger.get("catchUp") or "once",
            )
            for trigger in self.document.get("triggers") or ()
            if trigger.get("cron")
        ]


def endpoint_document(request: EndpointRequest, retries: int, sdk: str) -> dict[str, Any]:
    """The configuration of a durable endpoint, which nobody registers: made from a request to it."""
    _, _, host = request.domain.partition("://")
    slug = _NOT_IN_SLUG.sub("_", f"{host}-{request.name}")
    if not _PLAIN_NAME.fullmatch(request.name):
        # another name may look the same without what can't be in a path
        slug += "-" + sha256(request.name.encode()).hexdigest()[:8]
    runtime = {"type": "http", "url": request.domain + request.path}
    return {
        "id": slug,
        "name": request.name,
        "app": request.domain,
        "triggers": [],
        "retries": retries,
        "driver": {"type": "sync", "method": request.method, "base64": not sdk.startswith("js")},
        "steps": {"step": {"id": "step", "name": "step", "runtime": runtime}},
    }
