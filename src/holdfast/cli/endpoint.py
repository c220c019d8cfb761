"""Looking at an application's serve endpoint from outside: asks for its introspection and says what went wrong.

The answer to `GET` on a serve route is `{"function_count": ..., "mode": ..., ...}` (protocol section 1.3). Everything
else is told apart: nothing listens, no route, an access wall, a web page, no answer in time, JSON of something else.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import IO, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import msgspec

from holdfast.base.clock import monotonic
from holdfast.cli.api import reason
from holdfast.cli.findings import Finding, fine, note, wrong

SERVE_PATH = "/api/inngest"
"""Where SDKs mount their route unless told otherwise."""

_LIMIT = 256 * 1024
_WALLS = {401, 402, 403, 407, 511}
_LOGIN_WORDS = ("login", "signin", "sign-in", "sso", "auth", "oauth", "password")


class Answer(msgspec.Struct, frozen=True):
    """What an address answered to GET."""

    url: str
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_page(self) -> bool:
        """HTML, whatever its header says."""
        start = self.body.lstrip()[:64].lower()
        return self.content_type == "text/html" or start.startswith((b"<!doctype html", b"<html"))

    @property
    def sdk(self) -> str | None:
        """The SDK's name and version, when the answer comes from one: `inngest-py:v0.5.18`."""
        return self.headers.get("x-inngest-sdk")


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


def ask(url: str, timeout: float) -> Answer:
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
            return Answer(url, response.status, headers, body)
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
    host = urlsplit(url).netloc
    if error.timed_out:
        return wrong(
            "time-out",
            f"{url} did not answer within {timeout:g} s",
            "Is the application blocked, or does a firewall drop requests? Introspection answers at once.",
        )
    cause = error.__cause__
    inner = getattr(cause, "reason", cause)
    if isinstance(inner, ConnectionRefusedError):
        return wrong("connection", f"nothing listens on {host}", "Start the application, or correct host and port.")
    if isinstance(inner, ssl.SSLError):
        return wrong(
            "connection",
            f"no secure connection to {host}: {error}",
            "Use http:// if the application has no certificate, else mend the certificate.",
        )
    return wrong(
        "connection", f"{url} can't be reached: {error}", "Check the host name, and that this machine may reach it."
    )


def diagnose(answer: Answer) -> list[Finding]:
    """What an answer says about the endpoint."""
    document = _document(answer)
    if answer.status == 200 and document is not None and isinstance(document.get("function_count"), int):
        return _introspection(answer, document)
    if answer.sdk is not None:
        return [_sdk_refused(answer, document)]
    return [_not_an_sdk(answer, document)]


def _document(answer: Answer) -> dict[str, Any] | None:
    try:
        value = json.loads(answer.body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _not_an_sdk(answer: Answer, document: dict[str, Any] | None) -> Finding:
    url, status = answer.url, answer.status
    path = urlsplit(url).path
    if 300 <= status < 400:
        return _redirect(answer)
    if status in _WALLS:
        return wrong(
            "access wall",
            f"{url} asks for a login or a permission ({status}) before the SDK sees the request",
            f"Exempt {path} from logins, deployment protection and CSRF checks; the SDK checks signatures.",
        )
    if status == 404:
        return wrong(
            "no route",
            f"the application answers, but has no route {path} (404)",
            f"Mount the SDK's serve route there (usually {SERVE_PATH}), or give the address where it is.",
        )
    if status in {405, 501}:
        return wrong(
            "no route",
            f"{url} does not allow GET ({status})",
            "The serve route must pass GET, POST and PUT to the SDK: mount it for all three.",
        )
    if status >= 500:
        return wrong(
            "error",
            f"{url} fails with {status}",
            "The application raised an error before the SDK answered: see its log.",
        )
    if answer.is_page:
        return wrong(
            "HTML",
            f"{url} answers with a web page, not with the SDK's JSON",
            "A front end or a catch-all route answers first: mount the serve route before it, or correct the path.",
        )
    if document is not None:
        names = ", ".join(sorted(document)[:4])
        return wrong(
            "not an SDK",
            f"{url} answers with JSON of something else ({names or 'an empty object'})",
            f"Give the address of the SDK's serve route, usually {SERVE_PATH}.",
        )
    kind = answer.content_type or "no content type"
    return wrong(
        "not an SDK",
        f"{url} answers {status} with {kind}, which no SDK does",
        f"Give the address of the SDK's serve route, usually {SERVE_PATH}.",
    )


def _redirect(answer: Answer) -> Finding:
    target = urljoin(answer.url, answer.headers.get("location", ""))
    if any(word in urlsplit(target).path.lower() + urlsplit(target).netloc.lower() for word in _LOGIN_WORDS):
        return wrong(
            "access wall",
            f"{answer.url} sends visitors to a login ({target})",
            f"Exempt {urlsplit(answer.url).path} from the login; the SDK checks signatures itself.",
        )
    return wrong(
        "redirect",
        f"{answer.url} redirects to {target} ({answer.status})",
        f"Use that address: holdfast doctor -u {target}",
    )


def _sdk_refused(answer: Answer, document: dict[str, Any] | None) -> Finding:
    message = str((document or {}).get("message") or (document or {}).get("error") or "no reason given")
    if answer.status in _WALLS:
        return wrong(
            "signing key",
            f"the SDK ({answer.sdk}) refuses unsigned requests: {message}",
            "Give the application the INNGEST_SIGNING_KEY of this server, or set INNGEST_DEV=1 while developing.",
        )
    return wrong("SDK", f"the SDK ({answer.sdk}) answers {answer.status}: {message}", "See the application's log.")


def _introspection(answer: Answer, document: dict[str, Any]) -> list[Finding]:
    count = document["function_count"]
    mode = str(document.get("mode") or "unknown")
    out = [fine("SDK", f"{answer.url} is the serve route of {answer.sdk or 'an SDK'}, in {mode} mode")]
    if count:
        out.append(fine("functions", f"it has {count} function{'s' * (count != 1)}"))
    else:
        out.append(
            note(
                "functions",
                "it has no functions",
                "Pass the functions to the serve route; events start nothing until then.",
            )
        )
    if mode == "cloud" and document.get("has_signing_key") is False:
        out.append(
            wrong(
                "signing key",
                "it runs in production mode and has no signing key",
                "Set INNGEST_SIGNING_KEY for the application, or INNGEST_DEV=1 while developing.",
            )
        )
    if mode == "cloud" and document.get("has_event_key") is False:
        out.append(
            note(
                "event key",
                "it runs in production mode and has no event key, so it can't send events",
                "Set INNGEST_EVENT_KEY for the application.",
            )
        )
    return out


def _elsewhere(url: str, timeout: float) -> list[Finding]:
    """Whether the route is where it usually is, when it isn't where it was said to be."""
    usual = urlunsplit(urlsplit(url)._replace(path=SERVE_PATH, query=""))
    if usual == url:
        return []
    try:
        document = _document(ask(usual, timeout))
    except NoAnswerError:
        return []
    if document is None or "function_count" not in document:
        return []
    return [note("address", f"there is a serve route at {usual}", f"Use that address: holdfast doctor -u {usual}")]
