"""Who may come in. Decided before a request is routed, so that a new route is closed until it is listed here."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import quote, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Scope

from holdfast.engine.engine import Engine
from holdfast.server.bodies import header
from holdfast.server.errors import ApiError, error_response
from holdfast.server.keys import KeyRing, derived_secret, fingerprint, random_secret
from holdfast.server.sessions import COOKIE, Session, Sessions
from holdfast.server.settings import ServerSettings, is_loopback
from holdfast.wire.signatures import strip_prefix

PUBLIC_PATHS = frozenset({"/health", "/login", "/login.css"})
"""Routes that answer without credentials. The event API has its own key."""
_OUTPUT = re.compile(r"/v1/(checkpoint|http/runs)/[0-9A-Za-z]{26}/output")
"""Where the output of a durable endpoint is read, by a token of its run."""
_EVENT_API = "/e/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CONTAINER_HOSTS = frozenset({"host.docker.internal", "gateway.docker.internal", "host.containers.internal"})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who makes a request."""

    actor: str
    """For the audit log; never a secret."""
    via: Literal["open", "key", "session", "public"]
    session: Session | None = None

    @property
    def subject(self) -> str:
        """What the CSRF token belongs to."""
        return self.session.id if self.session else self.via


class Access:
    """Decides by host, origin, key and session."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self._clock = engine.clock
        self._settings = settings
        signing_keys = (
            [key for key in (settings.signing_key, settings.signing_key_fallback) if key] if not settings.open else []
        )
        self.event_keys = KeyRing.of_event_keys(settings.event_keys if settings.checks_event_keys else ())
        self.signing_keys = KeyRing.of_signing_keys(signing_keys)
        self._password = KeyRing.of_event_keys([settings.dashboard_password] if settings.dashboard_password else [])
        if settings.session_secret:
            secrets = [derived_secret(settings.session_secret, "sessions")]
        else:
            secrets = [derived_secret(key, "sessions") for key in signing_keys] or [random_secret()]
        credentials = [settings.dashboard_password] if settings.dashboard_password else signing_keys
        self.sessions = Sessions(
            secrets, [fingerprint(text) for text in credentials], round(settings.session_hours * 3_600_000)
        )

    # -- requests ------------------------------------------------------------------------------------------------------

    def refusal(self, scope: Scope, path: str) -> Response | None:
        """The answer to a request that may not come in; otherwise its identity is put into the scope.

        Args:
            scope: The request.
            path: Its path below the prefix.
        """
        problem = self._host_problem(scope)
        if problem:
            return error_response(ApiError(403, problem, "host_refused", close=True))
        if is_event_api(path):
            identity: Identity | None = Identity("event key", "public")
        else:
            if scope["method"] not in _SAFE and not self._same_origin(scope):
                return error_response(
                    ApiError(
                        403,
                        "the request comes from a page of another site; changes are made from the dashboard itself",
                        "origin_refused",
                        close=True,
                    )
                )
            identity = self.identify(scope)
            if identity is None and (path in PUBLIC_PATHS or _OUTPUT.fullmatch(path)):
                identity = Identity("anyone", "public")
        if identity is None:
            return self._unknown(scope, path)
        scope["holdfast.identity"] = identity
        return None

    def identify(self, scope: Scope) -> Identity | None:
        """Whoever a request's key or cookie proves it comes from; None for nobody known."""
        if self._settings.open:
            return Identity("developer", "open")
        authorization = header(scope, b"authorization").decode("latin-1")
        kind, _, given = authorization.partition(" ")
        if kind.lower() == "bearer" and self.accepts_signing_key(given.strip()):
            return Identity(f"signing key {fingerprint(given.strip())}", "key")
        session = self.sessions.read(_cookie(scope), self._clock.now())
        return Identity(session.actor, "session", session) if session else None

    def accepts_signing_key(self, text: str) -> bool:
        """Whether this is a signing key or its hash, with or without its prefix."""
        return self.signing_keys.accepts(strip_prefix(text))

    def accepts_login(self, text: str) -> bool:
        """Whether this opens the dashboard: its password, or the signing key when it has none."""
        return self._password.accepts(text) if self._password else self.accepts_signing_key(text)

    def accepts_event_key(self, key: str) -> bool:
        """Whether this key may send events."""
        return not self._settings.checks_event_keys or self.event_keys.accepts(key)

    @property
    def logs_in_with(self) -> str:
        """What people log in with, as the login page calls it."""
        return "password" if self._password else "signing key"

    def start_session(self, actor: str) -> tuple[Session, str]:
        """A session for somebody who has just proved who they are, and its cookie."""
        credential = self._settings.dashboard_password or self._settings.signing_key or ""
        return self.sessions.start(actor, fingerprint(credential), self._clock.now())

    # -- hosts and origins ---------------------------------------------------------------------------------------------

    def cors_origin(self, scope: Scope) -> str | None:
        """The origin of a browser page that may send events from elsewhere; None without one, or when refused."""
        origin = header(scope, b"origin").decode("latin-1")
        if origin in self._settings.cors_origins:
            return origin
        host = urlsplit(origin).hostname or ""
        return origin if self._settings.mode == "dev" and (is_loopback(host) or host.endswith(".localhost")) else None

    def foreign_origin(self, scope: Scope) -> bool:
        """Whether a page of another site sends this."""
        return not self._same_origin(scope) and self.cors_origin(scope) is None

    @staticmethod
    def _same_origin(scope: Scope) -> bool:
        origin = header(scope, b"origin").decode("latin-1").lower()
        if not origin:
            return header(scope, b"sec-fetch-site") in {b"", b"same-origin", b"none"}
        # the scheme may have been changed by a proxy; the host and port may not
        return origin.partition("://")[2] == header(scope, b"host").decode("latin-1").lower()

    def _host_problem(self, scope: Scope) -> str | None:
        """Why the name in the address is refused: a page elsewhere may have rebound its own name to this machine."""
        settings = self._settings
        if not settings.open and not settings.allowed_hosts:
            return None
        host = _hostname(header(scope, b"host").decode("latin-1"))
        if host in settings.allowed_hosts:
            return None
        if settings.mode == "dev" and (host == settings.host or _is_local_name(host)):
            return None
        return (
            f"this server does not answer to the name {host[:100]!r}; use localhost, or allow the name "
            "with HOLDFAST_ALLOWED_HOSTS if it is yours"
        )

    def _unknown(self, scope: Scope, path: str) -> Response:
        if scope["method"] in {"GET", "HEAD"} and b"text/html" in header(scope, b"accept"):
            root = scope.get("root_path", "")
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            target = "" if path == "/" else f"?next={quote(path + query, safe='/')}"
            return RedirectResponse(f"{root}/login{target}", 303)
        return PlainTextResponse(
            "Authentication failed", 401, {"connection": "close"} if scope["method"] not in _SAFE else None
        )


def is_event_api(path: str) -> bool:
    """Whether a path is `/e/{key}`, which has its own keys; nothing deeper is."""
    return path.startswith(_EVENT_API) and "/" not in path[len(_EVENT_API) :]


def identity_of(scope: Scope) -> Identity:
    """Who makes this request. Every request that reaches a route has one."""
    identity: Identity = scope["holdfast.identity"]
    return identity


def _cookie(scope: Scope) -> str:
    try:
        cookies = SimpleCookie(header(scope, b"cookie").decode("latin-1"))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _hostname(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


@lru_cache(maxsize=256)
def _is_local_name(host: str) -> bool:
    """Names that no page elsewhere can make its own: this machine's, and addresses written as numbers."""
    if host == "localhost" or host.endswith(".localhost") or host in _CONTAINER_HOSTS:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
