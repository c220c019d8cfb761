"""Requests to addresses that others have named: what is never called, what needs permission, and no way round either."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from holdfast.base.errors import AddressRefusedError, ConfigurationError
from holdfast.engine.outbound import EVERYTHING, Outbound, PrivateNetworks, check_url

pytestmark = pytest.mark.anyio
NOTHING = PrivateNetworks()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Names(AbstractResolver):
    """Names that resolve as a test says; a list gives one answer after another."""

    def __init__(self, **names: Any) -> None:
        self.names = {name.replace("_", "."): found for name, found in names.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, Any]]:
        self.asked.append(host)
        found = self.names[host]
        if isinstance(found, list):
            found = found.pop(0)
        return [
            {"hostname": host, "host": one, "port": port, "family": socket.AF_INET6 if ":" in one else socket.AF_INET, "proto": 0, "flags": 0}
            for one in found.split()
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Listener:
    """A server that keeps the heads of the requests it got."""

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self.heads: list[str] = []
        self.answer = answer
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self.answer(head))
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def listening(answer: Callable[[str], bytes] | bytes = OK) -> AsyncIterator[Listener]:
    listener = Listener(answer if callable(answer) else lambda head: answer)
    server = await asyncio.start_server(listener.take, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} X\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


async def call(outbound: Outbound, url: str, *, redirects: int = 5, headers: dict[str, str] | None = None, **more: Any) -> tuple[int, bytes]:
    try:
        request = outbound.request("POST", url, data=b"x", headers=headers or {}, seconds=20, redirects=redirects, **more)
        async with request as response:
            return response.status, await response.read()
    finally:
        await outbound.close()


METADATA = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "http://100.100.100.200/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fe80::1%25eth0]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://0.0.0.0:8000/",
    "http://[::]:8000/",
    "http://2852039166/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://１６９.254.169.254/",
]


@pytest.mark.parametrize("url", METADATA)
async def test_metadata_services_are_never_called_whatever_is_allowed(url):
    allowed = PrivateNetworks(everything=True, networks=(), names=("*",))
    with pytest.raises(AddressRefusedError, match=r"is not called"):
        await call(Outbound(allowed), url)


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "::ffff:169.254.169.254", "8.8.8.8 169.254.169.254"])
async def test_nor_by_a_name_that_resolves_to_one(address):
    with pytest.raises(AddressRefusedError, match=r"metadata\.example resolves to .* never are"):
        await call(Outbound(EVERYTHING, Names(metadata_example=address)), "http://metadata.example/")


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a.example/", "gopher://a.example", "unix:///run/x.sock", "//a.example/", "", "http://", "http:///x", "javascript:alert(1)",
     "http://user:pass@a.example/", "http://user@a.example/", "https://:secret@a.example/", "http://[", "http://a.example:99999/"],
)  # fmt: skip
async def test_what_is_no_plain_address_of_http(url):
    with pytest.raises(AddressRefusedError) as refused:
        await call(Outbound(EVERYTHING), url)
    assert "pass@" not in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_private_networks_need_permission():
    async with listening() as there:
        url = f"http://127.0.0.1:{there.port}/api/inngest?token=s3cr3t"
        with pytest.raises(AddressRefusedError) as refused:
            await call(Outbound(NOTHING), url)
        said = str(refused.value)
        for part in ("127.0.0.1", "this machine", "no permission", "HOLDFAST_ALLOW_PRIVATE_NETWORKS=127.0.0.1", "/api/inngest"):
            assert part in said
        assert "s3cr3t" not in said
        assert there.heads == []
        for text in ("all", "true", "127.0.0.0/8", "127.0.0.1", f"127.0.0.1:{there.port}", "10.0.0.0/8, 127.0.0.1"):
            assert await call(Outbound(PrivateNetworks.parse(text)), url) == (200, b"ok"), text
        for text in ("", "none", "10.0.0.0/8", "::1", "127.0.0.1:1", "localhost"):
            with pytest.raises(AddressRefusedError):
                await call(Outbound(PrivateNetworks.parse(text)), url)


async def test_permission_by_name():
    async with listening() as there:
        names = Names(app_internal="127.0.0.1", other_internal="127.0.0.1", app="127.0.0.1")
        url = f"http://app.internal:{there.port}/"
        for text in ("app.internal", "*.internal", f"app.internal:{there.port}", "127.0.0.0/8", "APP.internal"):
            assert await call(Outbound(PrivateNetworks.parse(text), names), url) == (200, b"ok"), text
        for text in ("internal", "app", "app.internal:1", "other.internal"):
            with pytest.raises(AddressRefusedError, match="app.internal resolves to 127.0.0.1"):
                await call(Outbound(PrivateNetworks.parse(text), names), url)
        named = NOTHING.naming(f"http://app:{there.port}/api/inngest")
        assert await call(Outbound(named, names), f"http://app:{there.port}/other") == (200, b"ok")
        for elsewhere in ("http://app:1/", f"http://other.internal:{there.port}/"):
            with pytest.raises(AddressRefusedError):
                await call(Outbound(named, names), elsewhere)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "/etc", "*"])
def test_a_permission_that_is_none(text):
    with pytest.raises(ConfigurationError, match="HOLDFAST_ALLOW_PRIVATE_NETWORKS"):
        PrivateNetworks.parse(text)


async def test_the_address_that_was_looked_at_is_the_one_that_is_called():
    """A name that answers otherwise when asked again reaches nothing else: it is asked once for a connection."""
    async with listening() as allowed:
        names = Names(app_example=["127.0.0.1", "127.0.0.2", "169.254.169.254"])
        outbound = Outbound(PrivateNetworks.parse("127.0.0.1/32"), names)
        assert await call(outbound, f"http://app.example:{allowed.port}/") == (200, b"ok")
        assert names.asked == ["app.example"]
        for refused in ("127.0.0.2", "169.254.169.254"):
            with pytest.raises(AddressRefusedError, match=f"resolves to {refused}"):
                await call(outbound, f"http://app.example:{allowed.port}/")
        assert len(allowed.heads) == 1
        assert "Host: app.example" in allowed.heads[0], "and is addressed by its name"


@pytest.mark.parametrize("to", ["http://169.254.169.254/", "http://metadata.example/", "http://127.0.0.2/", "http://2852039166/", "file:///etc/passwd", "//u:p@app.example/"])
@pytest.mark.parametrize("same_request", [True, False])
async def test_redirects_do_not_cross(to, same_request):
    names = Names(metadata_example="169.254.169.254")
    async with listening(redirect(to, 307)) as there:
        outbound = Outbound(PrivateNetworks.parse("127.0.0.1"), names)
        with pytest.raises(AddressRefusedError):
            await call(outbound, f"http://127.0.0.1:{there.port}/", same_request=same_request)
        assert len(there.heads) == 1


async def test_redirects_that_are_followed():
    async with listening() as last, listening(lambda head: redirect("/b") if "/a " in head else redirect(f"http://127.0.0.1:{last.port}/c")) as first:
        headers = {"Authorization": "Bearer k", "X-Api-Key": "k", "Content-Type": "text/plain"}
        assert await call(Outbound(), f"http://127.0.0.1:{first.port}/a", headers=headers) == (200, b"ok")
        assert [head.partition(" HTTP")[0] for head in first.heads] == ["POST /a", "GET /b"]
        assert all("X-Api-Key: k" in head for head in first.heads)
        assert "k" not in [line.partition(": ")[2] for line in last.heads[0].splitlines()], "keys don't go to another origin"
        assert "Bearer" not in last.heads[0]
        status, _ = await call(Outbound(), f"http://127.0.0.1:{first.port}/a", redirects=1)
        assert status == 302


async def test_cookies_of_one_application_are_not_sent_again():
    async with listening(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n", 1)) as there:
        outbound = Outbound(EVERYTHING, Names(app_example="127.0.0.1"))
        for _ in range(2):
            async with outbound.request("GET", f"http://app.example:{there.port}/", data=None, headers={}, seconds=20, redirects=0) as response:
                await response.read()
        await outbound.close()
        assert not any("Cookie" in head for head in there.heads)


async def test_no_proxy_of_the_environment_is_used(monkeypatch):
    async with listening() as proxy, listening() as there:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await call(Outbound(), f"http://127.0.0.1:{there.port}/") == (200, b"ok")
        assert proxy.heads == []


async def test_an_answer_that_trickles_is_given_up(monkeypatch):
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        outbound = Outbound()
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            async with outbound.request("GET", f"http://127.0.0.1:{port}/", data=None, headers={}, seconds=0.3, redirects=0) as response:
                await response.read()
        await outbound.close()


@pytest.mark.parametrize("url", ["https://app.example/api/inngest?fnId=a", "http://8.8.8.8:3000/x", "http://[2606:4700::1111]/"])
def test_what_is_called_without_asking(url):
    assert str(check_url(url, NOTHING)) == url
