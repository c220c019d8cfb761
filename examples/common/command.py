"""The command of an application: check the environment, then serve."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from .environment import SettingsError


def serve(name: str, what: str, read_settings: Callable[[], Any], create_api: Callable[[Any], Any]) -> int:
    """Serve an application until it is told to stop; the exit status, 2 where its environment is not right.

    Args:
        name: The command's name.
        what: The application in words, for the command's help.
        read_settings: Reads and checks the environment.
        create_api: Makes the web application.
    """
    parser = argparse.ArgumentParser(prog=name, description=f"{what}, with its durable functions in the same process.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; default %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s")
    options = parser.parse_args()
    try:
        settings = read_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(create_api(settings), host=options.host, port=options.port, log_level="warning")
    return 0
