"""Ways to other tests' helpers: an application that speaks the protocol, and the real command."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for part in ("server", "cli"):
    if str(TESTS / part) not in sys.path:
        sys.path.append(str(TESTS / part))
