"""The serve route in a Django project: `urlpatterns = [..., serve(app)]`."""

from __future__ import annotations

import asyncio
from typing import Any, Unpack

try:
    from django.core.handlers.asgi import ASGIRequest
    from django.http import HttpRequest, HttpResponse, JsonResponse
    from django.http.request import UnreadablePostError
    from django.urls import URLPattern, path
except ImportError as error:
    raise ImportError("holdfast.serve.django needs Django: pip install 'holdfast[django]'") from error

from holdfast.sdk.app import App
from holdfast.serve.handler import ServeHandler
from holdfast.serve.http import MAX_BODY_BYTES, Request, Response
from holdfast.serve.portal import close_at_exit, portal
from holdfast.serve.settings import ServeOptions, ServeSettings


def serve(app: App, **options: Unpack[ServeOptions]) -> URLPattern:
    """A URL pattern with an app's functions, at `/api/inngest`, for the project's `urlpatterns`.

    Under ASGI async functions run on the server's loop; under WSGI on a loop of holdfast's own, one for the process. Plain
    functions run in threads, where Django's ORM may be used.

    Args:
        app: The app whose functions are served; those declared later are served too.
        **options: What differs from the environment.

    Raises:
        ConfigurationError: a key or an address can't be used.
    """
    handler = ServeHandler(app, ServeSettings.of(**options), "django")

    async def view(request: HttpRequest) -> HttpResponse:
        if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BODY_BYTES:
            return JsonResponse({"message": f"the body is over {MAX_BODY_BYTES} bytes"}, status=413)
        try:
            body = request.read(MAX_BODY_BYTES + 1)
        except UnreadablePostError:  # the client went away
            return JsonResponse({"message": "the body ended early"}, status=400)
        asked = _request(request, body)
        if isinstance(request, ASGIRequest):
            return _written(await handler.handle(asked))
        # under WSGI this runs on a loop that lasts as long as the request
        return _written(await asyncio.wrap_future(portal.submit(handler.handle(asked))))

    view.csrf_exempt = True  # type: ignore[attr-defined] # calls are signed, not made by a browser
    close_at_exit(handler.close)
    pattern: Any = path(handler.settings.path.lstrip("/"), view, name="holdfast")
    return pattern


def _request(request: HttpRequest, body: bytes) -> Request:
    given: Any = request.headers
    headers = {name.lower(): value for name, value in given.items()}
    url = str(request.build_absolute_uri(request.path))
    return Request(request.method or "", url, {name: str(value) for name, value in request.GET.items()}, headers, body)


def _written(response: Response) -> HttpResponse:
    out = HttpResponse(response.body, status=response.status)
    for name, value in response.headers.items():
        out[name] = value
    return out


