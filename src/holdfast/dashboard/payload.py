"""JSON as pages show it: pretty, exact to the last digit, folded when long, and escaped whatever it says."""

from __future__ import annotations

import re

import msgspec
from markupsafe import Markup, escape

from holdfast.dashboard import humanize

FOLD_LINES = 24
"""Longer payloads start folded."""
MAX_CHARS = 200_000
"""Longer payloads are cut on the page; the raw document has all of it."""
_MAX_COLOURED = 60_000

_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<str>"(?:[^"\\]|\\.)*")|(?P<num>-?\d[\d.eE+-]*)|(?P<lit>\b(?:true|false|null)\b)'
)


class Payload(msgspec.Struct, frozen=True):
    """A JSON document ready for a page."""

    html: Markup
    size: str
    lines: int
    folded: bool
    cut: bool
    """Not all of it is here."""
    inline: str
    """The beginning on one line, for lists."""


def show(raw: bytes | None) -> Payload | None:
    """Prepare a document; None for None."""
    if raw is None:
        return None
    text = pretty(raw)
    cut = len(text) > MAX_CHARS
    text = text[:MAX_CHARS]
    html = colour(text) if len(text) <= _MAX_COLOURED else escape(text)
    lines = text.count("\n") + 1
    return Payload(html, humanize.size(len(raw)), lines, lines > FOLD_LINES or len(text) > 4000, cut, inline(raw))


def pretty(raw: bytes) -> str:
    """Indented by two; numbers keep their digits. What isn't JSON is shown as it is."""
    try:
        return msgspec.json.format(raw, indent=2).decode("utf-8", "replace")
    except msgspec.DecodeError:
        return raw.decode("utf-8", "replace")


def inline(raw: bytes, limit: int = 160) -> str:
    """The beginning of the compact form."""
    head = raw[: limit * 8]
    try:
        text = msgspec.json.format(head, indent=-1).decode("utf-8", "replace")
    except msgspec.DecodeError:
        # cut in the middle, or not JSON
        text = re.sub(r"\s+", " ", head.decode("utf-8", "replace"))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def colour(text: str) -> Markup:
    """Wrap keys, strings, numbers and literals in spans; everything is escaped."""
    out: list[str] = []
    at = 0
    for match in _TOKEN.finditer(text):
        out.append(str(escape(text[at : match.start()])))
        out.append(f'<span class="j-{match.lastgroup}">{escape(match.group())}</span>')
        at = match.end()
    out.append(str(escape(text[at:])))
    return Markup("".join(out))  # noqa: S704 - every piece was escaped above
