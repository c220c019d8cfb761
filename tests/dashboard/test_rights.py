"""A viewer who may only look: pages without buttons, changes refused."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from dashboard_kit import World, make_app
from holdfast.compose import build_engine
from holdfast.dashboard.routes import routes
from holdfast.engine.shown import shown
from starlette.applications import Starlette
from starlette.requests import Request

pytestmark = pytest.mark.anyio


class Visitor:
    """A guard that lets people look."""

    def csrf_token(self, request: Request) -> str:
        return "token"

    async def check_csrf(self, request: Request) -> None:
        raise AssertionError("rights are checked first")

    def actor(self, request: Request) -> str:
        return "visitor"

    def logout_path(self, request: Request) -> str | None:
        return "/leave"

    def can_change(self, request: Request) -> bool:
        return False


async def test_a_visitor_sees_everything_and_changes_nothing(tmp_path: Path):
    async with build_engine([make_app(World())], f"sqlite:///{tmp_path / 'shop.db'}") as engine:
        app = Starlette(routes=routes(engine, Visitor(), reader=shown(engine, ["card"])))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            run = await engine.start("shop-greet", _outgoing(b'{"card":"4242-4242"}'))
            await engine.result(run, 10)
            for path in ("/", "/runs", f"/runs/{run}", "/events", "/functions/shop-greet", "/dead-letters", "/crons", "/events/send", "/bulk", f"/runs/{run}?step=say", f"/runs/{run}/edit?step=say"):
                answer = await client.get(path)
                assert answer.status_code == 200, path
                assert 'method="post"' not in answer.text.replace('<form id="bulk" action="/bulk/ask" method="post"', "").replace(
                    '<form action="/events/send" method="post"', ""
                ).replace(f'<form action="/runs/{run}/edit" method="post"', ""), f"{path} offers a change"
                assert "<button class=\"button button-strong\">" not in answer.text.partition('method="post"')[2].partition("</form>")[0]
                assert 'href="/leave"' in answer.text
                assert "4242" not in answer.text, f"{path} shows what is masked"
            refused = await client.post(f"/runs/{run}/rerun", data={"csrf_token": "token"})
            assert refused.status_code == 403
            assert "look at everything" in refused.text
            assert "4242" not in (await client.get(f"/runs/{run}/output.json")).text
            event = (await engine.reader.run_view(run)).event_id
            assert "4242" not in (await client.get(f"/events/{event}.json")).text
            assert "4242" not in (await client.get(f"/events/send?name=test/hello&event={event}")).text


async def test_what_keeps_an_app_from_loading_is_on_every_page(tmp_path: Path):
    errors = ["app.py:3: NameError: name 'Even' is not defined"]
    async with build_engine([], f"sqlite:///{tmp_path / 'shop.db'}", app_errors=errors) as engine:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(Starlette(routes=routes(engine, Visitor()))), base_url="http://shop") as client:
            for path in ("/", "/runs", "/functions"):
                text = (await client.get(path)).text
                assert "The application could not be loaded." in text
                assert "name &#39;Even&#39; is not defined" in text
            assert "holdfast dev app.py" in (await client.get("/")).text, "and what to do when there is none"


def _outgoing(data: bytes):
    from holdfast.sdk.sender import Outgoing

    return Outgoing("test/hello", data)
