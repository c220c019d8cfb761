"""The HTTP API as the command line uses it: one request at a time, and every failure a sentence."""

from __future__ import annotations

import http.client
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click
import msgspec

from holdfast.base.errors import HoldfastError
from holdfast.base.version import __version__
from holdfast.cli.api_objects import Accepted, Health, PageInfo
from holdfast.cli.settings import DEFAULT_PORT
from holdfast.server.keys import check_signing_key
from holdfast.wire import signatures

DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class ApiError(HoldfastError):
    """The server could not be reached, or refused; `status` is None when there was no answer."""

    code = "api_error"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """The envelope of every answer below `/v1`."""

    data: T
    metadata: PageInfo


class _Refusal(msgspec.Struct):
    error: str = ""


def url_option(command: F) -> F:
    """`--url`: which server to talk to."""
    return click.option(
        "--url",
        envvar="INNGEST_BASE_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="Address of the server.",
    )(command)


def signing_key_option(command: F) -> F:
    """`--signing-key`: what opens the API of a production server."""
    return click.option(
        "--signing-key",
        envvar="INNGEST_SIGNING_KEY",
        show_envvar=True,
        metavar="KEY",
        help="Needed when the server runs in production. Prefer the variable: arguments show in process lists.",
    )(command)


class ServerApi:
    """A holdfast server at an address.

    Raises:
        ApiError: the address isn't one.
    """

    def __init__(self, url: str, signing_key: str | None = None, *, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ApiError(f"{url!r} is not the address of a server; write it as {DEFAULT_URL}")
        self.url = url.rstrip("/")
        self._headers = {"Accept": "application/json", "User-Agent": "holdfast-cli"}
        if signing_key:
            self._headers["Authorization"] = f"Bearer {hashed_key(signing_key)}"
        self._timeout = timeout
        # a proxy that is meant for the internet must not see requests to this machine
        local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        proxies = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(*proxies)

    def health(self) -> Health:
        """Whether the server accepts work."""
        return self._request("GET", "/health", None, Health)

    def get(self, path: str, kind: type[T], **query: Any) -> Answer[T]:
        """A GET below `/v1`. Arguments that are None or empty are left out; sequences are repeated."""
        given = {name: value for name, value in query.items() if value not in (None, (), [])}
        return self._request("GET", path + ("?" + urlencode(given, doseq=True) if given else ""), None, Answer[kind])  # type: ignore[valid-type]

    def post(self, path: str, kind: type[T], body: Mapping[str, Any] | None = None) -> T:
        """A POST below `/v1`; what it answers."""
        return self._request("POST", path, body or {}, Answer[kind]).data  # type: ignore[valid-type]

    def put(self, path: str, kind: type[T], body: Mapping[str, Any]) -> T:
        """A PUT below `/v1`; what it answers."""
        return self._request("PUT", path, body, Answer[kind]).data  # type: ignore[valid-type]

    def delete(self, path: str, kind: type[T]) -> T:
        """A DELETE below `/v1` that answers something."""
        return self._request("DELETE", path, None, Answer[kind]).data  # type: ignore[valid-type]

    def remove(self, path: str) -> None:
        """A DELETE below `/v1` that answers nothing."""
        self._request("DELETE", path, None, None)

    def send_event(self, event: Mapping[str, Any], event_key: str | None) -> str:
        """Send one event; its internal id."""
        return self._request("POST", "/e/" + quote(event_key or "dev", safe=""), event, Accepted).ids[0]

    def _request(self, method: str, path: str, body: Any, kind: type[T] | None) -> T:
        data = None if body is None else msgspec.json.encode(body)
        headers = self._headers | ({} if data is None else {"Content-Type": "application/json"})
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - http(s), checked above
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return self._decode(response.read(), response.headers.get_content_type(), kind)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"no holdfast server answers at {self.url}: {reason(error)}. {self._remedy()}") from error

    def _remedy(self) -> str:
        if os.environ.get("INNGEST_BASE_URL", "").rstrip("/") == self.url:
            return "The address comes from INNGEST_BASE_URL; is that server running?"
        return "Start one with `holdfast dev`, or name another with --url."

    def _decode(self, raw: bytes, content_type: str, kind: type[T] | None) -> T:
        if kind is None:
            return None  # type: ignore[return-value]
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError as error:
            raise ApiError(
                f"{self.url} answers in a form that holdfast {__version__} doesn't know ({error}): "
                "is it a holdfast server of the same version?",
                200,
            ) from error
        except msgspec.DecodeError:
            message = f"{self.url} answers with {content_type}, not JSON: is that a holdfast server?"
            raise ApiError(message, 200) from None

    def _refused(self, error: urllib.error.HTTPError) -> ApiError:
        raw = error.read()
        try:
            message = msgspec.json.decode(raw, type=_Refusal).error
        except msgspec.DecodeError:
            message = ""
        if error.code == 401:
            what = message or raw[:200].decode(errors="replace").strip() or "authentication failed"
            return ApiError(
                f"{self.url} refused the key ({what}): set INNGEST_EVENT_KEY to send, INNGEST_SIGNING_KEY for "
                "everything else, to the values the server was started with",
                401,
            )
        if not message:
            kind = error.headers.get_content_type()
            message = f"{self.url} answers {error.code} with {kind}: is that a holdfast server?"
        return ApiError(message, error.code)


def hashed_key(signing_key: str) -> str:
    """The form of a signing key that travels: its hash (protocol section 1.1)."""
    check_signing_key(signing_key, "INNGEST_SIGNING_KEY")
    return signatures.hashed_key(signing_key)


def reason(error: BaseException) -> str:
    """Why a request got no answer, in a few words."""
    inner: object = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "it does not answer in time"
    if isinstance(inner, ConnectionRefusedError):
        return "connection refused"
    if isinstance(inner, ConnectionResetError | http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(inner, ssl.SSLError):
        return f"no secure connection ({inner.reason or inner})"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return str(inner) or type(inner).__name__
