"""A canary in every secret: never in a log, an error, a metric, a page, the audit log or what commands print."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_sdk import op, scripted_sdk, step_hash
from server_kit import PRODUCTION, Start, bearer, every_route, Values

from holdfast import App, Context, HoldfastError
from holdfast.cli.log_output import JsonFormatter, PlainFormatter
from holdfast.compose import build_engine
from holdfast.server.sessions import COOKIE
from holdfast.sinks.redis import RedisStatus

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
CANARY = "canary4f1b9d"
SIGNING = "signkey-prod-" + "ca9a41" * 11
SECRETS = {
    **PRODUCTION,
    "event_keys": (f"{CANARY}-event", f"{CANARY}-event-2"),
    "signing_key": SIGNING,
    "signing_key_fallback": "signkey-prod-" + "fa11ca9a" * 8,
    "dashboard_password": f"{CANARY}-password",
    "session_secret": f"{CANARY}-session",
}
TELL_TALE = (CANARY, "ca9a41ca9a41", "fa11ca9afa11ca9a")
URLS = {
    "postgresql": f"postgresql://shop:{CANARY}@127.0.0.1:1/shop",
    "smtp": f"smtp://mailer:{CANARY}@mail.example:25",
    "redis": f"redis://:{CANARY}@127.0.0.1:1/0",
}


def silent(text: str, where: object, *more: str) -> None:
    for secret in (*TELL_TALE, *more):
        at = text.find(secret)
        assert at < 0, f"{where} tells {secret!r}: ...{text[max(0, at - 160) : at + 40]}..."


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All records as both formats of the server write them, but for those of the test's own client."""
    records = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    return "\n".join(form.format(record) for record in records for form in (PlainFormatter(colours=False), JsonFormatter()))


def leaky() -> App:
    app = App("leaky", retries=0)

    @app.function("leak/url", id="url")
    async def url(ctx: Context[Any]) -> None:
        ctx.logger.info("started")
        await ctx.step.run("connect", lambda: connect(ctx.event.data["which"]))

    def connect(which: str) -> None:
        try:
            raise ConnectionRefusedError(f"no answer from {URLS[which]}")
        except ConnectionRefusedError as error:
            raise RuntimeError(f"can't reach {URLS[which]} with {SIGNING}") from error

    return app


