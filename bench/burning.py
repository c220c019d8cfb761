"""`python -m bench.burning storefront --port 8000`: an example application with one more function, whose steps burn a core.

For `bench.handlers`: what its requests cost while there is such work in the same process.
"""

from __future__ import annotations

import importlib
import sys

from holdfast import Alerts, App, Concurrency, Context, Event

BURNING = 2
"""Bodies that compute at the same time."""
TURNS = 400_000
"""Of the loop in one body: some 20 to 50 ms of pure Python."""


class Burn(Event, name="bench/burn"):
    """Something is to be computed."""

    n: int


def add_burner(app: App) -> None:
    """Give an application the function. Its body is a plain `def`, so it runs in a thread beside the loop."""

    # the threshold has the server count what waits
    @app.function(Burn, name="burn", concurrency=Concurrency(BURNING), alerts=Alerts(backlog=1_000_000))
    async def burn(ctx: Context[Burn]) -> int:
        return await ctx.step.run("compute", compute, ctx.event.data.n)


def compute(n: int) -> int:
    for _ in range(TURNS):
        n = (n * 31 + 7) % 1_000_003
    return n


def main() -> int:
    name = sys.argv.pop(1)
    client = importlib.import_module(f"examples.{name}.client")
    importlib.import_module(f"examples.{name}.functions")
    add_burner(client.app)
    exit_code: int = importlib.import_module(f"examples.{name}.__main__").main()
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
