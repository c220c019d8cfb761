"""Applications that are called over HTTP: what they have registered, and how their functions are found (protocol section 1.3)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.base.findings import Finding, Level
from holdfast.base.ids import name_uuid
from holdfast.core.flow_config import FlowReader
from holdfast.engine.host import Host
from holdfast.engine.notices import Notice
from holdfast.engine.remote_functions import RemoteFunction, endpoint_document
from holdfast.store.sqlite.registry import AppRecord, Registration
from holdfast.wire.endpoints import EndpointRequest
from holdfast.wire.registering import RegisterAnswer, RegisterRequest, encode_register, functions_of

_log = logging.getLogger("holdfast")
MAX_ENDPOINTS = 1000
"""Durable endpoints of one application: a client that makes up paths makes up endpoints."""


class Applications:
    """The applications that have registered, kept through restarts."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.functions: dict[int, RemoteFunction] = {}
        """Functions in force, by their number in the store."""
        self.by_slug: dict[str, RemoteFunction] = {}
        self.apps: dict[str, AppRecord] = {}
        """What is known of each application, by its id."""
        self._registering = asyncio.Lock()
        self.findings: dict[str, Finding] = {}
        """What was wrong with addresses that were asked to register and did not, by address."""

    def restore(self) -> None:
        """Take up what was registered before: runs in progress go on without their application having to register again."""
        store = self._host.store
        self.apps = {record.name: record for record in store.app_records()}
        for function_id, version, config in store.current_functions():
            document = msgspec.json.decode(config)
            app = document.get("app")
            if "steps" in document and isinstance(app, str) and document["id"] not in self._host.functions:
                self._add(RemoteFunction(function_id, version, app, document))

    def _add(self, fn: RemoteFunction) -> None:
        known = self.functions.get(fn.id)
        if known is not None:
            self._remove(known)
        self.functions[fn.id] = fn
        self.by_slug[fn.slug] = fn
        intake = self._host.intake
        for trigger in fn.document.get("triggers") or ():
            if trigger.get("event"):
                intake.router.add(trigger["event"], fn.id, fn.version, trigger.get("expression"))
        intake.remote.add(fn.id)
        flow = FlowReader(fn.document, fn.id).read()
        if not flow.empty:
            intake.control(flow, lambda row: msgspec.json.decode(row.data))

    def _remove(self, fn: RemoteFunction) -> None:
        self.functions.pop(fn.id, None)
        if self.by_slug.get(fn.slug) is fn:
            del self.by_slug[fn.slug]
        intake = self._host.intake
        intake.router.remove(fn.id)
        intake.remote.discard(fn.id)
        intake.flows.pop(fn.id, None)

    def follow(self, records: Sequence[AppRecord], functions: Sequence[tuple[int, int, bytes]]) -> bool:
        """Take up what applications have registered at other nodes; whether any of it is new here.

        Args:
            records: All applications.
            functions: Id, version and registration document of every function in force.
        """
        before, self.apps = self.apps, {record.name: record for record in records}
        wanted: dict[int, RemoteFunction] = {}
        for function_id, version, config in functions:
            document = msgspec.json.decode(config)
            app = document.get("app")
            if "steps" in document and isinstance(app, str) and document["id"] not in self._host.functions:
                wanted[function_id] = RemoteFunction(function_id, version, app, document)
        changed = False
        for fn in list(self.functions.values()):
            if fn.id not in wanted:
                self._remove(fn)
                changed = True
        for fn in wanted.values():
            known = self.functions.get(fn.id)
            if known is None or known.document != fn.document:
                self._add(fn)
                changed = True
        if before != self.apps and self._host.notices.wanted:
            self._host.notices.publish(Notice("function", ""))
        return changed

    async def register(self, request: RegisterRequest) -> RegisterAnswer:
        """Take in what an application says about itself; functions that it no longer has are archived.

        Raises:
            InvalidFunctionsError: a function can't be used; nothing was changed.
            AddressRefusedError: it may not be called where it says it is; nothing was changed.
        """
        configs = functions_of(request)
        if request.deploy_type != "connect":
            for url in dict.fromkeys([request.url, *(config.url for config in configs)]):
                self._host.outbound.check(url)
        raws = [msgspec.json.decode(bytes(raw)) for raw in request.functions or []]
        checksum = _checksum(request)
        known = self.apps.get(request.app_name)
        app_id = name_uuid(request.app_name)
        if known is not None and known.checksum == checksum and known.error is None:
            return RegisterAnswer(ok=True, modified=False, message="Successfully synced", sync_id=checksum[:32], app_id=app_id)
        documents = [{**raw, "id": config.slug, "app": request.app_name} for raw, config in zip(raws, configs, strict=True)]
        for document in documents:
            FlowReader(document).read()
        record = AppRecord(
            request.app_name, request.url, request.sdk, request.framework, request.app_version, checksum,
            request.deploy_type, None, self._host.clock.now(),
        )  # fmt: skip
        await self._store(record, documents)
        return RegisterAnswer(ok=True, modified=True, message="Successfully synced", sync_id=checksum[:32], app_id=app_id)

    async def _store(self, record: AppRecord, documents: Sequence[Mapping[str, Any]]) -> None:
        host = self._host
        if any(document["id"] in host.functions for document in documents):
            # calling the application as well would execute them a second time
            _log.info("app %s runs in this process; its serve route at %s is not called", record.name, record.url)
            self.apps[record.name] = record
            await host.store.put_app(record)
            return
        registrations = [
            Registration(record.name, document["id"], document.get("name") or document["id"], msgspec.json.encode(document))
            for document in documents
        ]
        known = await host.store.register_app(record, registrations)
        before = [fn for fn in self.functions.values() if fn.app == record.name]
        for fn in before:
            if fn.slug not in known:
                self._remove(fn)
        for document in documents:
            self._add(RemoteFunction(*known[document["id"]], record.name, document))
        self.apps[record.name] = record
        host.functions_changed()
        _log.info("app %s has registered %d functions (%s, %s)", record.name, len(documents), record.sdk, record.url)
        if host.notices.wanted:
            host.notices.publish(Notice("function", record.name))

    async def endpoint(self, request: EndpointRequest, *, retries: int, sdk: str) -> RemoteFunction:
        """The function of a durable endpoint, registered when it is first heard of or has changed.

        Raises:
            ConfigurationError: its application has as many endpoints as one may have.
        """
        document = endpoint_document(request, retries, sdk)
        async with self._registering:
            fn = self.by_slug.get(document["id"])
            if fn is not None and fn.document == document:
                return fn
            own = {one.slug: one.document for one in self.functions.values() if one.app == request.domain}
            if document["id"] not in own and len(own) >= MAX_ENDPOINTS:
                raise ConfigurationError(
                    f"{request.domain} has {len(own)} durable endpoints already, and no more are taken; "
                    "give endpoints whose path varies a functionId"
                )
            record = AppRecord(
                request.domain, request.domain, sdk, "endpoint", None, "endpoints", "ping", None, self._host.clock.now()
            )
            await self._store(record, [*(own | {document["id"]: document}).values()])
        return self.by_slug[document["id"]]

    async def asked(self, url: str, finding: Finding) -> None:
        """An address was asked to register, and this came of it."""
        fine = finding.level is Level.FINE
        if fine:
            self.findings.pop(url, None)
        elif self.findings.get(url) != finding:
            self.findings[url] = finding
            if self._host.notices.wanted:
                self._host.notices.publish(Notice("function", url))
        for record in list(self.apps.values()):
            if record.url == url:
                await self.failed(record.name, None if fine else finding.sentence)

    async def failed(self, name: str, error: str | None) -> None:
        """Note why an application can't be reached or synced, or that it can be again."""
        record = self.apps.get(name)
        if record is None or record.error == error:
            return
        record = msgspec.structs.replace(record, error=error)
        self.apps[name] = record
        await self._host.store.put_app(record)
        if self._host.notices.wanted:
            self._host.notices.publish(Notice("function", name))

    async def remove(self, url: str) -> bool:
        """Forget the application at an address; False when there is none."""
        for record in list(self.apps.values()):
            if record.url == url:
                await self._store(msgspec.structs.replace(record, checksum="removed"), [])
                del self.apps[record.name]
                await self._host.store.delete_app(record.name)
                return True
        return False


def _checksum(request: RegisterRequest) -> str:
    return hashlib.sha256(encode_register(msgspec.structs.replace(request, idempotency_key=None))).hexdigest()
