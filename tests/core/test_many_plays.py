"""The same properties with many more plays, of seeds that are new each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("module", ["test_flow_gates.py", "test_flow_admission.py"])
def test_many_more_plays(module):
    plays = os.environ.get("HOLDFAST_LONG") or "500"
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=1800", str(HERE / module)],
        env={**os.environ, "HOLDFAST_LONG": plays}, cwd=HERE.parent.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stdout[-12_000:]
