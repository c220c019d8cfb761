"""Durable endpoints on the official TypeScript SDK: answered within the request, or moved to the queue and answered later."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from live_server import Server, error_of, until


class Endpoints:
    """The application, seen by its clients."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def redirected(self, path: str, **request) -> str:
        """Where the output is, of a request that can't be answered at once."""
        answer = self.http.request(request.pop("method", "GET"), path, **request)
        assert answer.status_code == 302, answer.text
        assert answer.headers["location"].startswith(f"{self.server.url}/v1/http/runs/")
        return answer.headers["location"]

    def body(self, location: str):
        """What the endpoint has answered in the end."""
        answer = self.http.get(location)
        assert answer.status_code == 200, answer.text
        said = answer.json()["data"]["body"]
        return json.loads(json.loads(said))

    def notes(self, name: str) -> list[str]:
        return self.http.get("/notes").json().get(name, [])

    def runs(self, path: str, method: str = "GET") -> list[dict]:
        """Runs of an endpoint, newest first."""
        name = f"{method} {path}"
        return [run for run in self.server.get("/v1/runs", limit=100) if run["function_name"] == name and run["app"] == self.url]

    def ended(self, path: str, method: str = "GET") -> dict:
        """Its newest run, once it has ended."""
        run = until(lambda: next(iter(self.runs(path, method)), None), f"a run of {path}")
        return self.server.ended(run["run_id"], patience=60)


def run_id_of(location: str) -> str:
    return httpx.URL(location).path.split("/")[4]


@pytest.fixture(scope="module")
def endpoints(node) -> Iterator[Endpoints]:
    process = subprocess.Popen(
        ["node", "--max-old-space-size=256", "node/endpoints.mjs", node.server.url],
        cwd=Path(__file__).parents[1], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("listening on"), line
    found = Endpoints(node.server, f"http://127.0.0.1:{line.split()[-1]}")
    yield found
    found.http.close()
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.protocol("endpoint.sync")
def test_a_request_that_can_be_answered_at_once(endpoints):
    answer = endpoints.http.get("/at-once?say=hello")
    assert (answer.status_code, answer.json()) == (202, {"second": "one and two", "said": "hello"})
    run = endpoints.ended("/at-once")
    assert run["status"] == "Completed"
    assert list(endpoints.server.steps(run["run_id"])) == ["first", "second"]
    assert run["event_name"] == "inngest/http.request"
    assert endpoints.http.get("/value").json() == 4


@pytest.mark.protocol("endpoint.async", "endpoint.output", "endpoint.reentry")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_sleep_moves_the_run_to_the_queue(endpoints, method):
    before = len(endpoints.notes("sleeps"))
    request = {"json": {"n": 1}} if method == "POST" else {}
    location = endpoints.redirected("/sleeps?say=hello", method=method, **request)
    assert endpoints.body(location) == ["before", "after", method, "hello"]
    assert endpoints.notes("sleeps")[before:] == ["before", "after"]
    run = endpoints.server.run(run_id_of(location))
    assert list(endpoints.server.steps(run["run_id"])) == ["before", "nap", "after"]
    assert endpoints.body(location) == ["before", "after", method, "hello"], "it can be read again"


@pytest.mark.protocol("endpoint.async")
def test_a_wait_for_an_event(endpoints):
    location = endpoints.redirected("/waits?id=x1")
    endpoints.server.send("endpoints/reply", {"id": "x0"})
    endpoints.server.send("endpoints/reply", {"id": "x1", "n": 5})
    assert endpoints.body(location) == {"id": "x1", "n": 5}


@pytest.mark.protocol("endpoint.async")
def test_parallel_steps_are_executed_by_calls_of_their_own(endpoints):
    assert endpoints.body(endpoints.redirected("/parallel")) == ["a", "b"]
    assert sorted(endpoints.notes("parallel")) == ["a", "b"]


@pytest.mark.protocol("endpoint.errors")
def test_a_step_that_fails_is_retried_from_the_queue(endpoints):
    location = endpoints.redirected("/retries")
    assert endpoints.body(location) == {"attempt": 3}
    assert [one["attempt"] for one in endpoints.server.steps(run_id_of(location))["flaky"]["attempts"]] == [0, 1]


@pytest.mark.protocol("endpoint.errors", "endpoint.output")
def test_a_step_that_fails_for_good_fails_the_run(endpoints):
    location = endpoints.redirected("/fails")
    answer = endpoints.http.get(location)
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "never works")
    assert len(endpoints.notes("fails")) == 4, "three retries, as the SDK asks for"
    assert error_of(endpoints.server.run(run_id_of(location)))["message"] == "never works"


@pytest.mark.protocol("endpoint.errors")
def test_an_error_that_is_not_worth_retrying_can_be_handled(endpoints):
    assert endpoints.body(endpoints.redirected("/step-is-final")) == {"caught": "no use"}


@pytest.mark.protocol("endpoint.errors")
def test_a_function_that_fails_outside_of_steps_is_called_again(endpoints):
    assert endpoints.body(endpoints.redirected("/function-fails")) == "mended"


@pytest.mark.protocol("endpoint.token")
def test_a_token_is_for_one_run(endpoints):
    one, other = (endpoints.redirected("/waits?id=never") for _ in range(2))
    token = httpx.URL(other).params["token"]
    refused = endpoints.http.get(httpx.URL(one).copy_set_param("token", token))
    assert (refused.status_code, refused.json()["code"]) == (401, "token_refused")
    for location in (one, other):
        assert endpoints.server.http.delete(f"/v1/runs/{run_id_of(location)}").status_code == 200
        assert endpoints.http.get(location).status_code == 410
