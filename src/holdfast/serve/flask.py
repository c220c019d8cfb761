"""The serve route in a Flask application: `serve(web, app)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

try:
    import flask
    from werkzeug.exceptions import RequestEntityTooLarge
except ImportError as error:
    raise ImportError("holdfast.serve.flask needs Flask: pip install 'holdfast[flask]'") from error

from holdfast.sdk.app import App
from holdfast.serve.handler import METHODS, ServeHandler
from holdfast.serve.http import MAX_BODY_BYTES, Request
from holdfast.serve.portal import close_at_exit, portal
from holdfast.serve.settings import ServeOptions, ServeSettings

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue


def serve(web: flask.Flask, app: App, **options: Unpack[ServeOptions]) -> ServeHandler:
    """Mount an app's functions at `/api/inngest` of a Flask application.

    Async functions run on a loop of holdfast's own, one for the process; plain ones in threads, in which the request's
    and the application's context are there as in a view.

    Args:
        web: The web application.
        app: The app whose functions are served; those declared later are served too.
        **options: What differs from the environment.

    Raises:
        ConfigurationError: a key or an address can't be used.
    """
    handler = ServeHandler(app, ServeSettings.of(**options), "flask")

    def view() -> ResponseReturnValue:
        request = flask.request
        request.max_content_length = MAX_BODY_BYTES
        try:
            body = request.get_data(cache=False)
        except RequestEntityTooLarge:
            return {"message": f"the body is over {MAX_BODY_BYTES} bytes"}, 413
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(request.method, request.base_url, request.args.to_dict(), headers, body)
        answer = portal.submit(handler.handle(asked)).result()
        return flask.Response(answer.body, answer.status, answer.headers)

    web.add_url_rule(
        handler.settings.path, f"holdfast {handler.settings.path}", view, methods=list(METHODS), provide_automatic_options=False
    )
    close_at_exit(handler.close)
    return handler
