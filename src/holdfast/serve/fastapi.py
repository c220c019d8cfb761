"""The serve route in a FastAPI application: `serve(web, app)`."""

from __future__ import annotations

from typing import Unpack

from starlette.applications import Starlette

from holdfast.sdk.app import App
from holdfast.serve.handler import ServeHandler
from holdfast.serve.live import public_status, stream_run
from holdfast.serve.settings import ServeOptions
from holdfast.serve.starlette import mount

__all__ = ["public_status", "serve", "stream_run"]


def serve(web: Starlette, app: App, **options: Unpack[ServeOptions]) -> ServeHandler:
    """Mount an app's functions at `/api/inngest` of a FastAPI application; see `holdfast.serve.starlette.serve`."""
    return mount(web, app, "fastapi", options)
