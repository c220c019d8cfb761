"""The headers that protect the applications' pages."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from examples.common.hardening import Hardening

pytestmark = pytest.mark.anyio

POLICY = "default-src 'self'"


@pytest.fixture
async def client():
    api = FastAPI()
    api.add_middleware(Hardening, policy=POLICY)

    @api.get("/page")
    async def page() -> PlainTextResponse:
        return PlainTextResponse("page")

    @api.get("/framed")
    async def framed() -> PlainTextResponse:
        return PlainTextResponse("framed", headers={"Content-Security-Policy": "default-src *"})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as made:
        yield made


@pytest.mark.parametrize("path", ["/page", "/nowhere"])
async def test_all_answers_carry_them(client, path):
    headers = (await client.get(path)).headers
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


async def test_an_answer_that_has_its_own_keeps_it(client):
    headers = (await client.get("/framed")).headers
    assert headers.get_list("Content-Security-Policy") == ["default-src *"]
    assert headers["X-Content-Type-Options"] == "nosniff"


async def test_pages_of_fastapi_load_what_they_need(client):
    answer = await client.get("/docs")
    assert answer.status_code == 200
    assert "Content-Security-Policy" not in answer.headers
