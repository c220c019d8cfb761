"""The inbox in a browser, and as JSON for whoever checks it."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from datetime import datetime

import uvicorn
from jinja2 import Environment
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from .inbox import Inbox, ReceivedMail, smtp_server

_LAYOUT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: light-dark(#e2e2de, #34343a); --soft: light-dark(#6b6b66, #9a9aa2) }
body { margin: 0 auto; padding: 24px 16px; max-width: 880px; font: 15px/1.5 system-ui, sans-serif;
       background: light-dark(#fbfbfa, #17171a); color: light-dark(#1c1c1a, #ececf0) }
h1 { font-size: 20px; margin: 0 0 16px; overflow-wrap: anywhere }
a { color: inherit }
ul { list-style: none; margin: 0; padding: 0 }
li { border-bottom: 1px solid var(--line) }
li a { display: block; padding: 10px 0; text-decoration: none; overflow-wrap: anywhere }
li a:hover { background: light-dark(#f0f0ec, #202024) }
.soft, dt { color: var(--soft); font-size: 13px }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px }
dd { margin: 0; overflow-wrap: anywhere }
iframe { width: 100%; height: 480px; border: 1px solid var(--line); border-radius: 8px; background: #fff }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: 8px; padding: 12px }
</style>
</head>
<body>
{{ body }}
</body>
</html>"""

_LIST = """<h1>Inbox: {{ mails | length }} e-mail{{ "" if mails | length == 1 else "s" }}</h1>
<ul>
{% for mail in mails %}
<li><a href="/mails/{{ mail.number }}"><strong>{{ mail.subject }}</strong><br>
<span class="soft">{{ mail.recipients | join(", ") }} &middot; {{ mail.at | clock }}</span></a></li>
{% else %}
<li class="soft">Nothing yet. Mails show up here as soon as the shop sends one.</li>
{% endfor %}
</ul>
<script>
const known = {{ mails | length }};
setInterval(async () => {
  try { if ((await (await fetch("/api/count")).json()).count !== known) location.reload(); }
  catch { document.title = "Inbox (stopped)"; }
}, 1000);
</script>"""

_MAIL = """<p><a href="/">Inbox</a></p>
<h1>{{ mail.subject }}</h1>
<dl>
<dt>To</dt><dd>{{ mail.recipients | join(", ") }}</dd>
<dt>Message-ID</dt><dd>{{ mail.message_id }}</dd>
<dt>Received</dt><dd>{{ mail.at | clock }}</dd>
</dl>
<iframe title="The e-mail as HTML" sandbox srcdoc="{{ mail.html }}"></iframe>
<h2 class="soft">As text</h2>
<pre>{{ mail.text }}</pre>"""

_pages = Environment(autoescape=True)
_pages.filters["clock"] = lambda at: datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")
_layout, _list, _mail = (_pages.from_string(text) for text in (_LAYOUT, _LIST, _MAIL))


def inbox_app(inbox: Inbox) -> Starlette:
    """The pages and the JSON of an inbox."""

    async def mails(_request: Request) -> Response:
        return _page("Inbox", _list.render(mails=inbox.mails[::-1]))

    async def mail(request: Request) -> Response:
        number = request.path_params["number"]
        if not 1 <= number <= len(inbox.mails):
            raise HTTPException(404, "there is no such e-mail")
        found: ReceivedMail = inbox.mails[number - 1]
        return _page(found.subject, _mail.render(mail=found))

    async def as_json(_request: Request) -> Response:
        return JSONResponse([dataclasses.asdict(mail) for mail in inbox.mails])

    async def count(_request: Request) -> Response:
        return JSONResponse({"count": len(inbox.mails)})

    return Starlette(
        routes=[
            Route("/", mails),
            Route("/mails/{number:int}", mail),
            Route("/api/mails", as_json),
            Route("/api/count", count),
        ]
    )


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(_layout.render(title=title, body=Markup(body)))  # noqa: S704 - rendered, so escaped, just now


async def _serve(smtp_port: int, page_port: int) -> None:
    inbox = Inbox()
    async with smtp_server(inbox, port=smtp_port) as port:
        print(f"SMTP on 127.0.0.1:{port}; read the mails at http://127.0.0.1:{page_port}", flush=True)
        config = uvicorn.Config(inbox_app(inbox), port=page_port, log_level="warning")
        await uvicorn.Server(config).serve()


def main() -> None:
    """`python -m examples.demo.inbox_page`: an inbox of its own, for developing the storefront."""
    parser = argparse.ArgumentParser(description="A mail server that keeps every e-mail, and a page to read them.")
    parser.add_argument("--smtp-port", type=int, default=1025, help="default %(default)s")
    parser.add_argument("--port", type=int, default=8025, help="the page's port; default %(default)s")
    options = parser.parse_args()
    asyncio.run(_serve(options.smtp_port, options.port))


if __name__ == "__main__":
    main()
