"""Marked fields: every route that reads is walked, for runs in every state, and never shows what they hold."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import pytest
from gql_kit import PY_OUTPUT, PY_RUN, TS_EVENTS, TS_EXAMPLE, TS_STREAM
from pydantic import BaseModel, SecretStr
from scripted_sdk import op, scripted_sdk
from server_kit import EVENT_KEY, PRODUCTION, SIGNING_KEY, Running, Start, bearer, every_route, Values

import holdfast
from holdfast import App, Context, Event, Secret, Sensitive

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
CANARY = "canary-9b2c7e"
FOR_FUNCTIONS = {"/v0/runs/{run_id}/batch", "/v0/runs/{run_id}/actions"}
"""What an application fetches to call its functions with: the one place where the API has the values."""
MARKED = {"token": CANARY, "card": {"number": CANARY}, "loose": CANARY, "order_id": "o1"}


class Card(BaseModel):
    number: Annotated[str, Sensitive()]


class Paid(Event, name="vault/paid"):
    order_id: str
    token: Secret
    card: Card
    loose: str = ""


class Broken(Paid, name="vault/broken"):
    """Its function fails and tells everything."""


class Held(Paid, name="vault/held"):
    """Its function waits."""


class Receipt(BaseModel):
    token: Secret
    order: str


def make_vault() -> App:
    app = App("vault", retries=0, sensitive=["loose"])

    @app.function(Paid)
    async def paid(ctx: Context[Paid]) -> Receipt:
        data = ctx.event.data
        ctx.logger.warning("charging %s", data.token.get_secret_value())
        await ctx.step.run("copy", lambda: {"copied": data.token.get_secret_value(), "card": {"number": data.card.number}})
        await ctx.step.run("text", lambda: f"with {data.loose} in it")
        return Receipt(token=data.token, order=data.order_id)

    @app.function(Broken)
    async def broken(ctx: Context[Broken]) -> None:
        def fail(card: dict[str, str], loose: str) -> None:
            raise RuntimeError(f"refused: {card} {loose}")

        await ctx.step.run("fail", fail, {"number": ctx.event.data.card.number}, ctx.event.data.loose)

    @app.function(Held)
    async def held(ctx: Context[Held]) -> None:
        await ctx.step.wait_for_event("more", Paid, where={"order_id": "never"}, timeout="1d")

    return app


async def sent(server: Running, name: str) -> tuple[str, str]:
    """An event with marked fields and its run, which has ended or waits."""
    answer = await server.http.post(f"/e/{EVENT_KEY}", json={"name": f"vault/{name}", "data": MARKED, "user": {"token": CANARY}})
    assert answer.status_code == 200, answer.text
    event_id = answer.json()["ids"][0]
    await server.engine.store.group.drain()
    run_id = await server.run_of(event_id)
    if name != "held":
        await server.ended(run_id)
    return event_id, run_id


def seen_nowhere(text: str, where: object) -> None:
    at = text.find(CANARY)
    assert at < 0, f"{where}: ...{text[max(0, at - 200) : at + 40]}..."


async def test_no_route_shows_a_marked_field(start: Start, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, logger="holdfast.server")
    async with start(bearer(), **PRODUCTION, apps=[make_vault()]) as server:
        routes = [path for method, path in every_route(server.serving.app.routes) if method == "GET"]
        looked_at, masks = 0, 0
        for name in ("paid", "broken", "held"):
            event_id, run_id = await sent(server, name)
            values = {
                "run_id": run_id, "event_id": event_id, "internal_id": event_id, "slug": f"vault-{name}", "app": "vault",
                "part": "steps/0", "bulk_id": run_id, "rule": "concurrency", "key": EVENT_KEY, "app_id": "vault", "function_id": name,
                "id": run_id, "function": f"vault-{name}",
            }  # fmt: skip
            paths = [path.format_map(Values(values)) for path in routes if not path.endswith("/stream") and path not in FOR_FUNCTIONS]
            paths += [f"/runs/{run_id}/output.json", f"/runs/{run_id}/edit?step=copy", f"/runs/{run_id}/edit?step=fail"]
            paths += [f"/runs/{run_id}?step={step}&logs=all&history=all" for step in ("copy", "text", "fail", "more")]
            paths += [f"/events/send?name=vault/{name}&event={event_id}", f"/search?q={CANARY[:3]}", "/v1/events?limit=50"]
            for path in paths:
                for headers in ({},):
                    response = await server.http.get(path, headers=headers)
                    assert response.status_code not in {500, 502, 503}, path
                    seen_nowhere(response.text + str(response.headers), path)
                    looked_at += response.status_code == 200
                    masks += "[masked]" in response.text
            steps = [step.key for step in (await server.engine.reader.run(run_id)).steps]
            for question, variables in ((PY_RUN, {"run_id": run_id}), (TS_EXAMPLE, {"runID": run_id}), (TS_STREAM, {}), (TS_EVENTS, {"query": {}})):
                seen_nowhere((await server.http.post("/v0/gql", json={"query": question, "variables": variables})).text, question)
            tree = (await server.http.post("/v0/gql", json={"query": TS_EXAMPLE, "variables": {"runID": run_id}})).text
            ids = [part.partition('"')[0] for part in tree.split('"outputID":"')[1:]]
            assert len(ids) >= min(len(steps), 1) or name == "held"
            for output_id in ids:
                answer = await server.http.post("/v0/gql", json={"query": PY_OUTPUT, "variables": {"output_id": output_id}})
                seen_nowhere(answer.text, "an output")
            async with server.http.stream("GET", f"/v1/runs/{run_id}/stream") as stream:
                async for line in stream.aiter_lines():
                    seen_nowhere(line, "the stream of a run")
                    if name == "held":
                        break
        assert looked_at > 90
        assert masks > 15, "and something was there to be masked"
        seen_nowhere(" ".join(str(entry) for entry in await server.engine.reader.audit()), "the audit log")
    seen_nowhere(caplog.text, "the log")


async def test_functions_and_the_protocol_have_the_value(start: Start):
    got = []

    def charge(body, step):
        got.append(body["event"]["data"])
        return [op("StepRun", "one", data={"token": CANARY})] if not body["steps"] else body["steps"]

    with scripted_sdk("vault2", {"paid": charge}) as sdk:
        async with start() as server:
            document = sdk.document(paid={"sensitive": ["token"]})
            assert (await server.http.post("/fn/register", json=document)).status_code == 200
            event = {"name": "vault2/paid", "data": {"token": CANARY, "other": "o1"}}
            event_id = (await server.http.post("/e/k", json=event)).json()["ids"][0]
            await server.engine.store.group.drain()
            run_id = await server.run_of(event_id)
            assert await server.ended(run_id) == "Completed"
            assert {data["token"] for data in got} == {CANARY}
            shown = (await server.http.get(f"/v1/events/{event_id}")).json()["data"]["data"]
            assert shown == {"token": "[masked]", "other": "o1"}, "the application registered what is marked"
            seen_nowhere((await server.http.get(f"/v1/runs/{run_id}/steps")).text, "steps")
            assert (await server.http.request("DELETE", "/fn/remove", params={"url": sdk.url})).status_code == 200
            seen_nowhere((await server.http.get(f"/v1/events/{event_id}")).text, "an event after the application has gone")


async def test_a_login_does_not_open_what_functions_are_given(start: Start):
    async with start(**PRODUCTION, apps=[make_vault()]) as server:
        _, run_id = await sent(server, "held")
        await server.http.post("/login", data={"credential": SIGNING_KEY})
        for part in ("batch", "actions"):
            assert (await server.http.get(f"/v0/runs/{run_id}/{part}", headers=bearer())).status_code == 200
            refused = await server.http.get(f"/v0/runs/{run_id}/{part}")
            assert (refused.status_code, "for applications" in refused.text) == (403, True)


async def test_settings_mark_too(start: Start):
    async with start(mask=("order_id", "card.number")) as server:
        event_id = await server.send("shop/order.paid", order_id=CANARY, amount=5)
        for path in (f"/v1/events/{event_id}", f"/events/{event_id}", "/events", "/v1/events"):
            text = (await server.http.get(path)).text
            seen_nowhere(text, path)
            assert "[masked]" in text


async def test_what_is_masked_is_kept_when_a_run_starts_again(start: Start):
    async with start(apps=[make_vault()]) as server:
        event_id, run_id = await sent(server, "paid")
        form = (await server.http.get(f"/runs/{run_id}/edit?step=copy")).text
        token = form.partition('name="csrf_token" value="')[2].partition('"')[0]
        assert "[masked]" not in form, "masks are not offered as values"
        fields = {"csrf_token": token, "step": "text", "input": "", "data": ""}
        again = await server.http.post(f"/runs/{run_id}/edit", data=fields)
        assert again.status_code == 303, again.text
        new = again.headers["location"].rpartition("/")[2]
        assert await server.ended(new) == "Completed"
        assert json.loads((await server.engine.reader.run(new)).output)["token"] == CANARY
        masked = (await server.http.get(f"/v1/events/{event_id}")).json()["data"]["data"]
        for answer in (
            await server.http.post(f"/runs/{run_id}/edit", data={**fields, "data": json.dumps({**masked, "order_id": "o2"})}),
            await server.http.post(f"/v1/runs/{run_id}/rerun", json={"event_data": masked}),
        ):
            assert answer.status_code == 400
            assert "a value is [masked], as it was shown" in answer.text


async def test_a_refused_event_does_not_tell(start: Start, caplog: pytest.LogCaptureFixture):
    async with start(apps=[make_vault()]) as server:
        for data in ({**MARKED, "card": {"number": [CANARY]}}, {**MARKED, "token": {"a": CANARY}}):
            answer = await server.http.post("/e/k", json={"name": "vault/paid", "data": data})
            assert answer.status_code == 400
            seen_nowhere(answer.text, "a refusal")
    seen_nowhere(caplog.text, "the log")
    assert CANARY not in repr(Paid(order_id="o", token=SecretStr(CANARY), card=Card(number="1")))


def test_pages_and_api_read_through_the_masks_alone():
    """What reads past them shows what is marked. `app.py` puts the masks on; metrics have no payloads."""
    source = Path(holdfast.__file__).parent
    allowed = {"server/metrics.py", "server/app.py"}
    for part in ("server", "dashboard"):
        for path in (source / part).rglob("*.py"):
            if str(path.relative_to(source)) not in allowed:
                assert "engine.reader" not in path.read_text(), f"{path.name}: use api.reader or site.reader"
