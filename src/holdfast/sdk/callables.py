"""What is known of the bodies of steps: whether they are async, and how their results are written and read."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from holdfast.base.codec import ResultCodec

_AWAITED = frozenset({Awaitable, Coroutine})


def return_type(fn: Callable[..., Any]) -> Any:
    """What a callable's annotation says it returns once awaited, or Any where there is none that can be resolved."""
    try:
        found = get_type_hints(fn).get("return", Any)
    except Exception:  # annotations may name things that exist for type checkers only
        return Any
    return get_args(found)[-1] if get_origin(found) in _AWAITED and get_args(found) else found


class Callee:
    """What is known of a step's body."""

    __slots__ = ("codec", "is_async")

    def __init__(self, fn: Callable[..., Any]) -> None:
        inner = inspect.unwrap(fn) if not inspect.ismethod(fn) else fn
        target: Any = fn
        if not inspect.isroutine(fn) and not inspect.isclass(fn):
            # a partial, or an object with __call__
            target = getattr(fn, "func", getattr(type(fn), "__call__"))  # noqa: B004, B009 - the method itself is wanted
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(target)
        annotation = inner if inspect.isclass(inner) else return_type(target if inner is fn else inner)
        self.codec = ResultCodec.of(annotation)


class Callables:
    """Callees, kept for as long as their functions live."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, Callee] = WeakKeyDictionary()

    def of(self, fn: Callable[..., Any]) -> Callee:
        """What is known of a body."""
        key = getattr(fn, "__func__", fn)
        try:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = Callee(fn)
        except TypeError:  # not weakly referable, or not hashable: worked out each time
            return Callee(fn)
        return known
