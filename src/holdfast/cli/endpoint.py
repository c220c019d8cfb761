"""Looking at an application's serve endpoint from outside: asks for its introspection and says what went wrong."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from holdfast.base.clock import monotonic
from holdfast.base.findings import Finding, note, wrong
from holdfast.cli.api import reason
from holdfast.wire.diagnosis import SERVE_PATH, Seen, Silence, diagnose, introspection_of, no_answer

_LIMIT = 256 * 1024


class NoAnswerError(Exception):
    """The address gave no HTTP answer; `timed_out` tells silence from refusal."""

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__(why)
        self.timed_out = timed_out


def examine(url: str, timeout: float = 10.0) -> list[Finding]:
    """Everything there is to say about an application's endpoint.

    Args:
        url: Its address; without a path, the serve path is added.
        timeout: Seconds for the whole answer to arrive.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return [wrong("address", f"{url!r} is not an address", f"Write it as http://127.0.0.1:8000{SERVE_PATH}")]
    bare = parts.path in {"", "/"}
    target = urlunsplit(parts._replace(path=SERVE_PATH if bare else parts.path))
    try:
        answer = ask(target, timeout)
    except NoAnswerError as error:
        return [_no_answer(target, error, timeout)]
    found = diagnose(answer)
    if not bare and answer.status == 404:
        found += _elsewhere(target, timeout)
    return found


def ask(url: str, timeout: float) -> Seen:
    """One GET, redirects not followed, at most 256 KB read.

    Raises:
        NoAnswerError: there was no HTTP answer, or not all of it within the time.
    """
    deadline = monotonic() + timeout
    opener = urllib.request.build_opener(_NoRedirects())
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "holdfast-doctor"})  # noqa: S310
    try:
        try:
            response: Any = opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            body = b""
            while len(body) < _LIMIT and (chunk := response.read1(65536)):
                body += chunk
                if monotonic() > deadline:
                    raise NoAnswerError("its answer did not end in time", timed_out=True)
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Seen(url, response.status, headers, body)
    except (OSError, http.client.HTTPException) as error:
        inner = getattr(error, "reason", error)
        raise NoAnswerError(reason(error), timed_out=isinstance(inner, TimeoutError)) from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None


def _no_answer(url: str, error: NoAnswerError, timeout: float) -> Finding:
    cause = error.__cause__
    inner = getattr(cause, "reason", cause)
    silence = Silence.OTHER
    if error.timed_out:
        silence = Silence.TIMED_OUT
    elif isinstance(inner, ConnectionRefusedError):
        silence = Silence.REFUSED
    elif isinstance(inner, ssl.SSLError):
        silence = Silence.TLS
    return no_answer(url, silence, str(error), timeout)


def _elsewhere(url: str, timeout: float) -> list[Finding]:
    """Whether the route is where it usually is, when it isn't where it was said to be."""
    usual = urlunsplit(urlsplit(url)._replace(path=SERVE_PATH, query=""))
    if usual == url:
        return []
    try:
        seen = ask(usual, timeout)
    except NoAnswerError:
        return []
    if introspection_of(seen) is None:
        return []
    return [note("address", f"there is a serve route at {usual}", f"Use that address: holdfast doctor -u {usual}")]
