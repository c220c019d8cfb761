"""What the dashboard asks of whoever asks applications to register."""

from __future__ import annotations

from typing import Protocol

from holdfast.base.findings import Finding


class Asker(Protocol):
    """Asks applications to register, as the server implements it."""

    async def sync(self, url: str) -> Finding:
        """Ask the serve route at an address now; what came of it, which the engine keeps too."""
        ...
