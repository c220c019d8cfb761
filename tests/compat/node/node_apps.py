"""The applications of app.mjs, by the major version of the SDK."""

from __future__ import annotations

ROUTES = {
    "js": "/api/inngest",
    "plain": "/plain/api/inngest",
    "buffered": "/buffered/api/inngest",
    "node": "/node/api/inngest",
    "next": "/next/api/inngest",
    "remix": "/remix/api/inngest",
}
"""Where each is served."""
MAJORS = ("4", "3")
CHECKPOINTING = "js4"
"""The one that reports steps while its calls go on; 3 doesn't unless it is told to, and `plain4` is told not to."""
APPS = (CHECKPOINTING, "plain4", "js3")
"""With the whole table of functions."""
SMOKE = tuple(f"{name}{major}" for major in MAJORS for name in ("node", "next", "remix"))
