"""A newcomer follows the README and the tutorial to the letter, in a fresh environment."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("fresh-environment")]


def test_the_readmes_commands_do_what_it_says(reader, commands_of):
    commands = commands_of(README)
    assert [command.split("#")[0].strip() for command in commands] == [
        "make demo",
        "make test",
        "pip install .",
        "python app.py",
        "holdfast dev app.py --store sqlite:///shop.db",
        """holdfast send shop/order.shipped '{"order_id": "o1"}'""",
        "holdfast runs",
    ]
    for target in commands[:2]:
        # the demo and this suite have tests of their own; here it counts that the targets are there
        subprocess.run(["make", "--dry-run", target.split("#")[0].split()[1]], cwd=ROOT, check=True, capture_output=True)
    reader.types(commands[2], cwd=ROOT)
    assert "site-packages" in reader.types("python -c 'import holdfast; print(holdfast.__file__)'")

    (reader.directory / "app.py").write_text(re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0])
    reader.types(commands[3])
    assert (reader.directory / "shop.db").exists()
    reader.starts(commands[4])

    def waiting() -> bool:
        (run,) = [run for run in reader.sees("/v1/runs") if run["function"] == "shop-fulfil"]
        steps = reader.sees(f"/v1/runs/{run['run_id']}/steps")["steps"]
        return any(step["name"] == "shipped" and step["state"] == "pending" for step in steps)

    reader.waits_for(waiting, "the order to wait for its shipment", 30)
    reader.types(commands[5])
    assert reader.waits_for(lambda: reader.output_of("shop-fulfil"), "the order to be fulfilled", 30) == "receipt for o1"
    listed = reader.types(commands[6])
    assert "shop-fulfil" in listed
    assert "COMPLETED" in listed
    assert "shop-make-receipt" in listed


def test_the_tutorial_leads_where_it_says(reader, commands_of):
    commands = commands_of(TUTORIAL)
    page = TUTORIAL.read_text()
    order = re.compile(r"holdfast send bakery/cake.ordered .*")
    assert [order.sub("order", command) for command in commands] == [
        "python3 -m venv .venv", ". .venv/bin/activate", "pip install .",
        "holdfast dev app.py --no-reload", "order", "cat kitchen.log",
        "rm kitchen.log", "order", "sleep 7", 'pkill -9 -f "holdfast dev"', "holdfast dev app.py --no-reload", "cat kitchen.log",
        "holdfast dev app.py", "order",
    ]  # fmt: skip
    orders = [command for command in commands if order.match(command)]
    app = reader.directory / "app.py"
    kitchen = reader.directory / "kitchen.log"
    reader.types("pip install .", cwd=ROOT)
    app.write_text(re.findall(r"```python file=app.py\n(.*?)```", page, re.DOTALL)[0])

    reader.starts("holdfast dev app.py --no-reload")
    reader.types(orders[0])
    assert reader.waits_for(lambda: reader.output_of("bakery-make-cake"), "the first cake", 60) == "one sponge"
    assert len(reader.types("cat kitchen.log").splitlines()) == 7

    reader.types("rm kitchen.log")
    reader.types(orders[1])
    reader.waits_for(lambda: kitchen.exists() and "layer 2 of the chocolate goes" in kitchen.read_text(), "layer 2", 30)
    reader.stops(signal.SIGKILL)
    reader.starts("holdfast dev app.py --no-reload")
    assert "recovering 1 run" in (reader.directory / "server.log").read_text()
    assert reader.waits_for(lambda: reader.output_of("bakery-make-cake", 1), "the second cake", 60) == "one chocolate"
    assert reader.types("cat kitchen.log") == re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0]

    reader.stops(signal.SIGINT)
    breaking = re.findall(r"```python\n(    raise .*\n)```", page)[0]
    good = app.read_text()
    app.write_text(good.replace("def decorate(cake: str) -> str:\n", f"def decorate(cake: str) -> str:\n{breaking}"))
    reader.starts("holdfast dev app.py")
    reader.types(orders[2])

    def failed() -> bool:
        run = reader.sees("/v1/runs?limit=1")[0]
        steps = reader.sees(f"/v1/runs/{run['run_id']}/steps")["steps"]
        return any(step["name"] == "decorate" and step["attempts"] for step in steps)

    reader.waits_for(failed, "the icing to fail", 60)
    app.write_text(good)
    assert reader.waits_for(lambda: reader.output_of("bakery-make-cake", 2), "the third cake", 120) == "one lemon"
    assert kitchen.read_text().count("layer 1 of the lemon goes") == 1


def test_the_example_passes_the_type_checkers_of_a_newcomer(reader):
    """What `pip install` brings is typed: py.typed is in the wheel."""
    reader.types("pip install .", cwd=ROOT)
    assert reader.types("python -c 'import holdfast, pathlib; print((pathlib.Path(holdfast.__file__).parent / \"py.typed\").exists())'") == "True\n"
