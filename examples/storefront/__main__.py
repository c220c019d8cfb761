"""`python -m examples.storefront`: check the environment, then serve."""

from __future__ import annotations

import sys

from examples.common.command import serve

from .main import create_api
from .settings import Settings


def main() -> int:
    return serve("storefront", "The shop", Settings.from_environment, create_api)


if __name__ == "__main__":
    sys.exit(main())
