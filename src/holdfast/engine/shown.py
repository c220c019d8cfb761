"""What is read for people: the store's reader, with marked fields masked.

Pages, the API and the command line read through this and nothing else. Functions get their payloads from the store itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from holdfast.base.masks import Masks, hide, hide_in, hide_in_document
from holdfast.engine.engine import Engine
from holdfast.store.reads import AttemptView, EventView, Reader, RunDetail, RunView, StepView

SETTING = "HOLDFAST_MASK"
DOCUMENT_FIELD = "sensitive"
"""Where a function's registration document has the marked fields, for servers without the application's code."""

_REQUESTS = frozenset({"fetch", "ai"})
_CREDENTIALS = Masks(["auth_key", "headers"])


def shown(engine: Engine, paths: Iterable[str] = ()) -> Reader:
    """The reader of an engine for people.

    Args:
        engine: The engine.
        paths: Fields that are masked besides those that applications have marked.
    """
    return cast("Reader", _Shown(engine, paths))


class _Shown:
    def __init__(self, engine: Engine, paths: Iterable[str]) -> None:
        self._engine = engine
        self._paths = frozenset(paths)
        self._masks = Masks(self._paths)

    def __getattr__(self, name: str) -> Any:
        # all else has no payloads in it
        return getattr(self._engine.reader, name)

    async def event(self, internal_id: str) -> EventView | None:
        view = await self._engine.reader.event(internal_id)
        return None if view is None else _event(await self._current(), view)

    async def events(self, **where: Any) -> tuple[Sequence[EventView], str | None]:
        views, cursor = await self._engine.reader.events(**where)
        masks = await self._current()
        return [_event(masks, view) for view in views], cursor

    async def run(self, run_id: str) -> RunDetail | None:
        detail = await self._engine.reader.run(run_id)
        return None if detail is None else _run(await self._current(), detail)

    async def _current(self) -> Masks:
        """The marks of all functions on record, archived ones too, and of the apps of this process."""
        paths = set(self._paths)
        for function in await self._engine.reader.functions():
            marked = function.config.get(DOCUMENT_FIELD)
            paths.update(str(one) for one in marked if one) if isinstance(marked, list) else None
        for app in self._engine.apps.values():
            paths.update(app.sensitive_paths)
        if paths != set(self._masks.paths):
            self._masks = Masks(paths)
        return self._masks


def _event(masks: Masks, view: EventView) -> EventView:
    if not masks:
        return view
    return msgspec.structs.replace(view, data=masks.document(view.data), meta=masks.value(view.meta))


def _run(masks: Masks, detail: RunDetail) -> RunDetail:
    """A run with its marked fields masked; and their values as well, where they have got into other text of it."""
    detail = msgspec.structs.replace(detail, steps=tuple(map(_without_credentials, detail.steps)))
    if not masks:
        return detail
    documents = [detail.event.data if detail.event is not None else None, detail.output]
    for step in detail.steps:
        documents += [step.data, step.asked, *(attempt.input for attempt in step.attempts)]
    values = frozenset().union(*(masks.hidden_in(raw) for raw in documents if raw is not None))
    cover = _Cover(masks, values)
    return msgspec.structs.replace(
        detail,
        run=cover.run(detail.run),
        event=None if detail.event is None else _event(masks, detail.event),
        steps=tuple(map(cover.step, detail.steps)),
        function_attempts=tuple(map(cover.attempt, detail.function_attempts)),
        logs=tuple(msgspec.structs.replace(line, message=hide(line.message, values)) for line in detail.logs),
        output=cover.document(detail.output),
        error=cover.plain(detail.error),
        children=tuple(map(cover.run, detail.children)),
        notes=tuple(hide(note, values) for note in detail.notes),
    )


def _without_credentials(view: StepView) -> StepView:
    """A request that is still to be made has the caller's keys in it, whatever an application has marked."""
    if view.kind not in _REQUESTS or view.state == "done" or view.data is None:
        return view
    return msgspec.structs.replace(view, data=_CREDENTIALS.document(view.data))


class _Cover:
    def __init__(self, masks: Masks, values: frozenset[str]) -> None:
        self._masks = masks
        self._values = values

    def document(self, raw: bytes | None) -> bytes | None:
        return None if raw is None else hide_in_document(self._masks.document(raw), self._values)

    def plain(self, value: Any) -> Any:
        masked = self._masks.value(value)
        return hide_in(masked, self._values) if self._values else masked

    def run(self, view: RunView) -> RunView:
        return view if view.error is None else msgspec.structs.replace(view, error=hide(view.error, self._values))

    def attempt(self, view: AttemptView) -> AttemptView:
        return msgspec.structs.replace(view, error=self.plain(view.error), input=self.document(view.input))

    def step(self, view: StepView) -> StepView:
        return msgspec.structs.replace(
            view,
            data=self.document(view.data),
            error=self.plain(view.error),
            asked=self.document(view.asked),
            attempts=tuple(map(self.attempt, view.attempts)),
        )
