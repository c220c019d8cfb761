"""What an expression may cost: loops within loops over long lists would hold up everything else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MAX_COST = 1_000_000
"""Passes of an expression's innermost loop, at most."""
_LOOP = re.compile(r"\.\s*(?:map|filter|all|exists|exists_one)\s*\(|[()]")


def loop_depth(source: str) -> int:
    """How deep an expression loops: 1 for `xs.exists(x, x > 1)`.

    Args:
        source: The expression, without the contents of its strings.
    """
    deepest, parentheses = 0, [False]
    for found in _LOOP.finditer(source):
        if found.group() == ")":
            if len(parentheses) > 1:
                parentheses.pop()
        else:
            parentheses.append(found.group() != "(")
            deepest = max(deepest, sum(parentheses))
    return deepest


def cost_of(source: str, depth: int, variables: Iterable[Any]) -> int:
    """At most how often the innermost loop of an expression runs over these variables; 0 without loops.

    Where it concatenates, each pass counts as many times as the longest text has thousand characters.
    """
    if not depth:
        return 0
    longest, text, left = 1, 0, list(variables)
    while left:
        value = left.pop()
        if isinstance(value, dict):
            longest = max(longest, len(value))
            left.extend(value.values())
        elif isinstance(value, list):
            longest = max(longest, len(value))
            left.extend(value)
        elif isinstance(value, str):
            text = max(text, len(value))
    joins = source.count("+")
    # a list in the expression itself, and lists put together, may be longer than any of the event's
    items = max(longest * (joins + 1), source.count(",") + 1)
    passes: int = items**depth
    return passes * (1 + (joins * text) // 1000)
