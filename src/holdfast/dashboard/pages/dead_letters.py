"""Dead letters: grouped by their error, to be redriven or discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.base.errors import HoldfastError
from holdfast.dashboard import humanize
from holdfast.dashboard.forms import Form
from holdfast.dashboard.site import Site
from holdfast.store.reads import DeadLetterView

SCAN = 1000
"""Letters looked at for grouping."""
PAGE = 50
STATES = ("dead", "redriven", "discarded")


class Group(msgspec.Struct, frozen=True):
    """Letters of one function with the same error."""

    fingerprint: str
    function: str
    function_name: str
    error: str
    count: int
    first_at: int
    last_at: int
    runs: tuple[str, ...]


async def show(site: Site, request: Request) -> Response:
    params = request.query_params
    state = params.get("state", "dead")
    state = state if state in STATES else "dead"
    fingerprint, function = params.get("fingerprint", ""), params.get("function", "")
    cursor = params.get("cursor") or None
    (scanned, more), (letters, older) = await asyncio.gather(
        site.reader.dead_letters(state=state, limit=SCAN),
        site.reader.dead_letters(
            state=state, function=function or None, fingerprint=fingerprint or None, limit=PAGE, cursor=cursor
        ),
    )
    return await site.page(
        request,
        "dead_letters.html",
        title="Dead letters",
        section="dead",
        live="dead run",
        state=state,
        states=STATES,
        groups=group(scanned),
        scan=SCAN if more else None,
        letters=letters,
        older=older,
        fingerprint=fingerprint,
        function=function,
        cursor=cursor,
    )


def group(letters: Sequence[DeadLetterView]) -> list[Group]:
    """Letters by function and error, largest group first."""
    found: dict[tuple[str, str], list[DeadLetterView]] = {}
    for letter in letters:
        found.setdefault((letter.function, letter.fingerprint), []).append(letter)
    groups = [
        Group(
            fingerprint,
            function,
            members[0].function_name,
            members[0].error,
            len(members),
            min(m.at for m in members),
            max(m.at for m in members),
            tuple(m.run_id for m in members),
        )
        for (function, fingerprint), members in found.items()
    ]
    return sorted(groups, key=lambda g: (-g.count, -g.last_at))


async def redrive(site: Site, request: Request, form: Form) -> Response:
    """Make a new run of each chosen letter, with its finished steps."""
    done, refused, last = 0, "", ""
    for run_id in await _chosen(site, form):
        try:
            last = await site.engine.redrive(run_id)
        except HoldfastError as error:
            refused = str(error)
            continue
        done += 1
        await site.engine.audit(site.guard.actor(request), "run.redrive", run_id, f"as {last}")
    if done == 1 and not refused:
        return site.redirect(
            request, site.url(request, f"/runs/{last}"), "Redriven, as this new run. Finished steps were kept."
        )
    return _answer(site, request, done, "redriven", refused)


async def discard(site: Site, request: Request, form: Form) -> Response:
    """Give the chosen letters up."""
    done, refused = 0, ""
    for run_id in await _chosen(site, form):
        try:
            changed = await site.engine.discard(run_id)
        except HoldfastError as error:
            refused = str(error)
            continue
        if changed:
            done += 1
            await site.engine.audit(site.guard.actor(request), "run.discard", run_id)
    return _answer(site, request, done, "discarded", refused)


async def _chosen(site: Site, form: Form) -> list[str]:
    """The runs of the form, or all dead letters of its group as they are now."""
    if not form.get("fingerprint"):
        return list(dict.fromkeys(form.all("run")))[:SCAN]
    letters, _ = await site.reader.dead_letters(
        state="dead", function=form.get("function") or None, fingerprint=form.get("fingerprint"), limit=SCAN
    )
    return [letter.run_id for letter in letters]


def _answer(site: Site, request: Request, done: int, verb: str, refused: str) -> Response:
    said = f"{humanize.plural(done, 'dead letter')} {verb}." if done else "Nothing was changed."
    if refused:
        said += f" {refused}"
    return site.redirect(
        request, site.url(request, "/dead-letters"), said, tone="ok" if done and not refused else "bad"
    )
