"""CEL expressions over events: compiled once, missing fields read as null, failures count as no match.

The language is the protocol's (section 3): variables `event` (what triggered) and `async` (what arrives), and in searches for
runs `output` and `error`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from holdfast.base.errors import ConfigurationError
from holdfast.core.expression_cost import MAX_COST, cost_of, loop_depth

MAX_EXPRESSION_LENGTH = 4096
_STRING = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
_PATH = re.compile(r"\b(event|async|output|error)((?:\.[A-Za-z_]\w*(?!\w*\s*\())+)")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_RESERVED = frozenset(
    {
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    }
)
_HAS = re.compile(r"\bhas\s*\(\s*(?:event|async|output|error)[\w.]*\s*\)")


class Expression:
    """A compiled expression."""

    __slots__ = ("_depth", "_paths", "_plain", "_program", "source")

    def __init__(self, source: str) -> None:
        if len(source) > MAX_EXPRESSION_LENGTH:
            raise ConfigurationError(f"expression is longer than {MAX_EXPRESSION_LENGTH} characters")
        self.source = source
        # imported here: the package brings a command line of its own along, 75 ms that most programs don't need
        import cel

        try:
            self._program = cel.compile(source)
        except Exception as error:
            raise ConfigurationError(f"{source!r} is not a valid expression: {error}") from error
        self._plain = _STRING.sub('""', source)
        self._depth = loop_depth(self._plain)
        bare = _HAS.sub("", self._plain)
        self._paths = tuple({(root, tuple(rest[1:].split("."))) for root, rest in _PATH.findall(bare)})

    def evaluate(self, **variables: dict[str, Any]) -> Any:
        """The value over these variables.

        Raises:
            ValueError: it can't be evaluated over them: types that don't compare, unknown functions, loops that take too long.
        """
        if self._depth and (cost := cost_of(self._plain, self._depth, variables.values())) > MAX_COST:
            raise ValueError(
                f"{self.source!r} would take up to {cost:,} passes over this event, {MAX_COST:,} are allowed: "
                "loop over a shorter list, or do it in the function"
            )
        context: dict[str, Any] = dict(variables)
        for root, path in self._paths:
            if root in context:
                context[root] = _with_null(context[root], path)
        try:
            return self._program.execute(context)
        except Exception as error:
            raise ValueError(f"{self.source!r}: {error}") from error

    def matches(self, **variables: dict[str, Any]) -> bool:
        """Whether it is true over these variables; what can't be evaluated isn't true."""
        try:
            return self.evaluate(**variables) is True
        except ValueError:
            return False


def field_equals(root: str, path: str, value: object) -> str:
    """The expression that a field has a value: `async.data.order_id == "o1"`, whatever the field is called."""
    literal = msgspec.json.encode(value).decode()
    holders, _, last = path.rpartition(".")
    field = field_access(root, path)
    if field.endswith(f".{last}"):
        return f"{field} == {literal}"
    # what is missing reads as null in dotted paths only
    missing = f"!({_quoted(last)} in {field_access(root, holders)}) || " if value is None else ""
    return f"({missing}{field} == {literal})"


def field_access(root: str, path: str) -> str:
    """The expression of a field: `async.data.order_id`, or in brackets from the first name on that isn't a plain one."""
    field, plain = root, True
    for name in path.split(".") if path else ():
        plain = plain and _dotted(name)
        field += f".{name}" if plain else f"[{_quoted(name)}]"
    return field


def _dotted(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _with_null(value: Any, path: tuple[str, ...]) -> Any:
    if not path or not isinstance(value, dict):
        return value
    head, rest = path[0], path[1:]
    inner = value.get(head)
    filled = _with_null({} if inner is None and rest else inner, rest)
    if head in value and filled is inner:
        return value
    return {**value, head: filled}


def compiler_said(error: ConfigurationError) -> str:
    """What the compiler says of an expression that isn't valid, in the form in which the protocol's tools know it."""
    text = str(error.__cause__ or error)
    return text[max(0, text.find("ERROR: ")) :].replace("\n| ", "\n | ")


@lru_cache(maxsize=4096)
def compile_expression(source: str) -> Expression:
    """The compiled form of an expression.

    Raises:
        ConfigurationError: it isn't valid CEL.
    """
    return Expression(source)
