"""P2: the serve route itself: who may ask, what is answered, and that nothing malformed gets past with anything but JSON."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import App, ConfigurationError, Context, Cron, CronTick, Event
from holdfast.serve.handler import ServeHandler
from holdfast.serve.http import Request
from holdfast.serve.settings import ServeSettings

pytestmark = pytest.mark.anyio
KEY = "signkey-prod-" + "0123456789abcdef" * 4
OTHER = "signkey-prod-" + "fedcba9876543210" * 4
NOW = 1_900_000_000_000
URL = "https://shop.example/api/inngest"


class Go(Event, name="h/go"):
    n: int = 0


class StoppedClock:
    def now(self) -> int:
        return NOW

    def call_at(self, when, callback):
        raise AssertionError("nothing of a call waits for time")


def an_app() -> App:
    app = App("h")

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> int:
        return ctx.event.data.n

    return app


def handler(app: App | None = None, environment: dict[str, str] | None = None, **options: Any) -> ServeHandler:
    return ServeHandler(app or an_app(), ServeSettings.of(environment or {}, **options), "fastapi", clock=StoppedClock())


def signature(body: bytes, key: str = KEY, now: int = NOW) -> str:
    t = now // 1000
    return f"t={t}&s={hmac.new(key.split('-')[-1].encode(), body + str(t).encode(), hashlib.sha256).hexdigest()}"


async def ask(to: ServeHandler, method: str, body: bytes = b"", query: dict[str, str] | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await to.handle(Request(method, URL, query or {}, sent, body))
    return answer.status, json.loads(answer.body), answer.headers


CALL = json.dumps({"ctx": {"run_id": "01JABCDEFGHJKMNPQRSTVWXYZ0"}, "event": {"name": "h/go", "data": {"n": 7}, "id": "e", "ts": 1}, "steps": {}}).encode()
DEEP = b'{"ctx":{"run_id":"r"},"event":{"name":"h/go","data":' + b"[" * 50_000
FN = {"fnId": "h-fn", "stepId": "step"}


# -- introspection ---------------------------------------------------------------------------------------------------


async def test_an_app_without_functions_is_still_there():
    status, body, headers = await ask(handler(App("empty"), dev=True), "GET")
    assert (status, body["function_count"], body["mode"], body["schema_version"]) == (200, 0, "dev", "2024-05-24")
    assert headers["x-inngest-sdk"].startswith("holdfast-py:v")
    assert (headers["x-inngest-framework"], headers["x-inngest-req-version"], headers["x-inngest-expected-server-kind"]) == ("fastapi", "2", "dev")


@pytest.mark.protocol("register.own")
async def test_strangers_are_told_the_least_and_the_server_all():
    to = handler(signing_key=KEY, signing_key_fallback=OTHER, event_key="secret-event-key", base_url="https://jobs.example/", env="staging")
    status, body, headers = await ask(to, "GET")
    assert status == 200
    assert body == {
        "function_count": 1, "has_event_key": True, "has_signing_key": True, "has_signing_key_fallback": True, "mode": "cloud",
        "authentication_succeeded": None, "schema_version": "2024-05-24",
    }
    assert headers["x-inngest-env"] == "staging"
    status, body, _ = await ask(to, "GET", x_inngest_signature=signature(b"", OTHER))
    assert (body["authentication_succeeded"], body["app_id"], body["api_origin"], body["env"]) == (True, "h", "https://jobs.example", "staging")
    assert body["signing_key_hash"] == hashlib.sha256(bytes.fromhex(KEY.split("-")[-1])).hexdigest()
    status, body, _ = await ask(to, "GET", x_inngest_signature=signature(b"x"))
    assert (body["authentication_succeeded"], "app_id" in body) == (False, False)


# -- signatures ------------------------------------------------------------------------------------------------------


async def test_a_signed_call_is_answered_and_the_answer_is_signed():
    to = handler(signing_key=KEY)
    answer = await to.handle(Request("POST", URL, FN, {"x-inngest-signature": signature(CALL)}, CALL))
    assert (answer.status, answer.body) == (200, b"7")
    assert answer.headers["x-inngest-signature"] == signature(b"7")


@pytest.mark.parametrize("made_with", [KEY, OTHER])
async def test_either_key_will_do_while_keys_are_rotated(made_with):
    to = handler(environment={"INNGEST_SIGNING_KEY": KEY, "INNGEST_SIGNING_KEY_FALLBACK": OTHER})
    assert (await ask(to, "POST", CALL, FN, x_inngest_signature=signature(CALL, made_with)))[0] == 200


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "no x-inngest-signature"), ("t=1&s=2", "not of the form"), (signature(CALL, OTHER), "this application's signing key"), (signature(CALL + b" "), "this application's signing key"),
        (signature(CALL, now=NOW - 301_000), "five minutes"), (signature(CALL, now=NOW + 301_000), "five minutes"),
    ],
)
@pytest.mark.parametrize("query", [FN, {"probe": "trust"}])
async def test_without_a_good_signature_nothing_runs(given, reason, query):
    app, ran = App("h"), []

    @app.function(Go)
    async def fn(ctx: Context[Go]) -> None:
        ran.append(1)

    status, body, headers = await ask(handler(app, signing_key=KEY), "POST", CALL, query, **({"x_inngest_signature": given} if given else {}))
    assert (status, body["code"]) == (401, "signature_invalid")
    assert reason in body["message"]
    assert not ran


@pytest.mark.protocol("register.own")
async def test_the_trust_probe():
    to = handler(signing_key=KEY)
    assert (await ask(to, "POST", b"", {"probe": "trust"}, x_inngest_signature=signature(b"")))[0] == 200


async def test_production_without_a_key_refuses_and_says_what_to_do(caplog):
    with caplog.at_level(logging.WARNING, logger="holdfast.serve"):
        to = handler()
    assert "INNGEST_SIGNING_KEY" in caplog.text
    status, body, _ = await ask(to, "POST", CALL, FN)
    assert status == 500
    assert "set INNGEST_SIGNING_KEY, or INNGEST_DEV=1" in body["message"]
    assert (await ask(to, "GET"))[1]["has_signing_key"] is False


async def test_in_development_nothing_is_signed():
    status, body, headers = await ask(handler(environment={"INNGEST_DEV": "1", "INNGEST_SIGNING_KEY": KEY}), "POST", CALL, FN)
    assert (status, body) == (200, 7)
    assert "x-inngest-signature" not in headers


async def test_keys_are_shown_nowhere(caplog):
    canary = "c0ffee" * 11
    to = handler(signing_key=f"signkey-prod-{canary}", event_key="canary-event-key", base_url="http://127.0.0.1:9")
    seen = repr(to.settings)
    for method, headers in (("GET", {}), ("GET", {"x_inngest_signature": signature(b"", f"x-{canary}")}), ("PUT", {"x_inngest_signature": signature(b"", f"x-{canary}")}), ("POST", {})):
        seen += repr(await ask(to, method, **headers))
    seen += caplog.text
    assert canary not in seen
    assert "canary-event-key" not in seen


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "mode", "api"),
    [
        ({}, "cloud", None), ({"INNGEST_DEV": "0"}, "cloud", None), ({"INNGEST_DEV": "false"}, "cloud", None), ({"INNGEST_DEV": "1"}, "dev", "http://127.0.0.1:8288"),
        ({"INNGEST_DEV": "http://10.0.0.1:9000/"}, "dev", "http://10.0.0.1:9000"), ({"INNGEST_BASE_URL": "https://jobs.example"}, "cloud", "https://jobs.example"),
        ({"INNGEST_DEV": "true", "INNGEST_BASE_URL": "http://a"}, "dev", "http://a"), ({"INNGEST_BASE_URL": "http://a", "INNGEST_API_BASE_URL": "http://b"}, "cloud", "http://b"),
    ],
    ids=str,
)
def test_the_environment(environment, mode, api):
    found = ServeSettings.of(environment)
    assert (found.mode, found.api_url) == (mode, api)


def test_arguments_go_first():
    found = ServeSettings.of({"INNGEST_DEV": "1", "INNGEST_SIGNING_KEY": OTHER}, dev=False, signing_key=KEY, path="jobs/", base_url="http://a/")
    assert (found.mode, found.signing_keys, found.path, found.event_url) == ("cloud", (KEY,), "/jobs", "http://a")


@pytest.mark.parametrize("bad", [{"signing_key": "signkey-prod-xyz"}, {"base_url": "jobs.example"}, {"serve_origin": "shop.example"}], ids=str)
def test_what_can_not_be_used_is_said_when_it_is_mounted(bad):
    with pytest.raises(ConfigurationError):
        ServeSettings.of({}, **bad)


@pytest.mark.parametrize(
    ("options", "address"),
    [({}, URL), ({"serve_path": "/x/y"}, "https://shop.example/x/y"), ({"serve_origin": "https://in.example/"}, "https://in.example/api/inngest"), ({"serve_origin": "http://in.example:8080", "serve_path": "jobs"}, "http://in.example:8080/jobs")],
    ids=str,
)
def test_the_address_of_the_app(options, address):
    assert ServeSettings.of({}, **options).address(URL) == address


# -- sync ------------------------------------------------------------------------------------------------------------


@pytest.mark.protocol("register.own")
async def test_an_out_of_band_sync(protocol):
    app = an_app()

    @app.function(Cron("@daily", tz="Europe/Paris"), Cron("0 9 * * mon-fri"), id="tick", retries=2)
    async def tick(ctx: Context[CronTick]) -> None: ...

    server = protocol()
    status, body, headers = await ask(handler(app, dev=True, base_url=server.url, app_version="7"), "PUT", b'{"url":"x"}', {"deployId": "d-1"})
    assert (status, body, headers["x-inngest-sync-kind"]) == (200, {"ok": True, "modified": True, "app_id": "x"}, "out_of_band")
    sent = server.registered[0]
    assert (sent["appName"], sent["url"], sent["framework"], sent["deployType"], sent["v"], sent["appVersion"]) == ("h", URL, "fastapi", "ping", "0.1", "7")
    assert sent["sdk"].startswith("holdfast-py:v")
    assert server.requests[0][1] == "/fn/register?deployId=d-1"
    fn, tick_ = sent["functions"]
    assert fn["steps"]["step"]["runtime"] == {"type": "http", "url": f"{URL}?fnId=h-fn&stepId=step"}
    assert fn["steps"]["step"]["retries"] == {"attempts": 4}
    assert tick_["triggers"] == [{"cron": "TZ=Europe/Paris 0 0 * * *"}, {"cron": "0 9 * * mon-fri"}]
    assert tick_["steps"]["step"]["retries"] == {"attempts": 2}


async def test_no_functions_are_synced_too(protocol):
    server = protocol()
    assert (await ask(handler(App("empty"), dev=True, base_url=server.url), "PUT"))[0] == 200
    assert server.registered[0]["functions"] == []


async def test_the_handler_of_a_whole_app_names_its_functions(protocol):
    async def failed(ctx: Context[Any]) -> None: ...

    app = App("h", on_failure=failed)

    @app.function(Go, on_failure=failed)
    async def fn(ctx: Context[Go]) -> None: ...

    server = protocol()
    await ask(handler(app, dev=True, base_url=server.url), "PUT")
    assert server.functions["h-app-failure"]["triggers"] == [{"event": "inngest/function.failed", "expression": "event.data.function_id in ['h-fn']"}]


async def test_everything_registered_passes_the_servers_checks(protocol):
    from holdfast.wire.registering import decode_register, functions_of

    server = protocol()
    await ask(handler(dev=True, base_url=server.url), "PUT")
    assert [f.id for f in functions_of(decode_register(json.dumps(server.registered[0]).encode()))] == ["h-fn"]


async def test_flow_control_is_registered_as_the_protocol_has_it(protocol):
    from datetime import timedelta

    from holdfast import CancelOn, Concurrency, Debounce, RateLimit, Singleton, Throttle, Timeouts
    from holdfast.wire.registering import decode_register, functions_of

    app = App("h")

    @app.function(
        Go, concurrency=[Concurrency(5), Concurrency(1, key="event.data.n", scope="account")], run_concurrency=3, throttle=Throttle(2, timedelta(seconds=5)),
        rate_limit=RateLimit(3, "1h", key="event.data.n"), debounce=Debounce("5s", key="event.data.n"), priority="event.data.n", singleton=Singleton("skip"),
        cancel_on=CancelOn("h/stop", match="data.n"), timeouts=Timeouts(start="1m", finish="1h"), retries=1,
    )
    async def fn(ctx: Context[Go]) -> None: ...

    server = protocol()
    assert (await ask(handler(app, dev=True, base_url=server.url), "PUT"))[0] == 200
    found = functions_of(decode_register(json.dumps(server.registered[0]).encode()))[0]
    assert (found.limits.fn[0].limit, [limit.scope for limit in found.limits.step], found.throttle.period) == (3, [None, "account"], "5s")
    assert (found.rate_limit.limit, found.debounce.period, found.priority.run, found.singleton.mode, found.timeouts.finish) == (3, "5s", "event.data.n", "skip", "1h")
    assert (found.cancel[0].event, found.retry_count) == ("h/stop", 1)


async def test_a_sync_that_fails_says_why(protocol):
    status, body, _ = await ask(handler(dev=True, base_url="http://127.0.0.1:9"), "PUT")
    assert (status, body["code"]) == (500, "not_running")
    assert "no server answers at http://127.0.0.1:9" in body["message"]
    assert "holdfast dev" in body["message"]
    server = protocol(signing_key=OTHER)
    status, body, _ = await ask(handler(dev=True, base_url=server.url), "PUT")
    assert (status, body["code"]) == (500, "registration_refused")
    assert "Authentication failed" in body["message"]
    status, body, _ = await ask(handler(signing_key=KEY, serve_origin="https://x"), "PUT")
    assert "INNGEST_BASE_URL" in body["message"]


async def test_the_other_key_is_tried_when_the_server_knows_only_that(protocol):
    server = protocol(signing_key=OTHER)
    to = handler(signing_key=KEY, signing_key_fallback=OTHER, base_url=server.url)
    assert (await ask(to, "PUT", b"", x_inngest_signature=signature(b"")))[0] == 200
    assert len(server.requests) == 2


async def test_a_stranger_can_not_make_the_app_register_another_address(protocol):
    server = protocol(signing_key=KEY)
    status, body, _ = await ask(handler(signing_key=KEY, base_url=server.url), "PUT")
    assert (status, body["code"], server.registered) == (401, "signature_invalid", [])
    # with an address of its own it need not be asked by the server
    status, _, _ = await ask(handler(signing_key=KEY, base_url=server.url, serve_origin="https://in.example"), "PUT")
    assert (status, server.registered[0]["url"]) == (200, "https://in.example/api/inngest")


@pytest.mark.protocol("register.own")
async def test_an_in_band_sync():
    to = handler(signing_key=KEY, app_version="7", env="e")
    body = b'{"url":"https://seen.example/api/inngest"}'
    status, said, headers = await ask(to, "PUT", body, x_inngest_sync_kind="in_band", x_inngest_signature=signature(body))
    assert (status, headers["x-inngest-sync-kind"]) == (200, "in_band")
    assert (said["app_id"], said["url"], said["framework"], said["appVersion"], said["env"], said["sdk_author"]) == ("h", "https://seen.example/api/inngest", "fastapi", "7", "e", "holdfast")
    assert said["functions"][0]["steps"]["step"]["runtime"]["url"].startswith("https://seen.example/api/inngest?fnId=h-fn")
    assert said["inspection"]["authentication_succeeded"] is True
    assert (await ask(to, "PUT", body, x_inngest_sync_kind="in_band"))[0] == 401


# -- calls that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "query", "status", "said"),
    [
        (CALL, {}, 400, "no fnId"), (CALL, {"fnId": "h-nope"}, 500, "function h-nope not found; app 'h' has: fn"), (CALL, {"fnId": "other-fn"}, 500, "not found"),
        (b"", FN, 400, ""), (b"[]", FN, 400, "Expected `object`"), (b"{}", FN, 400, "ctx"), (b"\xff", FN, 400, ""), (DEEP, FN, 400, "too deep"),
        (b'{"ctx":{"run_id":"../../x","use_api":true}}', FN, 400, "not a run id"),
    ],
    ids=["no fnId", "unknown", "another app's", "nothing", "array", "empty", "no text", "deep", "path"],
)
async def test_what_is_no_call(body, query, status, said):
    answered, document, _ = await ask(handler(dev=True), "POST", body, query)
    assert answered == status
    assert said in document["message"]


async def test_other_methods():
    assert (await ask(handler(dev=True), "DELETE"))[0] == 405


async def test_a_former_id_still_reaches_the_function():
    app = App("h")

    @app.function(Go, aliases=["old"])
    async def fn(ctx: Context[Go]) -> int:
        return 5

    assert (await ask(handler(app, dev=True), "POST", CALL, {"fnId": "h-old"}))[:2] == (200, 5)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ctx", "event", "events", "steps", "data", "error", "input", "name", "run_id", "id", "ts", "stack", "attempt", "max_attempts", "use_api", "version"]) | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
CTX = st.fixed_dictionaries({"run_id": st.just("R1") | JSON}, optional={"attempt": JSON, "max_attempts": JSON, "stack": JSON, "disable_immediate_execution": JSON})
CALLS = st.fixed_dictionaries({"ctx": CTX | JSON}, optional={"event": st.fixed_dictionaries({"name": st.just("h/go"), "data": JSON}, optional={"id": JSON, "ts": JSON}) | JSON, "events": JSON, "steps": st.dictionaries(st.sampled_from([hashlib.sha1(b"a").hexdigest(), "x"]), JSON) | JSON, "version": JSON})


def fuzzed() -> App:
    app = App("h")

    @app.function("h/go", retries=1)
    async def fn(ctx: Context[Any]) -> Any:
        a, b = await asyncio.gather(ctx.step.run("a", lambda: 1), ctx.step.wait_for_event("b", "h/x", timeout="1h"))
        return [a, b]

    return app


FUZZED = handler(fuzzed(), dev=True, base_url="http://127.0.0.1:9")


@given(CALLS | JSON, st.sampled_from(["step", "x", "", hashlib.sha1(b"a").hexdigest()]), st.binary(max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_posted_is_answered_in_json(value, step, noise):
    body = json.dumps(value).encode() + noise

    async def one() -> None:
        fresh = handler(FUZZED.app, dev=True, base_url="http://127.0.0.1:9")
        status, document, headers = await ask(fresh, "POST", body, {"fnId": "h-fn", "stepId": step})
        assert status in {200, 206, 400, 500}
        assert headers["content-type"] == "application/json"
        if status >= 400:
            assert isinstance(document["message"], str)
            assert document.get("code") != "internal", document

    asyncio.run(one())
