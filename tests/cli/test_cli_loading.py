"""What a target on the command line gives, and what is said when it gives nothing. Each case is a process of its own,
because importing changes the interpreter."""

from __future__ import annotations

import pytest
from commandline import Cli

APP = """
from holdfast import App, Context, Event

app = App("shop")

class OrderPaid(Event, name="shop/order.paid"):
    order_id: str

@app.function(OrderPaid)
async def fulfil(ctx: Context[OrderPaid]) -> str:
    return "done"
"""


def found(cli: Cli, *targets: str) -> list[str]:
    """The doctor's lines about apps."""
    lines = cli.run("doctor", *targets).out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[1:2] == ["app"])
    return [line for line in lines[start:] if line.strip()][:-1]


@pytest.mark.parametrize("target", ["app.py", "app", "app:app", "app.py:app", "./app.py"])
def test_every_spelling_of_one_app(cli: Cli, target: str) -> None:
    cli.write("app.py", APP)
    (line,) = found(cli, target)
    assert line.split()[0] == "ok"
    assert f"shop from {target}: 1 function" in line


def test_all_apps_of_a_module_each_once(cli: Cli) -> None:
    cli.write("both.py", 'from holdfast import App\na = App("one")\nb = App("two")\nagain = a\n')
    lines = found(cli, "both.py")
    assert [line.split()[2] for line in lines if " from " in line] == ["one", "two"]


def test_a_file_inside_packages_is_imported_as_part_of_them(cli: Cli) -> None:
    cli.write("shop/__init__.py", "")
    cli.write("shop/client.py", APP)
    cli.write("shop/jobs/__init__.py", "")
    cli.write("shop/jobs/main.py", "from ..client import app\nassert __name__ == 'shop.jobs.main'\n")
    assert "shop from shop/jobs/main.py: 1 function" in found(cli, "shop/jobs/main.py")[0]


def test_one_app_named_by_two_targets_is_one_app(cli: Cli) -> None:
    cli.write("client.py", 'from holdfast import App\napp = App("shop")\n')
    cli.write("more.py", "from client import app\n")
    lines = found(cli, "client.py", "more.py")
    assert len([line for line in lines if " from " in line]) == 1


def test_without_a_target_the_usual_names_are_tried(cli: Cli) -> None:
    cli.write("app.py", "print('a web application that has nothing to do with it')\n")
    cli.write("main.py", APP)
    assert "shop from main.py" in found(cli)[0]


def test_an_app_without_functions_is_noted(cli: Cli) -> None:
    cli.write("client.py", 'from holdfast import App\napp = App("shop")\n')
    lines = found(cli, "client.py")
    assert lines[0].split()[0] == "note"
    assert "Name the module that defines its functions" in lines[1]


@pytest.mark.parametrize(
    ("files", "target", "expected"),
    [
        ({}, "app.py", ["app.py: there is no such file (looked in "]),
        ({"apps.py": APP}, "app.py", ["did you mean 'apps.py'?"]),
        ({}, "nothing.here", ["there is no module 'nothing.here' in "]),
        ({"jobs.py": APP}, "job", ["did you mean 'jobs'?"]),
        ({"app.py": APP}, "app:apq", ["app:apq: app has no 'apq'; its apps are app"]),
        ({"app.py": APP}, "app:OrderPaid", ["'OrderPaid' is the class OrderPaid, not a holdfast App"]),
        ({"app.py": "x = 1\n"}, "app.py", ["app.py defines no holdfast App", 'app = App("my-app")']),
        (
            {"web.py": "from fastapi import FastAPI\nweb = FastAPI()\n"}, "web.py",
            ["web.py defines no holdfast App ('web' is a FastAPI); name the module that does"],
        ),
        (
            {"app.py": "import shopping_cart\n"}, "app.py",
            ["ModuleNotFoundError: No module named 'shopping_cart'", "app.py:1, in <module>", "Is 'shopping_cart' installed in"],
        ),
        ({"app.py": "def f(:\n"}, "app.py", ["app.py can't be loaded: app.py:1: SyntaxError: invalid syntax", "def f(:"]),
        (
            {"app.py": "import parts\n", "parts.py": "def f():\n    return missing\nf()\n"}, "app.py",
            ["NameError: name 'missing' is not defined", "app.py:1, in <module>", "parts.py:3, in <module>", "parts.py:2, in f", "return missing"],
        ),
        (
            {"app.py": "from parts import nope\n", "parts.py": ""}, "app.py",
            ["ImportError: cannot import name 'nope' from 'parts'"],
        ),
        ({"app.py": "raise SystemExit(3)\n"}, "app.py", ["it ends the process while it is imported", '__name__ == "__main__"']),
        (
            {"app.py": APP + "\n@app.function(OrderPaid)\nasync def fulfil(ctx: Context[OrderPaid]) -> None: ...\n"}, "app.py",
            ["app.py:13, function fulfil", "function id 'fulfil' is taken by", "app.py:9"],
        ),
        ({"app.py": 'from holdfast import App\na = App("shop")\nb = App("shop")\n'}, "app.py", ["app id 'shop' is taken by an App in app.py"]),
        ({"json.py": APP}, "json.py", ["another module is already called 'json'", "rename the file"]),
        ({"my-app.py": APP}, "my-app.py", ["'my-app' can't be imported as a module; rename it"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_goes_wrong_is_said_in_the_users_words(
    cli: Cli, files: dict[str, str], target: str, expected: list[str]
) -> None:
    for name, text in files.items():
        cli.write(name, text)
    # as the installed command: the working directory does not come before the standard library
    result = cli.run("doctor", target, PYTHONSAFEPATH="1")
    assert result.code == 1
    for text in expected:
        assert text in result.out
    assert "Traceback" not in result.out + result.err
    assert "importlib" not in result.out
