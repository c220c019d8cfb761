"""Functions and their flow control, as the command line reads them from a server."""

from __future__ import annotations

import difflib
from urllib.parse import quote

from msgspec import Struct

from holdfast.cli.api import ApiError, ServerApi


class LimitedKey(Struct, frozen=True):
    """How a rule stands for a key."""

    key: str
    used: int
    waiting: int
    since: str | None
    until: str | None


class Rule(Struct, frozen=True):
    """A rule and how it stands."""

    name: str
    words: str
    limit: int | None
    declared: int | None
    key: str | None
    used: int | None
    waiting: int
    since: str | None
    hot_keys: list[LimitedKey]
    more: bool


class Backlog(Struct, frozen=True):
    """What a function has to do."""

    queued: int
    running: int
    delayed: dict[str, int]
    oldest: str | None
    more: bool


class Flow(Struct, frozen=True):
    """A function, its state and its flow control."""

    function: str
    name: str
    app: str
    paused: str | None
    rules: list[Rule]
    backlog: Backlog
    gathering: int


class Flushed(Struct, frozen=True):
    """How many runs a request started."""

    started: int


def all_functions(api: ServerApi) -> list[Flow]:
    """The functions of the apps' code."""
    return api.get("/v1/flow", list[Flow]).data


def function_named(api: ServerApi, name: str) -> Flow:
    """A function by `<app>-<id>`, or by its id alone where one app has it.

    Raises:
        ApiError: there is none, or several.
    """
    known = all_functions(api)
    found = [one for one in known if name == one.function] or [
        one for one in known if one.function == f"{one.app}-{name}"
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise ApiError(f"several apps have a function {name!r}: {', '.join(one.function for one in found)}; name one of them")
    close = difflib.get_close_matches(name, [one.function for one in known], n=1)
    remedy = f"did you mean {close[0]!r}?" if close else "`holdfast functions` lists those there are"
    raise ApiError(f"there is no function {name!r}; {remedy}")


def path_of(function: Flow, what: str) -> str:
    """The address of something about a function."""
    return f"/v1/functions/{quote(function.function, safe='')}/{what}"
