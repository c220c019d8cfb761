"""What all pages share: templates, addresses under the prefix, fragments with an ETag, messages after a change."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from holdfast.base.clock import iso
from holdfast.base.errors import HoldfastError, OverloadedError, RunNotFoundError, StoreError
from holdfast.dashboard import assets, flow_words, humanize, payload, status, words
from holdfast.dashboard.asking import Asker
from holdfast.dashboard.drafts import example
from holdfast.dashboard.forms import Form, read_form
from holdfast.dashboard.guard import CSRF_FIELD, Guard
from holdfast.dashboard.icons import LOGO, icon
from holdfast.dashboard.origin import origin_of
from holdfast.engine.engine import Engine
from holdfast.engine.shown import shown
from holdfast.store.reads import Reader

FRAGMENT_HEADER = "x-fragment"
SAID_COOKIE = "holdfast_said"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_DEAD_BADGE_CAP = 100
_TIME_TEXT = re.compile(r"""(<(?:time\b|span class="ticking")[^>]*>)[^<]*""")

Handler: TypeAlias = Callable[["Site", Request], Awaitable[Response]]
Change: TypeAlias = Callable[["Site", Request, Form], Awaitable[Response]]


class Site:
    """The dashboard of one engine."""

    def __init__(
        self, engine: Engine, guard: Guard, reader: Reader | None = None, asker: Asker | None = None
    ) -> None:
        self.engine = engine
        self.reader = reader or shown(engine)
        self.guard = guard
        self.asker = asker
        self.version = assets.version()
        self._templates = _environment()

    async def audit(self, request: Request, action: str, target: str, detail: str = "") -> None:
        """Record that this request changed something."""
        await self.engine.audit(self.guard.actor(request), action, target, detail, origin_of(request, "dashboard"))

    def now(self) -> int:
        return self.engine.clock.now()

    def show(self, raw: bytes | None) -> payload.Payload | None:
        """A JSON document for a page."""
        return payload.show(raw)

    @staticmethod
    def url(request: Request, path: str, **params: object) -> str:
        """An address of the dashboard, wherever it is mounted."""
        query = urlencode({key: value for key, value in params.items() if value not in {None, ""}})
        return (
            str(request.scope.get("root_path", "")).rstrip("/")
            + quote(path, safe="/%:@+,~!$&'()*;=-._")
            + (f"?{query}" if query else "")
        )

    async def page(
        self,
        request: Request,
        template: str,
        *,
        title: str,
        section: str = "",
        live: str = "",
        live_id: str = "",
        every: int | None = None,
        status_code: int = 200,
        **view: Any,
    ) -> Response:
        """Render a page, or only what changes of it when the browser asks for the fragment.

        Args:
            request: What is answered.
            template: File under templates.
            title: Of the page.
            section: The entry of the navigation it belongs to.
            live: Kinds of notices that make it stale, separated by spaces.
            live_id: Only notices about this id do.
            every: Fetch it again after this many ms while it is visible.
            status_code: Of the response.
            **view: What the template needs.
        """
        fragment = FRAGMENT_HEADER in request.headers
        if request.method != "GET":
            # an answer to a form has no address of its own: nothing to fetch again, nothing to go back to
            live, every = "", None
        now = self.now()
        said = None if fragment else _said(request)
        html = self._templates.get_template(template).render(
            layout="layout/fragment.html" if fragment else "layout/page.html",
            title=title,
            section=section,
            live=live,
            live_id=live_id,
            every=every,
            now=now,
            said=said,
            request=request,
            url=lambda path, **params: self.url(request, path, **params),
            periods_href=lambda key: f"{request.url.path}?period={key}",
            static=lambda name: self.url(request, f"/static/{self.version}/{name}"),
            time=lambda moment, style="ago": time_tag(moment, now, style),
            csrf=Markup('<input type="hidden" name="{}" value="{}">').format(
                CSRF_FIELD, self.guard.csrf_token(request)
            ),
            can_change=self.guard.can_change(request),
            actor=self.guard.actor(request),
            dead_badge=await self._dead_badge(),
            bulks_running=await self.reader.bulks(running=True, limit=3),
            logout=self.guard.logout_path(request),
            engine_status=self.engine.status(),
            example=example(self.engine.apps),
            **view,
        )
        return self._answer(request, html, fragment=fragment, clear_said=said is not None, status_code=status_code)

    def _answer(self, request: Request, html: str, *, fragment: bool, clear_said: bool, status_code: int) -> Response:
        headers = {} if request.method == "GET" else {"HX-Push-Url": "false"}
        headers |= {
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "Cache-Control": "no-store",
            "Vary": "X-Fragment, Cookie",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        }
        if fragment:
            # times that pass are no news: the browser counts them on by itself
            still = _TIME_TEXT.sub(r"\1", html)
            etag = f'"{blake2b(still.encode(), digest_size=12).hexdigest()}"'
            headers["ETag"] = etag
            if request.headers.get("if-none-match") == etag:
                return Response(status_code=304, headers=headers)
        response = Response(html, status_code=status_code, media_type="text/html", headers=headers)
        if clear_said:
            response.delete_cookie(SAID_COOKIE, path=self.url(request, "/"))
        return response

    def redirect(self, request: Request, address: str, said: str = "", *, tone: str = "ok") -> Response:
        """Answer a change: go to an address made by `url`, and say there what happened."""
        response = RedirectResponse(address, status_code=303)
        if said:
            response.set_cookie(
                SAID_COOKIE,
                quote(f"{tone} {said}"[:1500]),
                max_age=60,
                path=self.url(request, "/"),
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
            )
        return response

    async def _dead_badge(self) -> int:
        """Dead letters to show in the navigation, counted up to a hundred."""
        return len((await self.reader.dead_letters(limit=_DEAD_BADGE_CAP))[0])

    async def problem(self, request: Request, status_code: int, title: str, sentence: str) -> Response:
        """A page that says what is wrong and where to go on."""
        return await self.page(
            request, "problem.html", title=title, status_code=status_code, sentence=sentence, code=status_code
        )


def reading(site: Site, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that shows a page."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(site, request)
        except RunNotFoundError as error:
            return await site.problem(
                request, 404, "Not found", f"{error}. Runs are removed when their retention is over."
            )
        except HTTPException as error:
            return await site.problem(
                request, error.status_code, "Not found" if error.status_code == 404 else "Not possible", error.detail
            )
        except StoreError as error:
            return _plain(503, f"The store can't be read now: {error}. The page can be reloaded in a moment.")

    return endpoint


def changing(site: Site, handler: Change) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that changes something: only with the right to, and with the session's token."""

    async def endpoint(request: Request) -> Response:
        if not site.guard.can_change(request):
            return await site.problem(request, 403, "Read only", "You can look at everything here but not change it.")
        await site.guard.check_csrf(request)
        try:
            return await handler(site, request, await read_form(request))
        except RunNotFoundError as error:
            return await site.problem(request, 404, "Not found", f"{error}.")
        except OverloadedError as error:
            return _plain(
                503,
                f"{error}. Nothing was changed; try again in {error.retry_after:g} s.",
                {"Retry-After": f"{error.retry_after:.0f}"},
            )
        except HoldfastError as error:
            return await site.problem(
                request, 503 if isinstance(error, StoreError) else 400, "That did not work", f"{error}"
            )

    return endpoint