async def test_a_server_that_is_used_well_and_badly(start: Start, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    seen: list[tuple[str, str]] = []
    async with start(**SECRETS, apps=[leaky()]) as server:
        http = server.http

        async def note(method: str, path: str, **more: Any) -> str:
            answer = await http.request(method, path, **more)
            seen.append((f"{method} {path}", answer.text + repr([item for item in answer.headers.items() if item[0] != "set-cookie"])))
            return answer.text

        event_key = SECRETS["event_keys"][0]
        for body in (b'{"name":"a"}', b"{", b'[{"name":"a"},7]', b"\xff", b"[" * 5000, b'{"name":"inngest/x"}'):
            for key in (event_key, f"{event_key}x"):
                await note("POST", f"/e/{key}", content=body)
        for path in (f"/e/{event_key}/x", f"/nothing/{event_key}", f"/v1/runs?key={event_key}", f"/v1/runs/{event_key}", f"/{SIGNING}"):
            for method in ("GET", "POST", "DELETE", "PUT"):
                await note(method, path)
        for authorization in (SIGNING, f"Bearer {SIGNING}x", f"Basic {SIGNING}", f"Bearer {event_key}"):
            await note("GET", "/v1/runs", headers={"authorization": authorization})
        await note("POST", "/login", data={"credential": f"{SECRETS['dashboard_password']}x"})
        await http.post("/login", data={"credential": SECRETS["dashboard_password"]})
        cookie = http.cookies[COOKIE]
        page = (await http.get("/logout")).text
        csrf = page.partition('name="csrf_token" value="')[2].partition('"')[0]
        await note("POST", "/events/send", data={"csrf_token": f"{csrf}x", "name": "a"})
        await note("GET", "/v1/runs", headers={"cookie": f"{COOKIE}={cookie}x"})

        for which in URLS:
            answer = await http.post(f"/e/{event_key}", json={"name": "leak/url", "data": {"which": which}})
            await server.engine.store.group.drain()
            await server.ended(await server.run_of(answer.json()["ids"][0]))
        run_id = (await server.engine.reader.runs(_all(), limit=1))[0][0].id

        async def broken(*args: Any, **more: Any) -> None:
            raise RuntimeError(f"the store at {URLS['postgresql']} is gone")

        values = {"run_id": run_id, "slug": "leaky-url", "app": "leaky", "function": "leaky-url", "part": "output", "bulk_id": run_id, "event_id": run_id, "internal_id": run_id, "rule": "x"}  # fmt: skip
        routes = [path for method, path in every_route(server.serving.app.routes) if method == "GET" and "{key}" not in path]
        for ok in (True, False):
            if not ok:
                server.engine.reader.functions = broken  # 500s, with their stacks in the log
            for path in routes:
                if not path.endswith("/stream"):
                    await note("GET", path.format_map(Values(values)), headers=bearer(SIGNING))
        assert any("failed to answer this" in text for _, text in seen)
        entries = " ".join(str(entry) for entry in await server.engine.reader.audit(limit=1000))
        seen.append(("the audit log", entries))
        seen.append(("settings", repr(server.serving.app.state.__dict__) + repr([item.kwargs for item in server.serving.app.user_middleware])))
    seen.append(("the log", logged(caplog)))
    for where, text in seen:
        if "/logout" not in where:
            silent(text, where, cookie, cookie.partition(".")[2])
    silent(logged(caplog), "the log", csrf)
    assert "[masked]" in "".join(text for where, text in seen if where == f"GET /runs/{run_id}"), "the errors were shown, without them"


async def test_keys_of_requests_that_an_application_has_made(start: Start):
    """While `step.ai` waits for its next attempt, what it will send is on record, keys and all."""

    def function(body, step):
        opts = {
            "url": "http://127.0.0.1:1/v1/chat", "format": "openai-chat", "auth_key": f"{CANARY}-model", "body": {"model": "m"},
            "headers": {"X-Api-Key": f"{CANARY}-header"},
        }  # fmt: skip
        return [op("AIGateway", "ask", opts=opts)] if not body["steps"] else 1

    with scripted_sdk("far", {"fn": function}) as sdk:
        async with start() as server:
            document = sdk.document()
            document["functions"][0]["steps"]["step"]["retries"]["attempts"] = 20
            assert (await server.http.post("/fn/register", json=document)).status_code == 200
            event_id = await server.send("far/fn")
            run_id = await server.run_of(event_id)
            async with asyncio.timeout(60):
                while not any(step.attempts for step in (await server.engine.reader.run(run_id)).steps):
                    await asyncio.sleep(0.02)
            values = {"run_id": run_id, "slug": "far-fn", "app": "far", "function": "far-fn", "part": "steps/0", "bulk_id": run_id, "event_id": event_id, "internal_id": event_id, "rule": "x", "key": "k"}  # fmt: skip
            shown = ""
            for method, path in every_route(server.serving.app.routes):
                if method == "GET" and not path.endswith("/stream"):
                    text = (await server.http.get(path.format_map(Values(values)))).text
                    silent(text, path)
                    shown += text
            silent((await server.http.get(f"/runs/{run_id}?step={step_hash('ask')}")).text, "the step's page")
            assert "/v1/chat" in shown, "the request was shown, without them"


def _all() -> Any:
    from holdfast.store.reads import RunFilter

    return RunFilter()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://shop:{CANARY}@127.0.0.1:1/shop",
        f"postgresql://shop:{CANARY}@127.0.0.1:1/shop?sslmode=nonsense",
        f"postgresql://shop:{CANARY}@[::1/shop",
        f"postgresql://shop:{CANARY}@127.0.0.1:port/shop",
        f"postgres://shop@127.0.0.1:1/shop?password={CANARY}",
        f"mysql://shop:{CANARY}@127.0.0.1/shop",
        f"sqlite+other://x:{CANARY}@y/z",
    ],
)
async def test_a_store_that_can_not_be_opened(url, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(HoldfastError) as refused:
        async with build_engine([App("shop")], url):
            pass
    silent(str(refused.value), url.partition(":")[0])
    silent(logged(caplog), "the log")


async def test_a_database_whose_password_is_in_its_url(postgres_url, caplog):
    caplog.set_level(logging.DEBUG)
    url = postgres_url.replace("postgres:@", f"postgres:{CANARY}@")
    assert CANARY in url
    async with build_engine([App("shop")], url) as engine:
        await engine.audit("a", "b", "c")
        said = f"{engine.store!r} {engine.reader!r} {engine.status()} {await engine.reader.overview(since=0, now=1)}"
    silent(said, "the engine")
    silent(logged(caplog), "the log")


async def test_a_mirror_that_can_not_be_reached(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    sink = RedisStatus(URLS["redis"], key="job:{run_id}")
    app = App("shop", sinks=[sink])

    @app.function("a", id="fn")
    async def fn(ctx: Context[Any]) -> None:
        return None

    async with build_engine([app], f"sqlite:///{tmp_path}/x.db") as engine:
        await app.send({"name": "a"})
        async with asyncio.timeout(60):
            while not any("127.0.0.1" in record.getMessage() or "mirror" in record.getMessage().lower() for record in caplog.records):
                await asyncio.sleep(0.02)
        status = str(engine.status())
    silent(logged(caplog) + status + repr(sink), "the mirror")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["doctor"], {}),
        (["doctor", "--json"], {"HOLDFAST_STORE": f"postgresql://shop:{CANARY}@127.0.0.1:1/shop"}),
        (["start", "--port", "0"], {"HOLDFAST_STORE": f"postgresql://shop:{CANARY}@127.0.0.1:1/shop"}),
        (["start", "--port", "0", "--log-level", "debug", "--signing-key", f"signkey-prod-{CANARY}"], {}),
        (["start", "--port", "0"], {"INNGEST_SIGNING_KEY": f"{CANARY}!"}),
        (["send", "a", "--event-key", f"{CANARY}-event", "--url", "http://127.0.0.1:1"], {}),
        (["runs", "--signing-key", f"signkey-prod-{CANARY}"], {}),
        (["runs", "--url", f"http://user:{CANARY}@127.0.0.1:1"], {}),
        (["audit", "--url", "http://127.0.0.1:1"], {}),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_commands_print(tmp_path: Path, arguments, environment):
    keys = {
        "INNGEST_EVENT_KEY": f"{CANARY}-event", "INNGEST_SIGNING_KEY": SIGNING, "HOLDFAST_DASHBOARD_PASSWORD": f"{CANARY}-password",
        "HOLDFAST_SESSION_SECRET": f"{CANARY}-session", "HOLDFAST_STORE": f"sqlite:///{tmp_path}/x.db",
    }  # fmt: skip
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("INNGEST", "HOLDFAST"))}
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments], cwd=tmp_path, env={**environ, **keys, **environment},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.stdout + done.stderr
    silent(done.stdout + done.stderr, " ".join(arguments[:1]))
