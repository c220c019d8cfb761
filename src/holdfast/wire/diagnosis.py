"""What an address says about itself when a server asks it for its introspection or a sync, and how to mend what is wrong.

The answer to `GET` on a serve route is `{"function_count": ..., "mode": ..., ...}` (protocol section 1.3). Everything
else is told apart: no answer, no route, an access wall, a web page, JSON of something else, an SDK that refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import msgspec

from holdfast.base.findings import Finding, fine, note, wrong
from holdfast.wire import headers as h
from holdfast.wire.canonical import decode
from holdfast.wire.errors import WireError

SERVE_PATH: Final = "/api/inngest"
"""Where SDKs mount their route unless told otherwise."""

_WALLS = {401, 402, 403, 407, 511}
_LOGIN_WORDS = ("login", "signin", "sign-in", "sso", "auth", "oauth", "password")


class Silence(Enum):
    """Why an address gave no HTTP answer."""

    TIMED_OUT = "timed out"
    REFUSED = "refused"
    TLS = "tls"
    OTHER = "other"


class Seen(msgspec.Struct, frozen=True):
    """What an address answered."""

    url: str
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    method: str = "GET"

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
        return self.headers.get(h.SDK)


def no_answer(url: str, silence: Silence, detail: str, timeout: float) -> Finding:
    """What it means that an address gave no HTTP answer.

    Args:
        url: The address.
        silence: Why.
        detail: The error, for people.
        timeout: How many seconds were waited at most.
    """
    host = urlsplit(url).netloc
    if silence is Silence.TIMED_OUT:
        return wrong(
            "time-out",
            f"{url} did not answer within {timeout:g} s",
            "Is the application blocked, or does a firewall drop requests? Introspection answers at once.",
        )
    if silence is Silence.REFUSED:
        return wrong("connection", f"nothing listens on {host}", "Start the application, or correct host and port.")
    if silence is Silence.TLS:
        return wrong(
            "connection",
            f"no secure connection to {host}: {detail}",
            "Use http:// if the application has no certificate, else mend the certificate.",
        )
    return wrong(
        "connection", f"{url} can't be reached: {detail}", "Check the host name, and that this machine may reach it."
    )


def diagnose_sync(answer: Seen) -> Finding:
    """What an answer to a sync (`PUT`) says: that it went well, or which failure it was and how to mend it."""
    if answer.sdk is None:
        return _not_an_sdk(answer, _document(answer))
    if 200 <= answer.status < 300:
        return fine("sync", f"{answer.url} has registered its functions ({answer.sdk})")
    return _sdk_refused(answer, _document(answer))


def diagnose(answer: Seen) -> list[Finding]:
    """What an answer to a request for introspection (`GET`) says about the endpoint."""
    introspection = introspection_of(answer)
    if introspection is not None:
        return _introspection(answer, introspection)
    document = _document(answer)
    if answer.sdk is not None:
        return [_sdk_refused(answer, document)]
    return [_not_an_sdk(answer, document)]


def introspection_of(answer: Seen) -> dict[str, Any] | None:
    """The introspection document of a serve route; None when the answer is anything else."""
    document = _document(answer)
    found = document is not None and isinstance(document.get("function_count"), int)
    return document if found and answer.status == 200 else None


def _document(answer: Seen) -> dict[str, Any] | None:
    try:
        value = decode(answer.body)
    except WireError:
        return None
    return value if isinstance(value, dict) else None


def _not_an_sdk(answer: Seen, document: dict[str, Any] | None) -> Finding:
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
            f"{url} does not allow {answer.method} ({status})",
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


def _redirect(answer: Seen) -> Finding:
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


def _sdk_refused(answer: Seen, document: dict[str, Any] | None) -> Finding:
    message = str((document or {}).get("message") or (document or {}).get("error") or "no reason given")
    if answer.status in _WALLS:
        return wrong(
            "signing key",
            f"the SDK ({answer.sdk}) refuses unsigned requests: {message}",
            "Give the application the INNGEST_SIGNING_KEY of this server, or set INNGEST_DEV=1 while developing.",
        )
    return wrong("SDK", f"the SDK ({answer.sdk}) answers {answer.status}: {message}", "See the application's log.")


def _introspection(answer: Seen, document: dict[str, Any]) -> list[Finding]:
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
