"""P2: `holdfast doctor -u`: each way in which an application's endpoint can be wrong is told apart, over real HTTP."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from commandline import Cli, reply

from holdfast.cli.endpoint import examine
from holdfast.base.findings import Finding, Level

INTROSPECTION = {"function_count": 2, "mode": "dev", "has_event_key": False, "has_signing_key": False, "schema_version": "2024-05-24"}


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_serve_route_with_functions(web) -> None:
    url = web(lambda h: reply(h, 200, json.dumps(INTROSPECTION), content_type="application/json", x_inngest_sdk="inngest-py:v0.5.18"))
    findings = examine(url + "/api/inngest")
    assert [finding.level for finding in findings] == [Level.FINE, Level.FINE]
    assert "inngest-py:v0.5.18, in dev mode" in findings[0].text
    assert findings[1].text == "it has 2 functions"


def test_an_address_without_a_path_means_the_serve_path(web) -> None:
    paths: list[str] = []
    url = web(lambda h: (paths.append(h.path), reply(h, 200, json.dumps(INTROSPECTION)))[-1])
    assert examine(url)[0].level is Level.FINE
    assert paths == ["/api/inngest"]


def test_no_functions_and_missing_keys(web) -> None:
    document = {**INTROSPECTION, "function_count": 0, "mode": "cloud"}
    findings = examine(web(lambda h: reply(h, 200, json.dumps(document))))
    assert [(f.level, f.subject) for f in findings] == [
        (Level.FINE, "SDK"), (Level.NOTE, "functions"), (Level.WRONG, "signing key"), (Level.NOTE, "event key"),
    ]


@pytest.mark.parametrize(
    ("status", "body", "headers", "subject", "remedy"),
    [
        (404, "not found", {}, "no route", "Mount the SDK's serve route"),
        (405, "", {}, "no route", "mount it for all three"),
        (401, "who are you", {}, "access wall", "Exempt /api/inngest"),
        (403, "<html>no</html>", {"content_type": "text/html"}, "access wall", "Exempt /api/inngest"),
        (302, "", {"location": "/login?next=/api/inngest"}, "access wall", "Exempt /api/inngest"),
        (307, "", {"location": "/somewhere/else"}, "redirect", "/somewhere/else"),
        (200, "<!doctype html><title>Shop</title>", {"content_type": "text/html"}, "HTML", "mount the serve route before it"),
        (200, " <html><body>", {"content_type": "application/json"}, "HTML", "mount the serve route before it"),
        (200, '{"ok": true}', {"content_type": "application/json"}, "not an SDK", "usually /api/inngest"),
        (200, '[1]', {"content_type": "application/json"}, "not an SDK", "usually /api/inngest"),
        (200, '{"function_count": tru', {"content_type": "application/json"}, "not an SDK", "usually /api/inngest"),
        (500, "Traceback", {}, "error", "see its log"),
        (401, '{"message": "bad signature"}', {"x_inngest_sdk": "js:v4"}, "signing key", "INNGEST_SIGNING_KEY"),
        (500, '{"message": "boom"}', {"x_inngest_sdk": "js:v4"}, "SDK", "log"),
    ],
)
def test_what_else_may_answer(web, status: int, body: str, headers: dict[str, str], subject: str, remedy: str) -> None:
    finding = only(examine(web(lambda h: reply(h, status, body, **headers)) + "/api/inngest"))
    assert (finding.level, finding.subject) == (Level.WRONG, subject)
    assert remedy in (finding.remedy or "")


def test_a_route_elsewhere_is_found(web) -> None:
    def respond(h) -> None:
        reply(h, *((200, json.dumps(INTROSPECTION)) if h.path == "/api/inngest" else (404, "")))

    url = web(respond)
    findings = examine(url + "/inngest")
    assert [finding.subject for finding in findings] == ["no route", "address"]
    assert f"holdfast doctor -u {url}/api/inngest" in (findings[1].remedy or "")


def test_nothing_listens(free_port: int) -> None:
    finding = only(examine(f"http://127.0.0.1:{free_port}"))
    assert (finding.level, finding.text) == (Level.WRONG, f"nothing listens on 127.0.0.1:{free_port}")


def test_an_unknown_host() -> None:
    assert only(examine("http://no-such-host.invalid")).subject == "connection"


def test_plain_http_where_https_was_said(web) -> None:
    finding = only(examine(web(lambda h: reply(h, 200, "{}")).replace("http:", "https:")))
    assert "no secure connection" in finding.text


def test_not_an_address() -> None:
    assert only(examine("ftp://x/y")).subject == "address"


@pytest.mark.parametrize("opening", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"], ids=["silence", "half an answer"])
def test_an_answer_that_does_not_come_in_time(opening: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def accept() -> None:
            connection, _ = server.accept()
            connection.sendall(opening)
            accepted.append(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        finding = only(examine(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.5))
        thread.join()
        for connection in accepted:
            connection.close()
    assert (finding.level, finding.subject) == (Level.WRONG, "time-out")


def test_one_byte_a_second_is_no_answer_either(web) -> None:
    released = threading.Event()

    def respond(h) -> None:
        h.send_response(200)
        h.end_headers()
        while not released.wait(0.1):
            h.wfile.write(b" ")
            h.wfile.flush()

    finding = only(examine(web(respond), timeout=0.7))
    released.set()
    assert finding.subject == "time-out"


def test_the_command_says_it_and_fails(cli: Cli, web) -> None:
    url = web(lambda h: reply(h, 404, ""))
    result = cli.run("doctor", "-u", url)
    assert result.code == 1
    assert "WRONG  no route" in result.out
    assert "-> Mount the SDK's serve route" in result.out
    assert "1 thing is wrong" in result.out
