"""Which functions an event starts: an index from names to triggers."""

from __future__ import annotations

import msgspec

from holdfast.core.expressions import Expression, compile_expression


class Route(msgspec.Struct, gc=False, frozen=True):
    """A trigger, compiled."""

    function_id: int
    version: int
    expression: Expression | None
    lane: str


class Router:
    """The index. Patterns of an event: its name, each `/`-prefix with `/*`, each `.`-prefix with `.*` (protocol section 3)."""

    __slots__ = ("_exact", "_wild")

    def __init__(self) -> None:
        self._exact: dict[str, tuple[Route, ...]] = {}
        self._wild: dict[str, tuple[Route, ...]] = {}

    def add(self, pattern: str, function_id: int, version: int, expression: str | None) -> None:
        """Index a trigger."""
        compiled = compile_expression(expression) if expression else None
        route = Route(function_id, version, compiled, str(function_id))
        table = self._wild if pattern.endswith("*") else self._exact
        table[pattern] = (*table.get(pattern, ()), route)

    def remove(self, function_id: int) -> None:
        """Take the triggers of a function out."""
        for table in (self._exact, self._wild):
            for pattern, routes in list(table.items()):
                rest = tuple(route for route in routes if route.function_id != function_id)
                if rest:
                    table[pattern] = rest
                else:
                    del table[pattern]

    def candidates(self, name: str) -> tuple[Route, ...]:
        """Routes whose pattern fits a name; their expressions are still to be asked."""
        found = self._exact.get(name, ())
        if self._wild:
            for pattern in patterns(name):
                found += self._wild.get(pattern, ())
        return found


def patterns(name: str) -> list[str]:
    """The wildcard patterns that match a name."""
    out = ["*"]
    for separator in "/.":
        parts = name.split(separator)
        out.extend(separator.join(parts[:count]) + separator + "*" for count in range(1, len(parts)))
    return out
