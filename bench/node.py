"""A node of its own process: `python -m bench.node <store url> <steps>`. Executes until its input ends.

For each run it prints the moment of the function's first line, by the clock that all processes of the machine share.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import uvloop

from bench.workloads import Job, body
from holdfast import App, Context
from holdfast.compose import build_engine


def make_app(steps: int, *, tells: bool) -> App:
    """A function of so many trivial steps."""
    app = App("bench")

    @app.function(Job)
    async def work(ctx: Context[Job]) -> int:
        if tells:
            os.write(1, b"%d\n" % time.monotonic_ns())
        value = ctx.event.data.n
        for n in range(steps):
            value = await ctx.step.run(f"s{n}", body, value)
        return value

    return app


async def main(url: str, steps: str) -> None:
    async with build_engine([make_app(int(steps), tells=steps == "0")], url):
        os.write(1, b"ready\n")
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
