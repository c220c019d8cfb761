"""The serve route, independent of frameworks: a request in, a response out (protocol sections 1.3, 2)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from holdfast.base.clock import Clock, SystemClock
from holdfast.base.errors import ConfigurationError, HoldfastError
from holdfast.sdk.app import App
from holdfast.serve import documents
from holdfast.serve.call import FunctionCall, call_failed
from holdfast.serve.checkpoints import Checkpoints
from holdfast.serve.client import ServerClient
from holdfast.serve.http import Request, Response
from holdfast.serve.place import Place, Served
from holdfast.serve.settings import ServeSettings
from holdfast.wire import headers as h
from holdfast.wire.answers import Written
from holdfast.wire.calls import DISCOVERY, CallRequest, decode_call
from holdfast.wire.canonical import canonicalise, decode
from holdfast.wire.errors import SignatureError, WireError
from holdfast.wire.registering import IN_BAND, OUT_OF_BAND, RegisterAnswer, encode_register, encode_register_answer
from holdfast.wire.signatures import sign, verify

_log = logging.getLogger("holdfast.serve")
METHODS = ("GET", "PUT", "POST")


class ServeHandler:
    """Answers the requests of a server to one app.

    Args:
        app: The app whose functions it serves.
        settings: Its keys and addresses.
        framework: The web framework's name in the protocol, such as `fastapi`.
        clock: The wall clock unless given.
    """

    def __init__(self, app: App, settings: ServeSettings, framework: str, *, clock: Clock | None = None) -> None:
        self.app = app
        self.settings = settings
        self.framework = framework
        self.clock = clock or SystemClock()
        self.client = ServerClient(settings, framework)
        self.place = Place(app, settings, self.client, self.clock)
        if settings.signed and not settings.signing_keys:
            _log.warning(
                "%s of app %r will refuse every call: it runs in production mode without INNGEST_SIGNING_KEY; "
                "set the server's signing key, or INNGEST_DEV=1 while developing",
                settings.path,
                app.id,
            )

    async def close(self) -> None:
        """Leave the app's lifespan."""
        await self.place.close()

    async def handle(self, request: Request) -> Response:
        """Answer a request. Never raises: whatever goes wrong is an answer in JSON."""
        try:
            written = await self._answer(request)
        except SignatureError as error:
            written = _problem(401, error)
        except WireError as error:
            written = _problem(400, error)
        except HoldfastError as error:
            _log.warning("%s %s: %s", request.method, self.settings.path, error)
            written = _problem(500, error)
        except Exception as error:
            _log.exception("%s %s failed", request.method, self.settings.path)
            written = call_failed(type(error).__name__, "the serve route failed; see the application's log", "internal")
        return self._response(written)

    async def _answer(self, request: Request) -> Written:
        if request.method == "GET":
            return self._introspect(request)
        if request.method == "PUT":
            return await self._sync(request)
        if request.method == "POST":
            self._authenticate(request)
            if request.query.get("probe") == "trust":
                return Written(200, b"null")
            return await self._call(request)
        return _problem(405, WireError(f"{request.method} is not allowed; the route takes GET, PUT and POST"))

    def _response(self, written: Written) -> Response:
        settings = self.settings
        headers = {
            "content-type": "application/json",
            h.SDK: h.SDK_NAME,
            h.SDK_HANDLED: "true",
            h.FRAMEWORK: self.framework,
            h.REQUEST_VERSION: str(h.REQUEST_VERSION_NOW),
            h.EXPECTED_SERVER_KIND: settings.mode,
            **({h.ENV: settings.env} if settings.env else {}),
            **written.headers,
        }
        body = written.body
        if settings.signed and settings.signing_keys:
            try:
                body = canonicalise(body)
            except WireError:  # nested deeper than the canonical form goes: it is signed as it is
                body = written.body
            headers[h.SIGNATURE] = sign(body, settings.signing_keys[0], self.clock.now())
        return Response(written.status, body, headers)

    # -- who asks ------------------------------------------------------------------------------------------------------

    def _authenticate(self, request: Request) -> None:
        settings = self.settings
        if not settings.signed:
            return
        if not settings.signing_keys:
            raise ConfigurationError(
                "the application runs in production mode without a signing key: set INNGEST_SIGNING_KEY, "
                "or INNGEST_DEV=1 while developing"
            )
        verify(request.headers.get(h.SIGNATURE), request.body, settings.signing_keys, self.clock.now())

    def _is_authenticated(self, request: Request) -> bool | None:
        if h.SIGNATURE not in request.headers or not self.settings.signing_keys:
            return None
        try:
            verify(request.headers[h.SIGNATURE], request.body, self.settings.signing_keys, self.clock.now())
        except SignatureError:
            return False
        return True

    # -- introspection and sync ----------------------------------------------------------------------------------------

    def _introspect(self, request: Request) -> Written:
        authenticated = self._is_authenticated(request)
        if authenticated:
            return Written(200, msgspec.json.encode(documents.full_introspection(self.app, self.settings, self.framework)))
        return Written(200, msgspec.json.encode(documents.introspection(self.app, self.settings, authenticated)))

    async def _sync(self, request: Request) -> Written:
        in_band = request.headers.get(h.SYNC_KIND) == IN_BAND
        settings = self.settings
        # an unsigned sync takes the app's address from the request, so that anybody could name another one
        if in_band or settings.serve_origin is None or h.SIGNATURE in request.headers:
            self._authenticate(request)
        if in_band:
            url = settings.address(_given_url(request.body) or request.url)
            document = documents.in_band_sync(self.app, settings, self.framework, url)
            return Written(200, msgspec.json.encode(document), {h.SYNC_KIND: IN_BAND})
        return await self._register(request)

    async def _register(self, request: Request) -> Written:
        url = self.settings.address(request.url)
        body = encode_register(documents.register_request(self.app, self.settings, self.framework, url))
        deploy = request.query.get("deployId", "")
        path = "/fn/register" + (f"?deployId={deploy}" if deploy.replace("-", "").isalnum() else "")
        answer = await self.client.post(path, body)
        headers = {h.SYNC_KIND: OUT_OF_BAND}
        if not answer.ok:
            message = f"the server refused the registration ({answer.status}): {answer.reason}"
            _log.warning("syncing app %r: %s", self.app.id, message)
            body = msgspec.json.encode({"message": message, "error": message, "code": "registration_refused", "ok": False})
            return Written(500, body, headers)
        try:
            said = decode(answer.body, RegisterAnswer)
        except WireError:
            said = RegisterAnswer(ok=True)
        return Written(200, encode_register_answer(said), headers)

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _call(self, request: Request) -> Written:
        slug = request.query.get("fnId", "")
        if not slug:
            raise WireError("the query has no fnId")
        call = decode_call(request.body)
        fn = self.place.function(slug)
        if fn is None:
            known = ", ".join(sorted(self.app.functions)) or "none"
            message = f"function {slug} not found; app {self.app.id!r} has: {known}"
            return call_failed("FunctionNotFoundError", message, "function_not_found")
        if call.detached:
            await self._fetch(call)
        target = request.query.get("stepId") or request.headers.get(h.STEP_ID) or DISCOVERY
        shows_lines = h.SHOWS_LINES in request.headers
        if target != DISCOVERY:
            return await FunctionCall(self.place, fn, call, target, shows_lines=shows_lines).answer()
        checkpoints = self._checkpoints(request, fn, call)
        return await FunctionCall(self.place, fn, call, None, checkpoints, shows_lines=shows_lines).answer()

    def _checkpoints(self, request: Request, fn: Served, call: CallRequest) -> Checkpoints | None:
        settings = self.settings.checkpoints_of(fn.function)
        ctx = call.ctx
        if settings is None or ctx.disable_immediate_execution or not (ctx.qi_id and ctx.run_id.isalnum()):
            return None
        return Checkpoints(self.client, call, settings, request.headers.get(h.GENERATION_ID), self.clock)

    async def _fetch(self, call: CallRequest) -> None:
        """State that was too large for the call."""
        run_id = call.ctx.run_id
        if not run_id.isalnum():
            raise WireError(f"{run_id!r:.40} is not a run id")
        call.steps = await self.client.steps_of(run_id)
        if not call.events:
            call.events = await self.client.events_of(run_id)


def _given_url(body: bytes) -> str | None:
    document = decode(body) if body.strip() else None
    url = document.get("url") if isinstance(document, Mapping) else None
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else None


def _problem(status: int, error: HoldfastError) -> Written:
    body = {"name": type(error).__name__, "message": str(error), "code": error.code}
    return Written(status, msgspec.json.encode(body))
