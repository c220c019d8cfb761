"""The table of the protocol: every row is shown by a test, and every marker names a row."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs/reference/protocol_coverage.py"
spec = importlib.util.spec_from_file_location("protocol_coverage", SCRIPT)
coverage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coverage)


def test_every_row_is_shown_by_a_test():
    tests = coverage.shown()
    missing = [row for section in coverage.rows().values() for row in section if row not in tests]
    assert missing == []


def test_every_marker_names_a_row():
    known = {row for section in coverage.rows().values() for row in section}
    assert {row: tests for row, tests in coverage.shown().items() if row not in known} == {}


def test_a_marker_that_nobody_reads_would_be_noticed():
    marked = coverage.shown()["endpoint.token"]
    assert "tests/server/test_rest_endpoints.py::TestTokens::test_only_the_runs_own_token_opens_its_output" in marked


def test_the_page_is_up_to_date():
    assert coverage.PAGE.read_text() == coverage.page(), f"run python {SCRIPT.relative_to(SCRIPT.parents[2])}"
