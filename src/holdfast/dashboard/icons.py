"""Signs as SVG paths on a 16 by 16 grid, drawn with the colour of the text beside them."""

from __future__ import annotations

from markupsafe import Markup

_STROKE = {
    "home": "M2.5 7.2 8 2.8l5.5 4.4v6h-3.6V9.6H6.1v3.6H2.5z",
    "runs": "M2.5 4h6M5 8h8M3.5 12h5",
    "events": "M8.8 1.8 3.4 9h4l-.4 5.2L12.6 7h-4z",
    "functions": "M5.6 3 2 8l3.6 5M10.4 3 14 8l-3.6 5",
    "crons": "M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2zM8 5v3.2l2.2 1.4",
    "dead": "M2.8 4.6h10.4M4 4.6v8.2h8V4.6M6.2 2.6h3.6M6.4 7.2v3.2M9.6 7.2v3.2",
    "audit": "M4 2.4h8v11.2H4zM6.2 5.4h3.6M6.2 8h3.6M6.2 10.6h2",
    "search": "M7 2.6a4.4 4.4 0 1 0 0 8.8 4.4 4.4 0 0 0 0-8.8zM10.3 10.3l3.2 3.2",
    "queue": "M2.6 4h2.2v2.2H2.6zM7 5.1h6.4M2.6 9.8h2.2V12H2.6zM7 10.9h6.4",
    "flow": "M2.4 3.2h11.2L9.4 8.4v4.4l-2.8-1.4v-3z",
    "pause": "M5.4 3.6v8.8M10.6 3.6v8.8",
    "check": "M3.4 8.4 6.6 11.6 12.8 4.8",
    "cross": "M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6",
    "running": "M8 2.6a5.4 5.4 0 1 1-5.4 5.4",
    "queued": "M3 4.6h10M3 8h10M3 11.4h6",
    "waiting": "M4.4 2.6h7.2M4.4 13.4h7.2M5.2 2.6v2L8 8l2.8-3.4v-2M5.2 13.4v-2L8 8l2.8 3.4v2",
    "stop": "M4.4 4.4h7.2v7.2H4.4z",
    "skip": "M3.6 4l5 4-5 4zM12 4v8",
    "retry": "M12.8 6.4A5.2 5.2 0 1 0 13.2 9M13 2.8v3.6H9.4",
    "dot": "M8 6.4a1.6 1.6 0 1 0 0 3.2 1.6 1.6 0 0 0 0-3.2z",
    "sun": "M8 5.4a2.6 2.6 0 1 0 0 5.2 2.6 2.6 0 0 0 0-5.2zM8 1.6v1.6M8 12.8v1.6M1.6 8h1.6M12.8 8h1.6"
    "M3.5 3.5l1.1 1.1M11.4 11.4l1.1 1.1M12.5 3.5l-1.1 1.1M4.6 11.4l-1.1 1.1",
    "moon": "M13 9.4A5.4 5.4 0 0 1 6.6 3a5.4 5.4 0 1 0 6.4 6.4z",
    "system": "M2.4 3.4h11.2v7.4H2.4zM5.6 13.4h4.8M8 10.8v2.6",
    "menu": "M2.6 4.4h10.8M2.6 8h10.8M2.6 11.6h10.8",
    "copy": "M5.6 5.6h7.2v7.2H5.6zM10.4 5.6V3.2H3.2v7.2h2.4",
    "arrow": "M3.2 8h9.4M9 4.4 12.6 8 9 11.6",
    "alert": "M8 2.4 14.2 13.2H1.8zM8 6.4v3M8 11.2v.2",
    "keys": "M1.8 4.2h12.4v7.6H1.8zM4.4 6.6h.2M6.8 6.6h.2M9.2 6.6h.2M11.6 6.6h.2M4.6 9.4h6.8",
    "send": "M2.4 8 13.6 2.8 10 13.4 7.6 9z",
    "edit": "M3 13l.6-2.8 7-7 2.2 2.2-7 7zM9.2 4.6l2.2 2.2",
    "play": "M5 3.4 12 8l-7 4.6z",
    "fold": "M3 8h2l1.4-3.4L9.6 11.4 11 8h2",
    "calendar": "M2.8 4h10.4v9H2.8zM2.8 6.8h10.4M5.6 2.4v2.8M10.4 2.4v2.8",
    "nodes": "M2.8 3h10.4v3.6H2.8zM2.8 9.4h10.4V13H2.8zM5 4.8h.2M5 11.2h.2",
    "link": "M6.8 9.2a2.6 2.6 0 0 0 3.7 0l2-2a2.6 2.6 0 0 0-3.7-3.7l-.8.8M9.2 6.8a2.6 2.6 0 0 0-3.7 0l-2 2a2.6 2.6 0 0 0 3.7 3.7l.8-.8",
}

LOGO = Markup(
    '<svg class="logo" viewBox="0 0 24 24" width="24" height="24" aria-hidden="true" fill="none" stroke="currentColor" '
    'stroke-width="2.2" stroke-linecap="round"><path d="M12 2.5v11"/><path d="M12 13.5c0 4-2.2 5-3.2 8"/>'
    '<path d="M12 13.5c0 4 2.2 5 3.2 8"/><path d="M12 11.5c0 4-4 4.500-7 7.500"/><path d="M12 11.500c0 4 4 4.500 7 7.500"/>'
    '<path d="M12 6.500c2.500 0 4-1.200 4.6-3"/><path d="M12 8.500c-2.500 0-4-1.200-4.6-3"/></svg>'
)
"""A holdfast: the root by which kelp clings to rock."""


def icon(name: str) -> Markup:
    """The sign as inline SVG, hidden from screen readers: it always stands beside its label."""
    return Markup(  # noqa: S704 - only the constants above
        f'<svg class="icon icon-{name}" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" fill="none" '
        f'stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"><path d="{_STROKE[name]}"/></svg>'
    )
