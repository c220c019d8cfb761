"""What `step.invoke` can be pointed at."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from holdfast.sdk.events import Event

E = TypeVar("E", bound=Event)
R = TypeVar("R")


class Target(Generic[E, R]):
    """A function that takes an event of type E and returns R, here or elsewhere."""

    __slots__ = ()

    @property
    def slug(self) -> str:
        """`<app>-<function id>`, the id on the wire."""
        raise NotImplementedError

    @property
    def result_type(self) -> Any:
        """What its result is read back as."""
        raise NotImplementedError
