"""holdfast's own adapters and holdfast's own server: the same functions give the same result as in one process."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import parity_functions
import pytest
from live_server import Server, until
from ports import free_port
from parity_functions import CASES, Case
from served import Uvicorn
from starlette.applications import Starlette

from holdfast import App
from holdfast.serve.starlette import serve

EVENT = {"n": 7}
QUICK = {"1h": "1s", "2h": "1s", "2d": "1s", timedelta(hours=1, minutes=30): timedelta(seconds=1), 30: 1}
"""The spans of the table, for a clock that nobody can move."""
AT_ONCE = {"gather", "task_group_of_chains", "one_of_several_parallel_steps_fails"}
"""Cases whose steps are executed beside each other here, and so in no order."""


@pytest.fixture(scope="module")
def server(start_holdfast) -> Server:
    # nothing listens there: the cases register by themselves
    return start_holdfast("-u", f"http://127.0.0.1:{free_port()}/api/inngest", "--no-poll", "--retry-interval", "0.05", port=free_port())


@pytest.mark.protocol("register.own", "register.remove")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_over_http(case: Case, server, monkeypatch):
    monkeypatch.setattr(parity_functions, "spans", QUICK)
    app, notes = App("par"), []
    fn = case.define(app, notes)
    web = Starlette()
    serve(web, app, dev=True, base_url=server.url)
    served = Uvicorn(web)
    url = f"{served.url}/api/inngest"
    try:
        assert httpx.put(url).status_code == 200
        check(case, notes, server, fn)
        assert server.http.request("DELETE", "/fn/remove", params={"url": url}).status_code == 200
    finally:
        served.stop()


def check(case: Case, notes: list[Any], server: Server, fn: Any) -> None:
    document = next(one for one in server.get("/v1/functions") if one["slug"] == fn.slug)
    name = document["config"]["triggers"][0]["event"]
    run_id = server.started(server.send(name, EVENT), fn.slug)
    if case.replies:
        until(lambda: (step := server.steps(run_id).get("reply")) and step["state"] == "pending", lambda: server.steps(run_id))
        server.send_all(case.replies)
    for name, data in case.signals:

        def given(name: str = name, data: Any = data) -> bool:
            return server.http.post("/v1/signals", json={"signal": name, "data": data}).status_code == 200

        until(given, "somebody waits for the signal")
    run = server.ended(run_id)
    if case.error is None:
        assert (run["status"], run["output"]) == ("Completed", case.output), run
    else:
        assert run["status"] == "Failed", run
        error = run["output"]["error"]
        assert error["name"] == case.error[0]
        assert error["message"].startswith(case.error[1])
    if case.notes is not None and name == "par/go":
        assert (sorted(notes) if case.name in AT_ONCE else notes) == (sorted(case.notes) if case.name in AT_ONCE else case.notes)
    if case.sent:
        sent = [{"name": one["name"], "data": one["data"]} for one in server.get("/v1/events", limit=50)]
        assert all(one in sent for one in case.sent)
