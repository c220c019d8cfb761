"""REST for signals and schedules, and which events are listed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from server_kit import EVENT_KEY, PRODUCTION, Start, bearer

from holdfast import App, Context, Cron, CronTick, Event
from holdfast.base.clock import to_ms
from holdfast.compose import build_engine, sender_from_environment
from holdfast.sdk.http_sender import HttpSender
from holdfast.server.serve import serving
from holdfast.server.settings import ServerSettings

pytestmark = pytest.mark.anyio


class Go(Event, name="time/go"):
    signal: str


def make_app() -> App:
    app = App("time")

    @app.function(Go)
    async def waits(ctx: Context[Go]) -> object:
        return await ctx.step.wait_for_signal("w", ctx.event.data.signal, timeout="1h")

    @app.function(Cron("0 9 * * *", tz="Europe/Paris", jitter="30s", catch_up="all"), Cron("@hourly"))
    async def report(ctx: Context[CronTick]) -> None: ...

    @app.function(Cron("*/5 * * * *"))
    async def often(ctx: Context[CronTick]) -> str:
        return ctx.event.data.cron

    return app


@pytest.fixture
async def server(tmp_path):
    import httpx

    app = make_app()
    async with build_engine([app], f"sqlite:///{tmp_path}/time.db") as engine:
        async with serving(engine, ServerSettings(port=0)) as where:
            base = f"http://127.0.0.1:{where.port}"
            async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=20) as http:
                yield app, engine, http, base


async def waiting_run(app, engine, signal: str) -> str:
    handle = await app.start(app.functions["waits"], Go(signal=signal))
    await engine.idle()
    return handle.id


class TestSignals:
    @pytest.mark.protocol("v1.signals")
    async def test_the_run_that_waits_is_resumed_and_answered(self, server):
        app, engine, http, _ = server
        run_id = await waiting_run(app, engine, "approve")
        answer = await http.post("/v1/signals", json={"signal": "approve", "data": {"n": 1}})
        assert (answer.status_code, answer.json()["data"]) == (200, {"run_id": run_id})
        assert await app.handle(run_id).result(timeout=60) == {"n": 1}
        assert [(e.action, e.target, e.detail) for e in await engine.reader.audit()] == [("signal.send", "approve", run_id)]

    @pytest.mark.protocol("v1.signals")
    async def test_nobody_waits(self, server):
        _, _, http, _ = server
        answer = await http.post("/v1/signals", json={"signal": "approve", "data": {}})
        assert answer.status_code == 404
        assert answer.json() == {"error": "No signal found", "status": 404, "data": None, "code": "signal_not_found"}

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"signal": 5}', b"{}", b'{"signal": ""}', b'{"signal": "' + b"x" * 300 + b'"}'])
    async def test_what_is_no_signal_is_refused(self, server, body):
        _, _, http, _ = server
        answer = await http.post("/v1/signals", content=body)
        assert answer.status_code == 400
        assert "signal" in answer.json()["error"]

    async def test_an_app_that_only_sends_gives_signals_over_http(self, server):
        app, engine, _, base = server
        run_id = await waiting_run(app, engine, "remote")
        sender = HttpSender(base, "dev")
        assert await sender.send_signal("remote", b'"yes"') == run_id
        assert await sender.send_signal("remote", b'"yes"') is None
        assert await app.handle(run_id).result(timeout=60) == "yes"

    async def test_in_production_the_signing_key_is_needed(self, start: Start, monkeypatch):
        async with start(headers=None, **PRODUCTION) as server:
            assert (await server.http.post("/v1/signals", json={"signal": "x"})).status_code == 401
            assert (await server.http.post("/v1/signals", json={"signal": "x"}, headers=bearer())).status_code == 404
            monkeypatch.setenv("INNGEST_BASE_URL", str(server.http.base_url))
            monkeypatch.setenv("INNGEST_EVENT_KEY", EVENT_KEY)
            monkeypatch.setenv("INNGEST_SIGNING_KEY", bearer()["authorization"].removeprefix("Bearer "))
            sender = sender_from_environment()
            assert sender is not None
            assert await sender.send_signal("x", b"1") is None


class TestCrons:
    async def test_schedules_are_listed_with_what_comes(self, server):
        _, _, http, _ = server
        before = datetime.now(UTC)
        rows = {row["schedule"]: row for row in (await http.get("/v1/crons")).json()["data"]}
        assert set(rows) == {"TZ=Europe/Paris 0 9 * * *", "@hourly", "*/5 * * * *"}
        daily = rows["TZ=Europe/Paris 0 9 * * *"]
        assert (daily["function"], daily["function_name"], daily["app"]) == ("time-report", "report", "time")
        assert (daily["zone"], daily["jitter"], daily["catch_up"]) == ("Europe/Paris", "30s", "all")
        assert (daily["last_at"], daily["missed"], daily["paused"]) == (None, 0, False)
        coming = [datetime.fromisoformat(moment) for moment in daily["next"]]
        assert len(coming) == 5
        assert coming == sorted(coming)
        assert coming[0] > before
        assert rows["@hourly"]["catch_up"] == "once"
        assert to_ms(datetime.fromisoformat(rows["*/5 * * * *"]["next"][0])) % 300_000 == 0

    @pytest.mark.parametrize("function", ["often", "time-often"])
    async def test_one_is_fired_now(self, server, function):
        app, _, http, _ = server
        answer = await http.post("/v1/crons/run", json={"function": function})
        assert answer.status_code == 200
        assert await app.handle(answer.json()["data"]["run_id"]).result(timeout=60) == "*/5 * * * *"

    async def test_of_several_one_has_to_be_named(self, server):
        _, _, http, _ = server
        answer = await http.post("/v1/crons/run", json={"function": "report"})
        assert answer.status_code == 400
        assert "several schedules" in answer.json()["error"]
        assert "@hourly" in answer.json()["error"]
        assert (await http.post("/v1/crons/run", json={"function": "report", "schedule": "@hourly"})).status_code == 200

    @pytest.mark.parametrize(
        ("body", "status"), [({"function": "nothing"}, 404), ({"function": "often", "schedule": "@daily"}, 404), ({}, 400), ([], 400)], ids=str
    )
    async def test_what_is_no_schedule_is_refused(self, server, body, status):
        _, _, http, _ = server
        answer = await http.post("/v1/crons/run", json=body)
        assert answer.status_code == status


class TestInternalEvents:
    async def test_they_are_listed_when_asked_for(self, server):
        app, engine, http, _ = server
        await http.post("/v1/crons/run", json={"function": "often"})
        await app.send({"name": "shop/thing", "data": {}})
        await engine.idle()

        async def names(**params):
            answer = await http.get("/v1/events", params=params)
            assert answer.status_code == 200, answer.text
            return [row["name"] for row in answer.json()["data"]]

        assert await names() == ["shop/thing"]
        assert await names(include_internal_events="true") == ["shop/thing", "inngest/scheduled.timer"]
        assert await names(name="inngest/scheduled.timer") == ["inngest/scheduled.timer"]
        assert (await http.get("/v1/events?include_internal_events=perhaps")).status_code == 400
