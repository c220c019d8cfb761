"""`holdfast cancel`, `rerun` and `redrive` against a real server with real runs: named ones, and all that match."""

from __future__ import annotations

import json
import re
import signal

import pytest
from test_cli_runs import Shop, break_some, command, runs, shop, wait_for_runs

__all__ = ["shop"]
ID = "[0-9A-Z]{26}"


def nap(shop: Shop, count: int) -> list[str]:
    for _ in range(count):
        assert command(shop, "send", "shop/nap").code == 0
    return [str(run["run_id"]) for run in wait_for_runs(shop, count, "--status", "WAITING")]


def test_cancelling_counts_asks_and_does(shop: Shop) -> None:
    nap(shop, 3)
    shown = command(shop, "cancel", "--function", "sleeper", "--dry-run")
    assert (shown.code, shown.out) == (0, "") and "3 runs would be cancelled." in shown.err
    refused = command(shop, "cancel", "--function", "sleeper", input="n\n")
    assert refused.code == 1 and "Cancel 3 runs? [y/N]" in refused.out
    assert command(shop, "cancel", "--function", "sleeper").code == 1, "without an answer nothing is done"
    assert len(runs(shop, "--status", "WAITING")) == 3
    done = command(shop, "cancel", "--function", "sleeper", "--status", "waiting", "--since", "1h", "--rate", "100/s", input="y\n")
    assert done.code == 0 and "3 cancelled." in done.err
    assert len(runs(shop, "--status", "CANCELLED")) == 3
    nothing = command(shop, "cancel", "--all", "--yes")
    assert nothing.code == 0 and "No run matches that could be cancelled." in nothing.err


def test_named_runs_are_done_one_by_one(shop: Shop) -> None:
    first, second = nap(shop, 2)
    result = command(shop, "cancel", first, "nonsense")
    assert (result.code, result.out) == (1, f"{first} cancelled\n")
    assert "'nonsense' is not the id of a run" in result.err and "1 run of 2 could not be cancelled" in result.err
    again = command(shop, "cancel", first)
    assert again.code == 1 and "has ended already" in again.err
    assert re.fullmatch(rf"{first} -> {ID}\n", command(shop, "rerun", first).out)
    assert command(shop, "rerun", second).code == 1, "it has not ended"


def test_rerunning_all_that_match(shop: Shop) -> None:
    break_some(shop, 2)
    shop[0].write("mended", "")
    done = command(shop, "rerun", "--function", "breaks", "--error", "luck", "--status", "failed", "--yes")
    assert done.code == 0 and "2 started again." in done.err
    wait_for_runs(shop, 2, "--status", "COMPLETED")
    assert (shop[0].directory / "ledger.txt").read_text() == "first\n" * 4, "every step was done again"


def test_rerunning_from_a_step_with_other_data(shop: Shop) -> None:
    (failed,) = break_some(shop, 1)
    shop[0].write("mended", "")
    assert command(shop, "rerun", failed, "--from-step", "fragile", "--input", "[]").code == 0
    wait_for_runs(shop, 1, "--status", "COMPLETED")
    assert (shop[0].directory / "ledger.txt").read_text() == "first\n", "what came before is kept"
    assert command(shop, "send", "shop/order.paid", '{"order_id": "o1", "amount": 5}').code == 0
    paid = str(wait_for_runs(shop, 2, "--status", "COMPLETED")[0]["run_id"])
    made = command(shop, "rerun", paid, "--data", '{"order_id": "o1", "amount": 7}').out.split()[-1]
    wait_for_runs(shop, 3, "--status", "COMPLETED")
    assert json.loads(command(shop, "runs", made, "--json").out)["run"]["output"] == "thanks for 7"
    wrong = command(shop, "rerun", paid, "--from-step", "nope")
    assert wrong.code == 1 and "it has no step 'nope'; it has 'say'" in wrong.err


def test_redriving_with_other_input(shop: Shop) -> None:
    (failed,) = break_some(shop, 1)
    result = command(shop, "redrive", failed, "--input", '["too", "many"]')
    assert result.code == 0
    wait_for_runs(shop, 2, "--status", "FAILED")
    made = result.out.split()[-1]
    assert "does not fit fragile()" in command(shop, "runs", made).out


def test_some_can_not_be_done(shop: Shop) -> None:
    break_some(shop, 1)
    groups = command(shop, "redrive", "--fingerprint", "no-such", "--yes")
    assert groups.code == 0 and "No dead letter matches." in groups.err


def test_ctrl_c_stops_it(shop: Shop) -> None:
    nap(shop, 4)
    cli, url = shop
    running = cli.start("cancel", "--all", "--yes", "--rate", "1/h", INNGEST_BASE_URL=url)
    while not command(shop, "runs", "--status", "CANCELLED", "--json").out.count("run_id"):
        pass
    assert running.end(signal.SIGINT) == 1
    assert "stopped after 1 of 4: 1 cancelled" in "\n".join(running.lines)
    assert len(runs(shop, "--status", "WAITING")) == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["cancel"], "name run ids, or say which"),
        (["rerun", "--all", "--function", "x"], "name run ids, or say which"),
        (["cancel", "--all", "--rate", "fast"], "--rate: 'fast' is not a rate"),
        (["cancel", "--since", "whenever"], "--since: 'whenever' is not a duration"),
        (["rerun", "--all", "--from-step", "x"], "belongs to one run"),
        (["rerun", "x", "--from-step", "s", "--input", "[1,"], "--input is not JSON"),
        (["redrive", "--all", "--limit", "0"], "1<=x<=1000"),
    ],
)
def test_what_makes_no_sense(cli, args: list[str], said: str) -> None:
    result = cli.run(*args)
    assert result.code == 2
    assert said in result.err
