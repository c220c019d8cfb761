"""The statements of the reading side in PostgreSQL's words.

They are written once, for SQLite (`store/sqlite/reading/statements.py`), in what both understand and a few words that only
SQLite has, which are put into PostgreSQL's here by rule. Where a statement must differ by more, it stands here whole. A
test executes every one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from holdfast.store.sqlite.reading import statements as sql

_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"%"), "%%"),  # psycopg's own
    (re.compile(r" INDEXED BY \w+"), ""),  # PostgreSQL has statistics, and takes no hints
    (re.compile(r"CROSS JOIN (\w+ \w+) ON"), r"JOIN \1 ON"),
    (re.compile(r"CAST\((\S+ \|\| x'\w+') AS BLOB\)"), r"(\1)"),
    (re.compile(r"x'(\w+)'"), r"'\\x\1'::bytea"),
    (re.compile(r"CAST\(lane AS INTEGER\)"), "split_part(lane, '/', 1)::int8"),
    (re.compile(r"\bmax\((\w+\.\w+, )"), r"greatest(\1"),
    (re.compile(r"\binstr\("), "strpos("),
    (re.compile(r"\bchar\("), "chr("),
    (re.compile(r"\bmax\(d\.run_id\)"), "(array_agg(d.run_id ORDER BY d.run_id DESC))[1]"),
    (re.compile(r"GROUP BY d\.fingerprint, d\.function_id"), "GROUP BY d.fingerprint, d.function_id, f.slug, f.name"),
    (re.compile(r"\bLIKE\b"), "ILIKE"),  # SQLite's tells no cases apart
    (re.compile(r"IN \(\)"), "IN (NULL)"),
    (re.compile(r"(\?\d*) IS NULL"), r"\1::text IS NULL"),
    (re.compile(r"SELECT sum\((\(.*?\))\) FROM names", re.DOTALL), r"SELECT sum(\1)::int8 FROM names"),
    (re.compile(r"(\?\d*) \|\|"), r"\1::text ||"),
)

# the aggregate of bytes is younger than the oldest PostgreSQL that is supported
_QUEUE_FIGURES = sql.QUEUE_FIGURES.replace(
    "min(run_id) FILTER (WHERE state = 0 AND epoch = 0 AND due = 0)",
    "(SELECT run_id FROM queue WHERE state = 0 AND epoch = 0 AND due = 0 ORDER BY run_id LIMIT 1)",
)
# the error of the latest: SQLite takes it from the row that has the maximum
_FAILURES_BY_FUNCTION = """
SELECT function_id, count(*), (array_agg(error ORDER BY at DESC))[1], max(at) FROM dead_letters WHERE at >= ?
GROUP BY function_id
"""
_LOGS = sql.LOGS.replace("LIMIT ?) ORDER BY seq", "LIMIT ?) AS newest ORDER BY seq")
# not through json: an error may hold \u0000, which PostgreSQL's text can't
_STEP_OF_ERROR = re.compile(r"\(SELECT json_extract\(CAST\(s\.error AS TEXT\).*?\)\)\)", re.DOTALL)
_STEP = """(SELECT substring(convert_from(s.error, 'UTF8') from '"step" *: *"(([^"\\\\]|\\\\.)*)"') FROM steps s
     WHERE s.run_id = d.run_id AND s.key = '')"""

_WHOLE: dict[str, str] = {
    sql.QUEUE_FIGURES: _QUEUE_FIGURES,
    sql.FAILURES_BY_FUNCTION: _FAILURES_BY_FUNCTION,
    sql.LOGS: _LOGS,
}
_SUBQUERY = re.compile(r"FROM \((?=\s*SELECT\b)")
_NAME = re.compile(r"\s+(AS\b|(?!WHERE|ORDER|GROUP|LIMIT|UNION|CROSS|LEFT|JOIN)[a-z])")
_PLACE = re.compile(r"\?(\d*)")


def _name_subqueries(text: str) -> str:
    """Before PostgreSQL 16, a subquery that is selected from has to have a name."""
    start = 0
    while (match := _SUBQUERY.search(text, start)) is not None:
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if not _NAME.match(text, end):
            text = f"{text[:end]} AS found{text[end:]}"
        start = match.end()
    return text


@lru_cache(maxsize=1024)
def translate(statement: str) -> tuple[bytes, tuple[int, ...]]:
    """A statement for psycopg, and which of the parameters it takes, in order."""
    text = _WHOLE.get(statement, statement)
    text = _STEP_OF_ERROR.sub(lambda _: _STEP, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _name_subqueries(text)
    order: list[int] = []

    def place(match: re.Match[str]) -> str:
        order.append(int(match[1]) - 1 if match[1] else len(order))
        return "%s"

    return _PLACE.sub(place, text).encode(), tuple(order)
