"""Applications: which are called over HTTP, whether they could be synced and what to do if not, and those of this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.findings import Finding, Level
from holdfast.dashboard.forms import Form
from holdfast.dashboard.site import Site
from holdfast.store.reads import FunctionView
from holdfast.store.sqlite.registry import AppRecord

MAX_URL = 2000
_ELSEWHERE = "Its SDK may be told of another server: set INNGEST_BASE_URL, or INNGEST_DEV, for the application."
_LANGUAGES = {"py": "Python", "js": "TypeScript", "go": "Go"}


class AppLine(msgspec.Struct, frozen=True, kw_only=True):
    """An application of the list."""

    name: str | None
    """None for an address at which nothing has registered yet."""
    url: str | None
    """None for an app of this process."""
    sdk: str = ""
    framework: str = ""
    version: str | None = None
    synced_at: int | None = None
    problem: Finding | None = None
    functions: tuple[FunctionView, ...] = ()
    local: bool = False
    """Whether its functions run in this process."""


async def show(site: Site, request: Request) -> Response:
    applications = site.engine.applications
    return await site.page(
        request,
        "apps.html",
        title="Apps",
        section="apps",
        live="function",
        every=30_000,
        lines=lines(applications.apps, applications.findings, await site.reader.functions(), sorted(site.engine.apps)),
        can_ask=site.asker is not None,
    )


def lines(
    records: Mapping[str, AppRecord],
    findings: Mapping[str, Finding],
    functions: Sequence[FunctionView],
    local: Sequence[str],
) -> list[AppLine]:
    """The applications: those with a problem first, those of this process last."""
    of_app: dict[str, list[FunctionView]] = {}
    for function in functions:
        if not function.archived:
            of_app.setdefault(function.app, []).append(function)
    known = {record.url for record in records.values()}
    out = [AppLine(name=None, url=url, problem=finding) for url, finding in sorted(findings.items()) if url not in known]
    out += [_registered(record, findings, of_app.get(name, []), name in local) for name, record in sorted(records.items())]
    out += [AppLine(name=name, url=None, functions=tuple(of_app.get(name, [])), local=True) for name in local if name not in records]
    return sorted(out, key=lambda line: (line.problem is None, line.url is None))


def _registered(
    record: AppRecord, findings: Mapping[str, Finding], functions: Sequence[FunctionView], local: bool
) -> AppLine:
    problem = None
    if record.error is not None:
        # after a restart only the sentence is known, until the application is asked again
        problem = findings.get(record.url) or Finding(Level.WRONG, "sync failed", record.error)
    return AppLine(
        name=record.name,
        url=record.url,
        sdk=sdk_words(record.sdk),
        framework=record.framework,
        version=record.version,
        synced_at=record.synced_at,
        problem=problem,
        functions=tuple(functions),
        local=local,
    )


def sdk_words(sdk: str) -> str:
    """An SDK as people say it: `py:v0.5.18` is Python 0.5.18."""
    language, _, version = sdk.partition(":")
    return f"{_LANGUAGES.get(language, language)} {version.removeprefix('v')}".strip()


# -- changing --------------------------------------------------------------------------------------------------------


async def sync(site: Site, request: Request, form: Form) -> Response:
    """Ask an address to register: a new one, or again."""
    url = _url(form)
    if site.asker is None:
        raise HTTPException(404, "This server asks no applications to register.")
    before = {record.url for record in site.engine.applications.apps.values()}
    finding = await site.asker.sync(url)
    await site.audit(request, "app.sync", url, "" if finding.level is Level.FINE else finding.subject)
    if finding.level is not Level.FINE:
        return _back(site, request, f"Not synced, {finding.subject}: {finding.sentence}", tone="bad")
    if all(record.url != url for record in site.engine.applications.apps.values()):
        return _back(site, request, f"{url} answered, but registered nothing here. {_ELSEWHERE}", tone="bad")
    return _back(site, request, "Synced." if url in before else "Added.")


async def remove(site: Site, request: Request, form: Form) -> Response:
    """Forget an application: its functions start no more runs until it registers again."""
    url = _url(form)
    known = site.engine.applications.findings.pop(url, None) is not None
    if not await site.engine.applications.remove(url) and not known:
        raise HTTPException(404, f"There is no application at '{url[:120]}'.")
    await site.audit(request, "app.remove", url)
    return _back(site, request, "Removed. Its runs and their history stay.")


def _url(form: Form) -> str:
    url = form.get("url").strip()
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or len(url) > MAX_URL:
        raise HTTPException(400, f"'{url[:120]}' is no address of an application; write it as http://localhost:3000/api/inngest.")
    return url


def _back(site: Site, request: Request, said: str, *, tone: str = "ok") -> Response:
    return site.redirect(request, site.url(request, "/apps"), said, tone=tone)
