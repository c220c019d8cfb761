"""Store URLs, without what is behind them: which database they mean, and how they may be shown."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

POSTGRES_SCHEMES = ("postgresql", "postgres")
DEFAULT_SCHEMA = "holdfast"
_SECRET = {"password", "passfile", "sslpassword"}


def is_postgres(url: str) -> bool:
    """Whether a store URL is one of PostgreSQL's."""
    return url.partition(":")[0] in POSTGRES_SCHEMES


def schema_of(url: str) -> str | None:
    """The schema of a store on PostgreSQL; None of one on SQLite."""
    return dict(parse_qsl(urlsplit(url).query)).get("schema", DEFAULT_SCHEMA) if is_postgres(url) else None


def without_secrets(url: str) -> str:
    """A store URL as it may be shown and logged."""
    if not is_postgres(url):
        return url
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}@{host}" if user else host
    query = [(key, value) for key, value in parse_qsl(parts.query) if key not in _SECRET]
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="/"), ""))
