"""The events of the studio. On the wire their fields are camelCase, in Python snake_case."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from holdfast import Event

Address = Annotated[str, Field(pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$", max_length=254)]
"""An e-mail address: enough of a check to keep nonsense out; whether it exists, the mail server knows."""
Line = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\r\n]*\S[^\r\n]*$")]
"""One line of text, not blank."""
Text = Annotated[str, Field(max_length=200_000)]


class HelloWorld(Event, name="test/hello.world", alias_generator=to_camel):
    """Somebody wants to see whether it works."""

    name: Line = "world"


class EmailSend(Event, name="email/send", alias_generator=to_camel):
    """An e-mail is to be sent."""

    to: Address
    subject: Line
    text: Annotated[Text, Field(min_length=1)]
    html: Text | None = None


class StrategyGenerate(Event, name="strategy/generate", alias_generator=to_camel):
    """A marketing strategy is to be written."""

    product: Line
    audience: Line | None = None
    goal: Line | None = None


class Section(BaseModel):
    """A part of a document."""

    model_config = ConfigDict(extra="forbid")

    heading: Line
    text: Text = ""


class ExportPdf(Event, name="export/pdf", alias_generator=to_camel):
    """A document is to be exported as PDF."""

    title: Line
    sections: Annotated[list[Section], Field(min_length=1, max_length=500)]


class WebhookDeliver(Event, name="webhook/deliver", alias_generator=to_camel):
    """Something is to be reported to another system."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)]
    event: Line
    payload: dict[str, Any]


EVENTS: list[type[Event]] = [HelloWorld, EmailSend, StrategyGenerate, ExportPdf, WebhookDeliver]
