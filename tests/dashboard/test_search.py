"""The search box."""

from __future__ import annotations

import pytest
from holdfast.base.errors import ConfigurationError
from holdfast.dashboard.search import Known, RunQuery, from_params, moment, parse
from hypothesis import given
from hypothesis import strategies as st

KNOWN = Known(frozenset({"shop-fulfil", "fulfil"}), frozenset({"shop/order.paid", "ping"}), frozenset({"shop"}))
NOW = 1_700_000_000_000


def test_every_term():
    parsed = parse('status:failed fn:fulfil app:shop event:shop/order.paid error~"card declined" since:1h', KNOWN)
    assert parsed.problem is None
    assert parsed.query == RunQuery(
        status=("FAILED",), function="fulfil", app="shop", event="shop/order.paid", error="card declined", since="1h"
    )
    where = parsed.query.where(NOW)
    assert where.since == NOW - 3_600_000
    assert where.status == ("FAILED",)


def test_ids_jump_wherever_they_stand():
    assert parse("01HF7YAT000000000000000000", KNOWN).jump == "01HF7YAT000000000000000000"
    assert parse(" 01hf7yat000000000000000000 ", KNOWN).jump == "01HF7YAT000000000000000000"
    assert parse("id:payment-123", KNOWN).jump == "payment-123"


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("failed", "status", ("FAILED",)), ("fulfil", "function", "fulfil"), ("shop/order.paid", "event", "shop/order.paid"),
        ("ping", "event", "ping"), ("shop", "app", "shop"), ("never/seen", "event", "never/seen"),
        ("card declined", "error", "card declined"), ("status:active", "status", ("QUEUED", "RUNNING", "WAITING")),
        ("status:failed,cancelled", "status", ("FAILED", "CANCELLED")),
    ],
)
def test_bare_words_and_lists(text, field, value):
    parsed = parse(text, KNOWN)
    assert parsed.problem is None
    assert getattr(parsed.query, field) == value


def test_what_is_not_understood_is_said():
    assert "'colour:'" in (parse("colour:red", KNOWN).problem or "")
    assert "'broken' is not a status" in (parse("status:broken", KNOWN).problem or "")
    assert "'soon' is not a time" in (parse("since:soon", KNOWN).problem or "")
    assert from_params({"since": "soon"})[0].where(NOW).since is None, "and left out, not an error"


def test_moments():
    assert moment("90s", NOW) == NOW - 90_000
    assert moment("2023-11-14T22:13:20Z", 0) == NOW
    assert moment(str(NOW), 0) == NOW
    with pytest.raises(ConfigurationError, match="not a date"):
        moment("2023-99-99", NOW)


QUERIES = st.builds(
    RunQuery,
    status=st.lists(st.sampled_from(["FAILED", "RUNNING", "COMPLETED"]), unique=True, max_size=2).map(tuple),
    function=st.sampled_from(["", "fulfil", "a b"]), event=st.sampled_from(["", "shop/order.paid", 'quo"ted']),
    error=st.text("ab \"\\~:", max_size=8).map(str.strip), since=st.sampled_from(["", "1h", "7d", "2026-03-01"]),
)


@given(QUERIES)
def test_the_box_reads_what_it_writes(query):
    assert parse(query.text(), Known()).query == query


@given(QUERIES)
def test_the_address_reads_what_it_writes(query):
    assert from_params(query.params()) == (query, None)


@given(st.text(max_size=60))
def test_nothing_typed_is_an_error(text):
    parse(text, KNOWN).query.where(NOW)
