"""An application on the official Python SDK behind Flask or Django, as plain functions.

Usage: python framework_app.py flask|django HOLDFAST_URL; prints the port that it listens on.
"""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import inngest


def functions_of(client: inngest.Inngest) -> list[inngest.Function[Any]]:
    """Ten functions, each of another kind."""
    made: list[inngest.Function[Any]] = []

    def function(fn_id: str, **options: Any) -> Any:
        def add(handler: Any) -> Any:
            trigger = inngest.TriggerEvent(event=f"{client.app_id}/{fn_id}")
            made.append(client.create_function(fn_id=fn_id, trigger=trigger, **options)(handler))
            return made[-1]

        return add

    @function("steps")
    def steps(ctx: inngest.ContextSync) -> list[int]:
        first = ctx.step.run("double", lambda: ctx.event.data["n"] * 2)
        return [first, ctx.step.run("add", lambda: first + 1)]

    @function("sleeps")
    def sleeps(ctx: inngest.ContextSync) -> str:
        ctx.step.sleep("nap", timedelta(milliseconds=100))
        return "awake"

    @function("waits")
    def waits(ctx: inngest.ContextSync) -> Any:
        event = ctx.step.wait_for_event("reply", event=f"{client.app_id}/reply", timeout=timedelta(minutes=5))
        return None if event is None else event.data

    @function("times-out")
    def times_out(ctx: inngest.ContextSync) -> Any:
        return ctx.step.wait_for_event("reply", event="never", timeout=timedelta(seconds=1))

    @function("sends")
    def sends(ctx: inngest.ContextSync) -> int:
        return len(ctx.step.send_event("send", inngest.Event(name=f"{client.app_id}/nobody")))

    @function("invokes")
    def invokes(ctx: inngest.ContextSync) -> Any:
        return ctx.step.invoke("steps", function=steps, data={"n": 4})

    @function("parallel")
    def parallel(ctx: inngest.ContextSync) -> list[str]:
        return list(ctx.group.parallel((lambda: ctx.step.run("a", lambda: "a"), lambda: ctx.step.run("b", lambda: "b"))))

    @function("retries", retries=2)
    def retries(ctx: inngest.ContextSync) -> int:
        def body() -> int:
            if ctx.attempt < 2:
                raise ConnectionError("down")
            return ctx.attempt

        return ctx.step.run("flaky", body)

    @function("handles", retries=0)
    def handles(ctx: inngest.ContextSync) -> str:
        def body() -> None:
            raise ValueError("bad")

        try:
            ctx.step.run("bad", body)
        except inngest.StepError as error:
            return error.message
        return ""

    @function("fails", retries=0)
    def fails(ctx: inngest.ContextSync) -> None:
        raise inngest.NonRetriableError("no use")

    return made


def flask_app(client: inngest.Inngest) -> Any:
    import flask
    import inngest.flask

    app = flask.Flask("flask_app")
    inngest.flask.serve(app, client, functions_of(client))
    return app


def django_app(client: inngest.Inngest) -> Any:
    import django
    import inngest.django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application

    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for tests", DEBUG=False)
    django.setup()
    globals()["urlpatterns"] = [inngest.django.serve(client, functions_of(client))]
    return get_wsgi_application()


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    framework, url = sys.argv[1:]
    logging.disable()
    client = inngest.Inngest(app_id=framework, api_base_url=url, event_api_base_url=url, is_production=False)
    app = {"flask": flask_app, "django": django_app}[framework](client)
    server = make_server("127.0.0.1", 0, app, Server, Quiet)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
