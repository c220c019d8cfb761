"""Each requirement has tests that name it, and the table of them is as the tests are."""

from __future__ import annotations

import pytest
from requirements_table import REQUIREMENTS, TABLE, collected, named_in, rows, table


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_it_has_a_test(name: str):
    assert rows()[name], f"no test names {name}: {REQUIREMENTS[name].what}"


def test_nothing_else_is_named():
    unknown = {(test.file, test.name, name) for test in collected() for name in test.ids if name not in REQUIREMENTS}
    assert unknown == set()


def test_the_table_is_as_the_tests_are():
    assert TABLE.read_text() == table(), "run `python tests/docs/requirements_table.py`"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("B3, B6 and B7 as a merchant sees them", {"B3", "B6", "B7"}),
        ("D1 to D3 on the inbox", {"D1", "D2", "D3"}),
        ("P10: in process and elsewhere", {"P10"}),
        ("R, P4: the helper", {"R", "P4"}),
        ("Redis and R are no names; neither are P11, C9 and XB1", set()),
        (None, set()),
    ],
)
def test_what_a_docstring_names(text: str | None, names: set[str]):
    assert named_in(text) == names