def time_tag(moment: int | None, now: int, style: str = "ago") -> Markup:
    """A moment as a `<time>` element that scripts keep current: relative (`ago`), of the day (`clock`) or in full (`full`)."""
    if moment is None:
        return Markup('<span class="none">&ndash;</span>')
    text = {
        "ago": lambda: humanize.ago(moment, now),
        "clock": lambda: humanize.clock(moment),
        "full": lambda: humanize.absolute(moment),
    }[style]()
    return Markup('<time datetime="{}" data-at="{}" data-style="{}" title="{}">{}</time>').format(
        iso(moment), moment, style, humanize.absolute(moment), text
    )


def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        duration=humanize.duration,
        offset=humanize.offset,
        number=humanize.number,
        compact=humanize.compact,
        size=humanize.size,
        percent=humanize.percent,
        clock=humanize.clock,
        absolute=humanize.absolute,
        dict_with=lambda base, **more: {**base, **more},
    )
    env.globals.update(
        icon=icon,
        LOGO=LOGO,
        plural=humanize.plural,
        run_status=status.run_status,
        step_status=status.step_status,
        RUN_STATUSES=status.RUN_STATUSES,
        LETTER_STATES=status.LETTER_STATES,
        BULK_STATES=status.BULK_STATES,
        BULK_ACTIONS=status.BULK_ACTIONS,
        ACTIVE=status.ACTIVE,
        KIND_LABELS=status.KIND_LABELS,
        trigger_words=words.trigger,
        rule_label=flow_words.label,
        skip_words=flow_words.skipped,
        escape=escape,
    )
    env.globals["ui"] = env.get_template("macros.html").module
    return env


def _said(request: Request) -> tuple[str, str] | None:
    raw = request.cookies.get(SAID_COOKIE)
    if not raw:
        return None
    tone, _, text = unquote(raw).partition(" ")
    return ("bad" if tone == "bad" else "ok", text)


def _plain(status_code: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return Response(sentence + "\n", status_code=status_code, media_type="text/plain", headers=headers)
