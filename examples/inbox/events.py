"""The events of the inbox. On the wire their fields are camelCase, in Python snake_case."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.alias_generators import to_camel

from holdfast import Event

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
"""Part of Redis keys, so it has no colons, spaces or braces."""
Request = Annotated[str, Field(min_length=1, max_length=200)]
Source = Annotated[str, Field(min_length=1, max_length=100)]
Priority = Annotated[int, Field(ge=-43_200, le=43_200)]
"""Seconds by which it goes ahead of others."""


class CountsDirty(Event, name="inbox.counts.dirty", alias_generator=to_camel):
    """A client's messages have changed, so that its counts are no longer true."""

    client_id: Id
    request_id: Request
    source: Source
    priority: Priority | None = None


class CountsRecompute(Event, name="inbox.counts.recompute", alias_generator=to_camel):
    """A client's counts are to be worked out."""

    client_id: Id
    request_id: Request
    source: Source
    priority: Priority | None = None


class AggregatesRecompute(Event, name="analytics.aggregates.recompute", alias_generator=to_camel):
    """A client's aggregates are older than they may be."""

    client_id: Id
    request_id: Request
    source: Source
    priority: Priority | None = None


class ProcessRequested(Event, name="background/process.requested", alias_generator=to_camel):
    """Whatever is marked dirty is to be taken care of; of one client, or of all."""

    request_id: Request
    source: Source
    client_id: Id | None = None


EVENTS: list[type[Event]] = [CountsDirty, CountsRecompute, AggregatesRecompute, ProcessRequested]
