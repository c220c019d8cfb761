"""kill -9, again and again, while events of all kinds of keys pour into functions with every rule there is (promises 5 to 8)."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from fault_auditor import Auditor
from fault_flow import CAP, CAP_PER_TENANT, RATE, RUN_CAP, THROTTLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

PHASES = ["random", "Ingest after", "body before", "body after", "Claim after", "Park after", "End before", "End after",
          "Widen after", "Narrow before", "FireGather after", "FireGather before", "Record before"]  # fmt: skip


def storm(nursery, case, seed: int, kills: int) -> Auditor:
    """So many deaths, then peace; what the auditor thinks of it."""
    chosen = random.Random(seed)
    finish = case.directory / "finish"
    deaths: dict[int, int] = {}
    hit: Counter[str] = Counter()
    first = 0
    for death in range(kills):
        phase = PHASES[death % len(PHASES)]
        config = {"main": "fault_flow:life", "finish": str(finish), "first": first, "phase": phase, "nth": chosen.choice([1, 2, 5])}
        child = nursery.start(case.config | config)
        if phase == "random":
            time.sleep(chosen.uniform(0.05, 0.25))
        hit[phase if phase == "random" or child.expect("reached", 10) else "missed"] += 1
        child.kill()
        assert child.wait() == -9, case.words
        lines = case.ledger.lines()
        deaths[child.pid] = len(lines)
        first = max((line["n"] for line in lines if line["what"] == "acknowledged"), default=first) + 10
    finish.touch()
    child = nursery.start(case.config | {"main": "fault_flow:life", "finish": str(finish), "first": first, "patience": 150})
    assert child.wait(160) == 0, case.words
    auditor = Auditor(case.database, case.ledger, deaths)
    auditor.spacing("storm-spread", *THROTTLE)
    auditor.rate("storm-limited", *RATE)
    auditor.one_live("storm-single")
    print(dict(hit), Counter(line["what"] for line in case.ledger.lines()))
    assert hit["missed"] <= kills // 6, f"hardly hit: {hit}"
    auditor.audit({"capped": [(None, CAP), ("tenant", CAP_PER_TENANT)]}, {"storm-whole": RUN_CAP})
    return auditor


def check(nursery, case, seed: int, kills: int) -> None:
    auditor = storm(nursery, case, seed, kills)
    assert not auditor.wrong, f"HOLDFAST_SEED={seed} ({case.directory}): " + "\n".join(auditor.wrong[:12])
    # after all that each limit still lets as many in as it says: no place was lost
    assert auditor.probed["capped", None] == CAP, auditor.probed
    assert auditor.probed["capped", "tenant"] == CAP_PER_TENANT, auditor.probed


@pytest.mark.parametrize("slice_", range(3))
def test_a_storm_of_kills(nursery, make_case, seed, slice_):
    check(nursery, make_case(), seed + slice_, 18)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_long_storm_of_kills(nursery, make_case, seed):
    check(nursery, make_case(), seed, 150)
