"""Answers that no SDK should give: each run ends, or is tried again, and says why."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from live_server import Server, output_of, until
from ports import free_port

SDK = "X-Inngest-Sdk: py:v0.5.19\r\nX-Inngest-Req-Version: 2\r\n"
HASH = "a" * 40


def response(status: int, body: bytes | str, *, sdk: bool = True, headers: str = "", length: int | None = None) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    told = len(raw) if length is None else length
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{SDK if sdk else ''}{headers}Content-Length: {told}\r\nConnection: close\r\n\r\n"
    return head.encode() + raw


def opcode(op: str = "StepRun", **fields: Any) -> dict[str, Any]:
    return {"op": op, "id": HASH, "name": "s", "displayName": "s", **fields}


def ops(*opcodes: Any) -> bytes:
    return response(206, json.dumps(list(opcodes)))


def reset(conn: socket.socket) -> None:
    """Say half of it, then break off without saying goodbye."""
    conn.sendall(response(200, '"half', length=4000))
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def streamed(conn: socket.socket, document: str) -> None:
    """White space until the function is done, as streaming SDKs send it."""
    conn.sendall(f"HTTP/1.1 201 X\r\n{SDK}Transfer-Encoding: chunked\r\n\r\n".encode())
    for part in [" ", " ", document]:
        conn.sendall(f"{len(part):x}\r\n{part}\r\n".encode())
        time.sleep(0.05)
    conn.sendall(b"0\r\n\r\n")


def slow(conn: socket.socket) -> None:
    for byte in response(200, '"ok"'):
        conn.sendall(bytes([byte]))
        time.sleep(0.002)


def endless(conn: socket.socket, begin: bytes, piece: bytes) -> None:
    """As much as is read, or 200 MB."""
    conn.sendall(begin)
    for _ in range(200_000_000 // len(piece)):
        conn.sendall(piece)


def endless_chunks(conn: socket.socket) -> None:
    piece = b"x" * 65536
    endless(conn, f"HTTP/1.1 200 X\r\n{SDK}Transfer-Encoding: chunked\r\n\r\n".encode(), b"%x\r\n%b\r\n" % (len(piece), piece))


Answer = bytes | Callable[[socket.socket], None]
GOOD = response(200, '"ok"')
STRANGE: dict[str, tuple[Answer, str]] = {
    "no answer at all": (b"", "reset the connection"),
    "not http": (b"hello there\r\n\r\n", "reset the connection"),
    "truncated": (response(206, b'[{"op":"StepRun","id":"', length=500), "reset the connection"),
    "reset": (reset, "reset the connection"),
    "half an array": (response(206, b'[{"op":"StepRun"'), "error reading generator opcode response"),
    "html as opcodes": (response(206, "<html>hi</html>"), "error reading generator opcode response"),
    "html of a proxy": (response(502, "<html>Bad gateway</html>", sdk=False), "Your server returned HTTP 502 before the SDK responded."),
    "another site": (response(200, "<html>Welcome</html>", sdk=False), "The response did not come from an Inngest SDK"),
    "not found": (response(404, "", sdk=False), "Your server returned HTTP 404"),
    "an unknown opcode": (ops(opcode("StepNotFound")), "StepNotFound"),
    "opcodes that are numbers": (ops(1, 2), "error reading generator opcode response"),
    "an opcode without a kind": (ops({"id": HASH}), "error reading generator opcode response"),
    "an id that is no hash": (ops({**opcode(), "id": "../../etc"}), "40 hexadecimal digits"),
    "opts that are a list": (ops(opcode("Sleep", opts=[1])), "opts must be an object"),
    "a sleep without end": (ops(opcode("Sleep", opts={"duration": "soon"})), "soon"),
    "a sleep of a number": (ops(opcode("Sleep", opts={"duration": 5})), "duration"),
    "a wait for nothing": (ops(opcode("WaitForEvent", name=None, opts={"timeout": "1m"})), "event"),
    "a wait with a number as expression": (ops(opcode("WaitForEvent", opts={"event": "e", "timeout": "1m", "if": 7})), "opts.if"),
    "an invoke without a function": (ops(opcode("InvokeFunction", opts={"payload": 3})), "function_id"),
    "an error that is text": (response(500, '"boom"'), "boom"),
    "an error that is a list": (response(500, "[1,2]"), "1"),
    "an error without a body": (response(500, ""), "500"),
    "a body in another encoding": (response(206, b"\xff\xfe[\x00"), "error reading generator opcode response"),
    "gzip that is none": (response(200, b"notgzip", headers="Content-Encoding: gzip\r\n"), "reset the connection"),
    "deep nesting": (response(206, "[" * 5000 + "]" * 5000), "error reading generator opcode response"),
    "giant": (response(200, b'"' + b"x" * 9_000_000 + b'"'), "exceeds the maximum size limit"),
    "giant without an end": (endless_chunks, "exceeds the maximum size limit"),
    "a head without an end": (lambda conn: endless(conn, b"HTTP/1.1 200 X\r\n", b"X-Much: " + b"y" * 8000 + b"\r\n"), "reset the connection"),
    "a line without an end": (lambda conn: endless(conn, b"HTTP/1.1 200 X\r\nX-Much: ", b"y" * 65536), "reset the connection"),
    "a compressed bomb": (response(200, gzip.compress(b'"' + b"0" * 80_000_000 + b'"'), headers="Content-Encoding: gzip\r\n"), "exceeds the maximum size limit"),
    "redirect to a metadata service": (response(307, "", headers="Location: http://169.254.169.254/latest\r\n"), "such addresses never are"),
    "redirect to a file": (response(307, "", headers="Location: file:///etc/passwd\r\n"), "is not called"),
    "redirect with a login": (response(307, "", headers="Location: http://a:b@127.0.0.1/\r\n"), "has a login in it"),
    "redirect to itself": (response(307, "", headers="Location: ?\r\n"), "redirects"),
    "redirect to a port where nobody is": (response(307, "", headers="Location: http://127.0.0.1:9/\r\n"), "Unable to reach SDK URL"),
    "redirect to no address": (response(307, "", headers="Location: http://[\r\n"), "address"),
    "streamed nonsense": (lambda conn: streamed(conn, "<html>"), "reset the connection"),
    "a plan in place of a result": (ops(opcode("StepPlanned"), opcode("StepPlanned", id="b" * 40)), "StepPlanned in place of its result"),
    "streamed error": (lambda conn: streamed(conn, '{"status":500,"body":{"name":"E","message":"inner"}}'), "inner"),
    "streamed breakage": (lambda conn: streamed(conn, '{"status":200,"error":"it broke"}'), "it broke"),
}
FINE: dict[str, Answer] = {
    "slow": slow,
    "streamed": lambda conn: streamed(conn, '{"status":200,"headers":{},"body":"\\"ok\\""}'),
    "nothing found to do, then an end": ops(),
    "two documents of one step": ops(opcode(data=1), opcode(data=2)),
    "more than is known": ops(opcode(data={"a": 1}, later=7, metadata={"x": []}, timing="?", userland=3)),
    "a null where nothing is": ops(opcode(data=None, error=None, opts=None, name=None)),
    "an object, no array": response(206, json.dumps(opcode(data=1))),
}


class Application:
    """An HTTP server that answers the calls of a function with given bytes, and then well."""

    def __init__(self, url: str) -> None:
        self.answers: dict[str, Answer] = {}
        self.calls: dict[str, int] = {}
        self.contexts: dict[str, Any] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api/inngest"
        threading.Thread(target=self._accept, daemon=True).start()
        step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": f"{self.url}?fnId=odd-fn&stepId=step"}, "retries": {"attempts": 2}}
        functions = [{"id": "odd-fn", "name": "fn", "triggers": [{"event": "odd/go"}], "steps": {"step": step}}]
        document = {"v": "1", "url": self.url, "deployType": "ping", "sdk": "py:v0.5.19", "framework": "x", "appName": "odd", "functions": functions}
        self.document = document

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with conn:
            raw = b""
            while b"\r\n\r\n" not in raw:
                raw += conn.recv(65536) or b"\r\n\r\n"
            head, _, body = raw.partition(b"\r\n\r\n")
            length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
            while len(body) < length:
                body += conn.recv(65536)
            if not body:
                return
            call = json.loads(body)
            data = call["event"]["data"]
            run_id = call["ctx"]["run_id"]
            self.contexts[run_id] = call["ctx"]
            self.calls[run_id] = self.calls.get(run_id, 0) + 1
            answer = self.answers[data["answer"]] if data["always"] or not (call["ctx"]["attempt"] or call["steps"] or self.calls[run_id] > 100) else GOOD
            if data["answer"] == "nothing found to do, then an end" and self.calls[run_id] > 1:
                answer = GOOD
            try:
                if callable(answer):
                    answer(conn)
                else:
                    conn.sendall(answer)
            except OSError:
                pass  # the server has read enough


@pytest.fixture(scope="module")
def server(start_holdfast) -> Server:
    return start_holdfast("--no-poll", "--retry-interval", "0.05", port=free_port())


@pytest.fixture(scope="module")
def odd(server):
    application = Application(server.url)
    assert server.http.post("/fn/register", json=application.document).status_code == 200
    yield application
    application.close()


def history(server: Server, run_id: str) -> str:
    return json.dumps(server.get(f"/v1/runs/{run_id}/steps")["attempts"])


@pytest.mark.protocol("call.strange")
@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_answer_is_tried_again_and_says_why(server, odd, name):
    odd.answers[name], reason = STRANGE[name]
    once, always = server.send_all([{"name": "odd/go", "data": {"answer": name, "always": always}} for always in (False, True)])
    run = server.finished(once)
    assert output_of(run) == "ok"
    assert reason in history(server, run["run_id"])
    run = server.finished(always)
    assert run["status"] == "Failed"
    assert reason in run["output"]["error"]["message"]
    assert len(server.get(f"/v1/runs/{run['run_id']}/steps")["attempts"]) == 3


def test_large_answers_are_not_held(server, odd):
    """What is larger than allowed is read no further than that, many at once as well."""
    names = ["giant", "giant without an end", "a head without an end", "a line without an end", "a compressed bomb"]
    for name in names:
        odd.answers[name] = STRANGE[name][0]
    before = server.peak_memory()
    for run_id in server.send_all([{"name": "odd/go", "data": {"answer": name, "always": False}} for name in names * 4]):
        assert output_of(server.finished(run_id)) == "ok"
    assert server.peak_memory() - before < 400_000_000, "twenty answers, of which 200 MB each were on offer"


@pytest.mark.protocol("call.finished", "call.redirect")
@pytest.mark.parametrize("name", FINE)
def test_an_unusual_answer_is_understood(server, odd, name):
    odd.answers[name] = FINE[name]
    run = server.call("odd/go", {"answer": name, "always": False})
    assert output_of(run) == "ok"
    assert history(server, run["run_id"]) == "[]"


def test_a_step_that_is_reported_again_and_again(server, odd):
    odd.answers["again"] = ops(opcode(data=1))
    run = server.call("odd/go", {"answer": "again", "always": True})
    assert run["status"] == "Failed"
    assert "was reported again though the call gave its result" in run["output"]["error"]["message"]
    assert server.steps(run["run_id"])["s"]["output"] == 1


@pytest.mark.protocol("call.strange")
def test_an_application_that_is_not_there(server):
    url = f"http://127.0.0.1:{free_port()}/api/inngest"
    step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": f"{url}?fnId=gone-fn&stepId=step"}, "retries": {"attempts": 1}}
    functions = [{"id": "gone-fn", "name": "fn", "triggers": [{"event": "gone/go"}], "steps": {"step": step}}]
    document = {"v": "1", "url": url, "deployType": "ping", "sdk": "py:v0.5.19", "framework": "x", "appName": "gone", "functions": functions}
    assert server.http.post("/fn/register", json=document).status_code == 200
    run = server.call("gone/go")
    assert run["status"] == "Failed"
    assert run["output"]["error"]["message"].startswith("Unable to reach SDK URL")


@pytest.mark.protocol("register.refused")
@pytest.mark.parametrize(
    ("sdk", "status"),
    [("inngest-js:v3.22.0", 400), ("js:v3.53.1", 400), ("js:v3.54.0", 200), ("js:v3.21.9", 200), ("js:v4.0.0", 200), ("py:v3.30.0", 200)],
)
def test_versions_of_an_sdk_that_are_refused(server, odd, sdk, status):
    answer = server.http.post("/fn/register", json={**odd.document, "sdk": sdk, "appName": "versions", "functions": []})
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["code"] == "sdk_version_denied"


@pytest.mark.protocol("auth.kind")
def test_a_server_of_another_kind_is_refused(server, odd):
    answer = server.http.post("/fn/register", json=odd.document, headers={"X-Inngest-Expected-Server-Kind": "cloud"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "Expected server kind cloud, got dev"


@pytest.mark.protocol("checkpoint.async")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"not json", 400, "checkpoint_invalid"),
        (b"{}", 400, "checkpoint_invalid"),
        ({"qi_id": "ab", "steps": [opcode("Sleep", opts={"duration": "1s"})]}, 400, "checkpoint_invalid"),
        ({"qi_id": "ab", "steps": [opcode("RunComplete", data=1)]}, 400, "checkpoint_invalid"),
        ({"qi_id": "not hex", "steps": [opcode(data=1)]}, 409, "stale_dispatch"),
        ({"qi_id": "00" * 16, "generation_id": 1, "steps": [opcode(data=1)]}, 409, "stale_dispatch"),
    ],
)
def test_checkpoints_that_can_not_be_recorded(server, odd, body, status, code):
    odd.answers["checkpoints"] = GOOD
    run = server.call("odd/go", {"answer": "checkpoints", "always": False})
    raw = body if isinstance(body, bytes) else json.dumps({"run_id": run["run_id"], **body}).encode()
    answer = server.http.post(f"/v1/checkpoint/{run['run_id']}/async", content=raw)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert server.steps(run["run_id"]) == {}


@pytest.mark.protocol("checkpoint.stale")
def test_a_checkpoint_counts_only_for_the_call_it_came_from(server, odd):
    go_on = threading.Event()

    def answer(conn: socket.socket) -> None:
        assert go_on.wait(15)
        conn.sendall(GOOD)

    odd.answers["held"] = answer
    run_id = server.started(server.send("odd/go", {"answer": "held", "always": False}))
    told = until(lambda: odd.contexts.get(run_id), "the call")
    path = f"/v1/checkpoint/{run_id}/async"
    body = {"run_id": run_id, "qi_id": told["qi_id"], "generation_id": 2, "steps": [opcode(data={"a": 1})]}
    assert server.http.post(path, json=body).status_code == 409
    for _ in range(2):  # what is reported twice counts once
        assert server.http.post(path, json={**body, "generation_id": 1}).status_code == 200
    assert server.steps(run_id)["s"]["output"] == {"a": 1}
    go_on.set()
    assert output_of(server.ended(run_id)) == "ok"
    assert server.run(run_id)["steps"] == 1
    assert server.http.post(path, json={**body, "generation_id": 1}).status_code == 409


TEMPLATES = [
    ops(opcode(data={"a": [1, "x", None]}), opcode("Sleep", id="b" * 40, opts={"duration": "1s"})),
    ops(opcode("StepPlanned"), opcode("StepPlanned", id="b" * 40), opcode("WaitForEvent", id="c" * 40, opts={"event": "e", "timeout": "1s"})),
    ops(opcode("StepError", error={"name": "E", "message": "m", "stack": "s"})),
    ops(opcode("InvokeFunction", opts={"function_id": "odd-none", "payload": {"data": {}}, "timeout": "1s"})),
    ops(opcode("WaitForSignal", opts={"signal": "s", "timeout": "1s"}), opcode("RunComplete", id="d" * 40, data=1)),
    response(500, '{"name":"E","message":"m"}', headers="Retry-After: 1\r\nX-Inngest-No-Retry: false\r\n"),
    GOOD,
]


def mutated(rng: random.Random) -> bytes:
    raw = bytearray(rng.choice(TEMPLATES))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw))
        match rng.randrange(5):
            case 0:
                raw[at] = rng.randrange(256)
            case 1:
                del raw[at : at + rng.randint(1, 20)]
            case 2:
                raw[at:at] = bytes(rng.choice(b'[]{}",:0\\n\x00') for _ in range(rng.randint(1, 6)))
            case 3:
                raw[at:at] = raw[at : at + 30]
            case 4:
                raw = raw[: max(at, 1)]
        if not raw:
            return b""
    return bytes(raw)


@pytest.mark.protocol("call.strange")
def test_random_answers_never_stop_a_run_nor_the_server(server, odd):
    rng = random.Random(20_260_101)
    count = 150
    for n in range(count):
        odd.answers[f"random {n}"] = mutated(rng)
    ids = server.send_all([{"name": "odd/go", "data": {"answer": f"random {n}", "always": n % 3 == 0}} for n in range(count)])

    def unfinished() -> list[tuple[bytes, Any]]:
        runs = [(odd.answers[f"random {n}"], server.runs_of(one)[0]) for n, one in enumerate(ids)]
        return [(answer, run) for answer, run in runs if run["status"] not in {"Completed", "Failed"}]

    until(lambda: not unfinished(), unfinished, patience=40)
    failed = [run for run in (server.runs_of(one)[0] for one in ids) if run["status"] == "Failed"]
    assert failed
    assert all(run["error"] for run in failed)
    odd.answers["fine"] = GOOD
    assert output_of(server.call("odd/go", {"answer": "fine", "always": False})) == "ok"
