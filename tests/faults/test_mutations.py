"""Would the suite notice? Take one fence out of a copy of the package, and the tests that guard it must go red."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_processes import HERE, SOURCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LATE = "test_duplicates.py::test_a_result_under_an_old_lease_is_refused"
TWICE = "test_duplicates.py::test_two_results_of_one_step_are_one_record"
CAPS = "../core/test_flow_gates.py::test_caps[by key]"
IDS = "../core/test_flow_admission.py::test_event_ids"
RINGS = "../core/test_flow_edges.py::test_a_run_that_starts_in_the_group_in_which_its_timeout_rings_is_not_cancelled"
POWER = "test_power_cut.py::test_power_cuts_lose_nothing_that_was_promised"

MUTATIONS = {
    "the epoch predicate": (
        "core/machine.py",
        r"\s+or item\.epoch != lease\.epoch",
        "",
        LATE,
        "is STALE",
    ),
    "the fsync": (
        "store/sqlite/connection.py",
        r'f"PRAGMA synchronous = \{synchronous\}"',
        '"PRAGMA synchronous = OFF"',
        POWER,
        "was acknowledged and is not there",
    ),
    "the unique key on steps": (
        "store/sqlite/migrations/*.sql",
        r"(CREATE TABLE steps \([^;]*?), PRIMARY KEY \(run_id, key\)\s*\) STRICT, WITHOUT ROWID;",
        r"\1) STRICT;",
        TWICE,
        "DUPLICATE",
    ),
    "the count of leases": (
        "core/gates.py",
        r"            _add\(tx, gate\.id, 1\)\n",
        "",
        CAPS,
        "places",
    ),
    "what an item holds": (
        "core/queue.py",
        r"woken=0, held=held\)",
        "woken=0)",
        CAPS,
        "places",
    ),
    "the waking of lanes": (
        "core/gates.py",
        r"(_add\(tx, gate_id, -1\)\n)\s+wake_lanes\(tx, gate_id, 1\)",
        r"\1",
        CAPS,
        "waits and nothing holds it up",
    ),
    "the row of an event id": (
        "core/ingest.py",
        r"tx\.put\(DedupeRow\(match\.function_id, event\.key, match\.run_id, now \+ EVENT_ID_WINDOW_MS\)\)",
        "pass",
        IDS,
        "AssertionError",
    ),
    "the second look at an alarm": (
        "core/ending.py",
        r"if self\.alarm is not None and \(alarm is None",
        "if False and (alarm is None",
        RINGS,
        "AssertionError",
    ),
    "the plain copy": ("core/machine.py", r"\A", "", None, ""),
}


def mutated(directory: Path, files: str, pattern: str, replacement: str) -> Path:
    """A copy of the package in which one thing is different."""
    package = directory / "src"
    shutil.copytree(SOURCE / "holdfast", package / "holdfast", ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    changed = 0
    for path in sorted((package / "holdfast").glob(files)):
        text = path.read_text()
        new, count = re.subn(pattern, replacement, text, flags=re.DOTALL)
        changed += count
        path.write_text(new)
    assert changed == 1, f"{pattern!r} is found {changed} times in {files}; it has moved, and this test must follow"
    return package


def run_tests(package: Path, *tests: str) -> tuple[bool, str]:
    """Run fault tests against a copy; whether they passed, and what was printed."""
    outcome = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-x",
            "--timeout=100",
            *(str(HERE / test) for test in tests),
        ],
        env={**os.environ, "PYTHONPATH": str(package), "HOLDFAST_PACKAGE": str(package), "HOLDFAST_SEED": "1"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert outcome.returncode in {0, 1}, outcome.stdout + outcome.stderr
    return outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("what", [name for name in MUTATIONS if name != "the plain copy"])
def test_without_it_the_suite_goes_red(tmp_path, disk_library, what):
    files, pattern, replacement, tests, said = MUTATIONS[what]
    passed, printed = run_tests(mutated(tmp_path, files, pattern, replacement), tests)
    assert not passed, f"without {what} the tests still pass"
    assert said in printed, printed[-4000:]


def test_an_unchanged_copy_stays_green(tmp_path, disk_library):
    """The copy as such breaks nothing: what is red above is red for its mutation."""
    files, pattern, replacement, _, _ = MUTATIONS["the plain copy"]
    package = mutated(tmp_path, files, pattern, replacement)
    passed, printed = run_tests(package, LATE, TWICE, RINGS, CAPS, IDS, POWER + "[lost]")
    assert passed, printed[-4000:]
