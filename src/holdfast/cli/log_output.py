"""How log records look: lines for people, or one JSON object each for machines. Always on standard error."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

from holdfast.base.clock import iso
from holdfast.base.masks import hide_credentials

LEVELS = ("debug", "info", "warning", "error")

_RUN_FIELDS = ("run_id", "function_id", "attempt")
_COLOURS = {
    "DEBUG": "\x1b[2m",
    "INFO": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "CRITICAL": "\x1b[1;31m",
}
_RESET = "\x1b[0m"


class PlainFormatter(logging.Formatter):
    """`12:30:01.120 info    shop-fulfil 01JB...: message`, then the traceback if there is one."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower():<8}"
        if self._colours:
            level = f"{_COLOURS.get(record.levelname, '')}{level}{_RESET}"
        run_id = getattr(record, "run_id", None)
        source = f"{getattr(record, 'function_id', '')} {run_id}" if run_id else record.name
        line = f"{_moment(record)[11:23]} {level} {source}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return hide_credentials(line)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, run_id where there is one, the traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: getattr(record, name) for name in _RUN_FIELDS if hasattr(record, name)}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        shown = {name: hide_credentials(value) if isinstance(value, str) else value for name, value in fields.items()}
        return json.dumps(shown, default=str)


def configure_logging(level: str, form: Literal["plain", "json"]) -> None:
    """Send all logging of the process to standard error, beside any handler of the app's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter(colours=sys.stderr.isatty()))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    # one line for each request says nothing that the dashboard doesn't say better
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING if level == "info" else level.upper())


def _moment(record: logging.LogRecord) -> str:
    return iso(int(record.created * 1000)) or ""
