"""`python -m examples.studio`: check the environment, then serve."""

from __future__ import annotations

import argparse
import sys

import uvicorn

from .main import create_api
from .settings import Settings, SettingsError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="studio", description="The studio, with its durable functions in the same process."
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; default %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s")
    options = parser.parse_args()
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(create_api(settings), host=options.host, port=options.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
