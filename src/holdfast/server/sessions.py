"""Logins: signed cookies that expire, CSRF tokens that belong to them, and a brake on guessing."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from holdfast.server.keys import new_token

COOKIE = "holdfast_session"
_MAX_REVOKED = 10_000


class Session(msgspec.Struct, frozen=True):
    """A login of one browser."""

    id: str
    actor: str
    """How the audit log calls whoever logged in."""
    expires: int
    """Milliseconds since 1970."""
    credential: str
    """Fingerprint of what was logged in with: changing the password ends the session."""


class Sessions:
    """Makes and reads session cookies. Nothing is stored, so that any process with the same secret can read them.

    Args:
        secrets: The first signs; all are accepted, so that a key can be rotated without logging people out.
        credentials: Fingerprints of what is valid to log in with now.
        lifetime_ms: How long a login lasts.
    """

    def __init__(self, secrets: Sequence[bytes], credentials: Sequence[str], lifetime_ms: int) -> None:
        self._secrets = tuple(secrets)
        self._credentials = frozenset(credentials)
        self.lifetime_ms = lifetime_ms
        self._revoked: OrderedDict[str, int] = OrderedDict()

    def start(self, actor: str, credential: str, now: int) -> tuple[Session, str]:
        """A new session and the cookie's value."""
        session = Session(new_token(), actor, now + self.lifetime_ms, credential)
        body = urlsafe_b64encode(msgspec.json.encode(session)).rstrip(b"=").decode()
        return session, f"{body}.{_sign(self._secrets[0], 'session', body)}"

    def read(self, cookie: str, now: int) -> Session | None:
        """The session of a cookie; None when it is forged, expired, logged out, or of a credential that has gone."""
        body, _, signature = cookie.partition(".")
        if not self._matches("session", body, signature):
            return None
        try:
            session = msgspec.json.decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=Session)
        except (ValueError, msgspec.DecodeError):
            return None
        if session.expires <= now or session.credential not in self._credentials or session.id in self._revoked:
            return None
        return session

    def end(self, session: Session, now: int) -> None:
        """Log out: the cookie is not accepted again by this process, even if somebody kept a copy."""
        for known, expires in list(self._revoked.items()):
            if expires > now and len(self._revoked) < _MAX_REVOKED:
                break
            del self._revoked[known]
        self._revoked[session.id] = session.expires

    def csrf_token(self, subject: str) -> str:
        """The token that a change made by this subject (a session's id) must carry."""
        return _sign(self._secrets[0], "csrf", subject)

    def csrf_matches(self, subject: str, token: str) -> bool:
        """Whether a token is the subject's."""
        return self._matches("csrf", subject, token)

    def _matches(self, purpose: str, body: str, signature: str) -> bool:
        given, found = signature.encode(), False
        for secret in self._secrets:
            found |= hmac.compare_digest(_sign(secret, purpose, body).encode(), given)
        return found


def _sign(secret: bytes, purpose: str, body: str) -> str:
    digest = hmac.digest(secret, f"{purpose}\0{body}".encode("utf-8", "surrogateescape"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


class LoginBrake:
    """Slows guessing: after ten wrong passwords in a minute from one address, no more are looked at in that minute."""

    LIMIT = 10
    WINDOW_MS = 60_000
    _MAX_ADDRESSES = 10_000

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def wait_ms(self, address: str, now: int) -> int:
        """Milliseconds until the address may try again; 0 when it may now."""
        count, until = self._failures.get(address, (0, 0))
        return until - now if count >= self.LIMIT and until > now else 0

    def failed(self, address: str, now: int) -> None:
        """Count a wrong password."""
        count, until = self._failures.pop(address, (0, 0))
        if until <= now:
            count, until = 0, now + self.WINDOW_MS
        self._failures[address] = (count + 1, until)
        if len(self._failures) > self._MAX_ADDRESSES:
            self._failures.popitem(last=False)
