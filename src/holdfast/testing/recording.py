"""What an execution left behind, reduced to what a crash must not change; and the first difference between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from holdfast.base.codec import encode_json
from holdfast.testing.observed import ObservedError, ObservedRun, ObservedStep

Label: TypeAlias = tuple[str, int]
"""A name, and a number from 1 among those of the same name."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Runs and sent events, in an order and under labels that don't depend on ids."""

    runs: dict[Label, ObservedRun[Any]]
    """By function and number."""
    sent: dict[Label, Any]
    """Data of the events sent from steps, by event name and number."""
    notes: tuple[str, ...]
    """What the engine remarked about the runs."""


def record(runs: Sequence[ObservedRun[Any]]) -> Recording:
    """Label what there is."""
    ordered = sorted(runs, key=lambda run: (run.function, _json(run.event.data if run.event else None), run.id))
    names = [run.function for run in ordered]
    events = sorted((event for run in runs for event in run.sent), key=lambda event: (event.name, _json(event.data)))
    return Recording(
        runs=dict(zip(_numbered(names), ordered, strict=True)),
        sent=dict(zip(_numbered([event.name for event in events]), [event.data for event in events], strict=True)),
        notes=tuple(dict.fromkeys(f"{run.function}: {note}" for run in ordered for note in run.notes)),
    )


def _numbered(names: Sequence[str]) -> Iterator[Label]:
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        yield name, seen[name]


def _json(value: Any) -> bytes:
    return encode_json(value, "event data")


def difference(
    expected: Recording, other: Recording, actual: Recording, varies: Collection[str] = ()
) -> str | None:
    """The first difference between an execution and what was expected of it, in words; None where there is none.

    Args:
        expected: An execution without a crash.
        other: Another one: values in which the two differ (random ids, real times) are not compared. The same object
            compares everything.
        actual: The execution in question.
        varies: Keys of objects whose values are not compared, at any depth of results, outputs and events.
    """
    found = _of_counts("function {} ran", expected.runs, actual.runs)
    if found is not None:
        return found
    for label, run in expected.runs.items():
        name = _name(label, expected.runs)
        found = _of_run(name, run, other.runs.get(label, run), actual.runs[label], varies)
        if found is not None:
            return found
    found = _of_counts("event {} was sent from a step", expected.sent, actual.sent)
    if found is not None:
        return found
    for label, data in expected.sent.items():
        if not _same(data, other.sent.get(label, data), actual.sent[label], varies):
            return f"event {_name(label, expected.sent)} carried {actual.sent[label]!r} instead of {data!r}"
    remarks = [note for note in actual.notes if note not in expected.notes and note not in other.notes]
    return f"holdfast noted on {remarks[0]}" if remarks else None


def _name(label: Label, labels: Iterable[Label]) -> str:
    name, number = label
    return name if (name, 2) not in labels else f"{name} (number {number})"


def _of_counts(what: str, expected: Iterable[Label], actual: Iterable[Label]) -> str | None:
    wanted, found = (Counter(name for name, _ in labels) for labels in (expected, actual))
    for name in wanted | found:
        if wanted[name] != found[name]:
            return f"{what.format(repr(name))} {_times(found[name])} instead of {_times(wanted[name])}"
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else "not at all" if count == 0 else f"{count} times"


def _of_run(
    label: str,
    expected: ObservedRun[Any],
    other: ObservedRun[Any],
    actual: ObservedRun[Any],
    varies: Collection[str],
) -> str | None:
    mine, theirs = (" -> ".join(repr(step.id) for step in run.steps) or "none" for run in (expected, actual))
    if {step.id for step in expected.steps} != {step.id for step in actual.steps}:
        return f"{label} recorded other steps: {theirs} instead of {mine}"
    if expected.status != actual.status:
        why = f" ({_error_text(actual.error)})" if actual.error is not None else ""
        return f"{label} ended {actual.status}{why} instead of {expected.status}"
    for step in expected.steps:
        twin = next((one for one in other.steps if one.id == step.id), step)
        now = actual.step(step.id)
        if (step.kind, step.state) != (now.kind, now.state):
            return f"step {step.id!r} of {label} is {now.kind}, {now.state} instead of {step.kind}, {step.state}"
        if _error_text(step.error) != _error_text(now.error) and _error_text(step.error) == _error_text(twin.error):
            return (
                f"step {step.id!r} of {label} failed with {_error_text(now.error)} instead of {_error_text(step.error)}"
            )
        if not _same(_value(step), _value(twin), _value(now), varies):
            return f"step {step.id!r} of {label} recorded {now.result!r} instead of {step.result!r}"
    if not _same(expected.output, other.output, actual.output, varies):
        return f"{label} returned {actual.output!r} instead of {expected.output!r}"
    if _error_text(expected.error) != _error_text(actual.error) and _error_text(expected.error) == _error_text(
        other.error
    ):
        return f"{label} failed with {_error_text(actual.error)} instead of {_error_text(expected.error)}"
    return None


def _value(step: ObservedStep) -> Any:
    """A step's result without what is different each time: the ids of the events it sent."""
    return len(step.result) if step.kind == "send" and isinstance(step.result, list) else step.result


def _error_text(error: ObservedError | None) -> str:
    return "no error" if error is None else f"{error.name}: {error.message}"


def _same(expected: Any, other: Any, actual: Any, varies: Collection[str]) -> bool:
    """Whether a value is the expected one wherever two undisturbed executions agree on it."""
    if isinstance(expected, dict) and isinstance(other, dict) and expected.keys() == other.keys():
        return (
            isinstance(actual, dict)
            and actual.keys() == expected.keys()
            and all(key in varies or _same(expected[key], other[key], actual[key], varies) for key in expected)
        )
    if isinstance(expected, list) and isinstance(other, list) and len(expected) == len(other):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(_same(*values, varies) for values in zip(expected, other, actual, strict=True))
        )
    return bool(expected != other or expected == actual)
