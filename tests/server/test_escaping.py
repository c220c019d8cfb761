"""Every page, with names and texts that try to be markup: what is parsed has no element and no address of theirs."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from scripted_sdk import scripted_sdk
from server_kit import Start, every_route, Values

from holdfast import App, Context, NonRetriableError

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
EVIL = "\"'><x-evil onclick=alert(1)></script><script>alert(2)</script><!--{{7*7}}"
LINK = "javascript:alert(3)//x-evil"


class Parsed(HTMLParser):
    """What a browser would make of a page that is not the server's own."""

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix
        self.bad: list[str] = []
        self.links = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"x-evil", "iframe", "object", "embed", "base"} or (tag == "script" and not (given.get("src") or "").startswith("/static/")):
            self.bad.append(f"<{tag} {given}>")
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.bad.append(f"{tag} has {name}={value}")
            if name in {"href", "src", "action", "formaction"}:
                self.links += 1
                text = (value or "").strip().lower()
                if text.startswith(("javascript:", "data:", "vbscript:")) and tag != "img" and tag != "link":
                    self.bad.append(f"{tag} leads to {value}")


def evil_app() -> App:
    app = App("evil", retries=0)

    @app.function(EVIL, id="fn", name=EVIL)
    async def fn(ctx: Context[Any]) -> dict[str, str]:
        ctx.logger.error("%s %s", EVIL, LINK)
        await ctx.step.run(EVIL, lambda: {EVIL: EVIL, "url": LINK})
        if ctx.event.data.get("wait"):
            await ctx.step.wait_for_event(EVIL, EVIL, if_="event.data.a == '<x-evil>'", timeout="1d")
        raise type("x-evil", (NonRetriableError,), {})(EVIL)

    return app


def looked_at(text: str, where: str) -> int:
    parsed = Parsed("")
    parsed.feed(text)
    assert parsed.bad == [], f"{where}: {parsed.bad[:3]}"
    assert "7*7" in text or "49}}" not in text
    return parsed.links


async def test_no_page_takes_text_for_markup(start: Start):
    with scripted_sdk("far", {"fn": lambda body, step: 1}) as sdk:
        async with start({"accept": "text/html"}, apps=[evil_app()]) as server:
            function = {**sdk.document()["functions"][0], "id": "far-fn", "name": EVIL, "triggers": [{"event": EVIL, "expression": "'<x-evil>' == '1'"}]}
            document = {**sdk.document(), "functions": [function], "sdk": f"js:{EVIL}", "framework": EVIL, "appVersion": EVIL}
            answer = await server.http.post("/fn/register", json=document)
            assert answer.status_code == 200, answer.text
            await server.engine.applications.failed("far", EVIL + LINK)
            ids = {}
            for name, data in (("failed", {}), ("waits", {"wait": True})):
                body = {"name": EVIL, "data": {EVIL: EVIL, "url": LINK, **data}, "id": f"{EVIL}{name}", "user": {EVIL: LINK}}
                event_id = (await server.http.post("/e/k", json=body)).json()["ids"][0]
                await server.engine.store.group.drain()
                runs = await server.engine.reader.event_runs(event_id)
                ids[name] = (event_id, next(run.id for run in runs if run.function == "evil-fn"))
            await server.ended(ids["failed"][1])
            await server.engine.audit(EVIL, EVIL, LINK, EVIL, EVIL)
            bulk = await server.engine.bulks.start("cancel", {"error": EVIL}, actor=EVIL)
            server.engine.app_errors.append(EVIL + LINK)
            bulk_id = (await server.engine.reader.bulks())[0].id
            assert bulk is not None
            pages, links = 0, 0
            for event_id, run_id in ids.values():
                values = {
                    "run_id": run_id, "event_id": event_id, "internal_id": event_id, "slug": "evil-fn", "app": "evil", "function": "evil-fn",
                    "part": "output", "bulk_id": bulk_id, "rule": "concurrency", "key": "k",
                }  # fmt: skip
                routes = [path for method, path in every_route(server.serving.app.routes) if method == "GET" and not path.endswith("/stream")]
                paths = [path.format_map(Values(values)) for path in routes]
                evil = quote(EVIL, safe="")
                paths += [f"/runs/{run_id}?step={evil}&logs=all&history=all", f"/runs/{run_id}/edit?step={evil}", "/functions/far-fn"]
                paths += [f"{path}?{name}={evil}" for path in ("/runs", "/events", "/dead-letters", "/", "/bulk", "/flow", "/queue") for name in ("q", "name", "status", "since", "error", "period", "function", "fingerprint", "cursor")]
                paths += [f"/search?q={evil}", f"/search?q={quote(LINK, safe='')}", f"/events/send?name={evil}&data={evil}", f"/nothing/{evil}", f"/runs/{evil}", f"/events/{evil}", f"/functions/{evil}", f"/login?next={quote(LINK, safe='')}"]
                for path in paths:
                    answer = await server.http.get(path, follow_redirects=False)
                    assert answer.status_code not in {500, 502, 503}, path
                    assert "x-evil" not in answer.headers.get("location", "").lower() or answer.headers["location"].startswith("/"), path
                    if answer.headers.get("content-type", "").startswith("text/html"):
                        policy = answer.headers["content-security-policy"]
                        assert "default-src 'none'" in policy
                        assert "unsafe" not in policy
                        links += looked_at(answer.text, path)
                        pages += 1
                    else:
                        assert answer.headers["x-content-type-options"] == "nosniff", path
            assert pages > 100
            assert links > 2000


async def test_what_a_change_says_is_escaped(start: Start):
    async with start({"accept": "text/html"}, apps=[evil_app()]) as server:
        for said in (EVIL, f"bad {LINK}{EVIL}"):
            page = await server.http.get("/runs", headers={"cookie": f"holdfast_said={quote(said)}"})
            looked_at(page.text, "what was said")
        page = (await server.http.get("/events/send")).text
        token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
        for path, fields in (("/events/send", {"name": EVIL, "data": EVIL, "id": EVIL}), ("/apps/sync", {"url": LINK}), ("/crons/run", {"function": EVIL, "schedule": EVIL}), ("/functions/evil-fn/invoke", {"data": EVIL}), ("/bulk/ask", {"action": "cancel", "filter": EVIL, "back": LINK}), ("/functions/evil-fn/limits", {"rule": EVIL, "limit": EVIL, "back": LINK}), ("/login", {"credential": EVIL, "next": LINK})):  # fmt: skip
            answer = await server.http.post(path, data={"csrf_token": token, **fields}, follow_redirects=True)
            assert answer.status_code < 500, path
            looked_at(answer.text, path)


def test_the_test_sees_what_it_looks_for():
    for text in (EVIL, f'<a href="{LINK}">x</a>', '<p style="x">', "<script src='//elsewhere/x.js'></script>", "<b onmouseover=x>"):
        parsed = Parsed("")
        parsed.feed(f"<p>{text}</p>")
        assert parsed.bad, text
