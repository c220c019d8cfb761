"""Clients that misbehave below HTTP: slow, truncated, lying about lengths, and gone. Nothing of them is kept."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from server_kit import Running, Start

from holdfast.server import connections

pytestmark = pytest.mark.anyio

EVENT = b'{"name":"shop/thing"}'


def post(headers: bytes = b"", path: bytes = b"/e/k", length: int | None = None) -> bytes:
    counted = b"" if length is None else b"Content-Length: %d\r\n" % length
    return (
        b"POST "
        + path
        + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + counted
        + headers
        + b"\r\n"
    )


class Line:
    """A connection by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def to(cls, server: Running) -> AsyncIterator[Line]:
        line = cls(*await asyncio.open_connection("127.0.0.1", server.port))
        try:
            yield line
        finally:
            await line.close()

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        async with asyncio.timeout(60):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def closed(self) -> bool:
        """Whether the server closes the connection."""
        async with asyncio.timeout(60):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def ended(self) -> bool:
        """Whether the server closes the connection, after whatever it says."""
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                await self.reader.read()
        return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # the server closed it first, with what we sent unread


async def nothing_is_kept(server: Running) -> None:
    """The server goes on, holds no bytes and stored nothing."""
    async with Line.to(server) as line:
        await line.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, text = await line.answer()
    assert status == 200
    assert b"holdfast_http_body_bytes 0.0" in text
    assert (await server.engine.reader.events(limit=10))[0] == []


async def test_a_body_that_never_arrives_is_given_up(start: Start):
    async with start(body_timeout=0.3) as server:
        for headers, begin in (
            (post(length=100), b'[{"name":"a"}'),
            (post(b"Transfer-Encoding: chunked\r\n"), b"d\r\n" + b'[{"name":"a"}\r\n'),
        ):
            async with Line.to(server) as line:
                await line.send(headers, begin)
                status, body = await line.answer()
                assert status == 408
                assert b"did not arrive within 0.3 seconds" in body
                assert await line.closed()
        await nothing_is_kept(server)


async def test_a_slow_but_steady_body_is_read(start: Start):
    async with start() as server:
        async with Line.to(server) as line:
            await line.send(post(length=len(EVENT)), *[EVENT[n : n + 1] for n in range(len(EVENT))])
            assert (await line.answer())[0] == 200


async def test_a_body_dripped_past_the_time_is_given_up(start: Start):
    async with start(body_timeout=0.3) as server:
        async with Line.to(server) as line:
            await line.send(post(length=10_000))

            async def drip():
                while not line.writer.is_closing():
                    await line.send(b" ")
                    await asyncio.sleep(0.01)

            dripping = asyncio.create_task(drip())
            status, _ = await line.answer()
            dripping.cancel()
            assert status == 408
            await asyncio.wait({dripping})
        await nothing_is_kept(server)


async def test_a_truncated_body_is_not_an_event(start: Start):
    async with start() as server:
        for body, length in ((EVENT, len(EVENT) + 1), (b'[{"name":"a"},{"name":"b"}]', 500)):
            async with Line.to(server) as line:
                await line.send(post(length=length), body)
                line.writer.write_eof()
                assert await line.closed()
        await nothing_is_kept(server)


async def test_a_length_that_is_too_short_cuts_the_body(start: Start):
    async with start() as server:
        async with Line.to(server) as line:
            await line.send(post(length=10), EVENT)
            # what follows the ten bytes is no request; uvicorn may say so before the event API says what is wrong with them
            async with asyncio.timeout(60):
                assert (await line.reader.read(12)) == b"HTTP/1.1 400"
        await nothing_is_kept(server)


async def test_a_length_that_is_no_number_is_refused(start: Start):
    async with start() as server:
        for length in [b"-1", b"abc", b"1e3", b"99999999999999999999999999", b"5, 6", b""]:
            async with Line.to(server) as line:
                await line.send(post(b"Content-Length: " + length + b"\r\n"), EVENT)
                async with asyncio.timeout(60):
                    answer = await line.reader.read(12)
                assert answer == b"HTTP/1.1 400" or (length == b"" and answer)
            await nothing_is_kept(server)


async def test_a_length_past_the_cap_is_answered_before_the_body(start: Start):
    async with start(max_request_bytes=1000) as server:
        async with Line.to(server) as line:
            await line.send(post(length=10**12), b"[")
            status, body = await line.answer()
            assert status == 413
            assert b"larger than 1000 bytes" in body
            assert await line.closed()
        await nothing_is_kept(server)


async def test_chunks_past_the_cap_are_refused_though_no_length_said_so(start: Start):
    async with start(max_request_bytes=1000) as server:
        async with Line.to(server) as line:
            await line.send(
                post(b"Transfer-Encoding: chunked\r\n"), *[b"64\r\n" + b" " * 100 + b"\r\n"] * 11, b"0\r\n\r\n"
            )
            assert (await line.answer())[0] == 413
        await nothing_is_kept(server)


async def test_length_and_chunks_at_once_are_refused(start: Start):
    async with start() as server:
        async with Line.to(server) as line:
            await line.send(post(b"Transfer-Encoding: chunked\r\n", length=5), b"0\r\n\r\n")
            async with asyncio.timeout(60):
                assert (await line.reader.read(12)) == b"HTTP/1.1 400"
        await nothing_is_kept(server)


async def test_a_client_that_goes_while_it_waits_does_not_lose_its_event(start: Start):
    async with start() as server:
        async with Line.to(server) as line:
            await line.send(post(length=len(EVENT)) + EVENT)
            line.writer.transport.abort()
            found = []
            async with asyncio.timeout(60):
                with server.engine.notices.subscribe() as notices:
                    while not found:
                        found, _ = await server.engine.reader.events(limit=10)
                        if not found:
                            await anext(notices)
            assert [event.name for event in found] == ["shop/thing"]


async def test_requests_follow_each_other_on_one_connection(start: Start):
    async with start() as server:
        async with Line.to(server) as line:
            await line.send((post(length=len(EVENT)) + EVENT) * 20)
            assert {(await line.answer())[0] for _ in range(20)} == {200}
        assert len((await server.engine.reader.events(limit=50))[0]) == 20


@pytest.mark.parametrize("path", [b"/login", b"/events/send", b"/invoke/shop-fulfil", b"/v1/runs/x/rerun"])
async def test_bodies_of_every_other_route_are_bounded_too(start: Start, path):
    async with start(max_control_bytes=20_000, body_timeout=0.3) as server:
        async with Line.to(server) as line:
            await line.send(post(path=path, length=20_001), b"x")
            assert (await line.answer())[0] == 413
        if path != b"/v1/runs/x/rerun":  # it reads no body
            async with Line.to(server) as line:
                await line.send(
                    post(b"Transfer-Encoding: chunked\r\n", path),
                    *[b"3e8\r\n" + b" " * 1000 + b"\r\n"] * 25,
                    b"0\r\n\r\n",
                )
                assert (await line.answer())[0] == 413
            async with Line.to(server) as line:
                await line.send(post(path=path, length=100), b"x")
                assert (await line.answer())[0] == 408
        await nothing_is_kept(server)


async def test_what_is_not_http_is_refused(start: Start):
    async with start() as server:
        async with Line.to(server) as line:
            await line.send(b"\x16\x03\x01\x02\x00 this looks like TLS\r\n\r\n")
            async with asyncio.timeout(60):
                assert (await line.reader.read(12)) == b"HTTP/1.1 400"
        await nothing_is_kept(server)


async def test_websockets_are_refused(start: Start):
    async with start() as server:
        async with Line.to(server) as line:
            await line.send(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            async with asyncio.timeout(60):
                answer = await line.reader.readline()
            assert b"101" not in answer


class TestHeads:
    async def test_a_head_that_never_ends_is_given_up(self, start: Start, monkeypatch):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
        async with start() as server:
            for begin in (b"", b"POST /e/k HT", b"POST /e/k HTTP/1.1\r\nHost: localhost\r\nX: y"):
                async with Line.to(server) as line:
                    await line.send(begin)
                    assert await line.closed()
            await nothing_is_kept(server)

    async def test_the_next_head_on_a_connection_as_well(self, start: Start, monkeypatch):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
        async with start() as server:
            async with Line.to(server) as line:
                await line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await line.answer())[0] == 200
                await line.send(b"GET /health HTTP/1.1\r\nHost:")
                assert await line.closed()

    async def test_a_long_answer_is_not_a_late_head(self, start: Start, monkeypatch):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
        async with start() as server:
            async with Line.to(server) as line:
                await line.send(post(length=len(EVENT)))
                await asyncio.sleep(0.5)
                await line.send(EVENT)
                assert (await line.answer())[0] == 200

    @pytest.mark.parametrize(
        "begin",
        [
            b"GET /" + b"x" * 30_000,
            b"GET / HTTP/1.1\r\nX: " + b"y" * 30_000,
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
        ],
        ids=["address", "one header", "many headers"],
    )
    async def test_a_head_that_is_too_large_is_refused(self, start: Start, begin):
        async with start() as server:
            async with Line.to(server) as line:
                with contextlib.suppress(ConnectionError):
                    await line.send(begin, *[begin[-6:] * 5000] * 10)
                async with asyncio.timeout(60):
                    with contextlib.suppress(ConnectionError):
                        answer = await line.reader.read()
                        assert not answer or b" 431 " in answer.partition(b"\r\n")[0]
            await nothing_is_kept(server)

    async def test_trailers_are_bounded(self, start: Start):
        async with start() as server:
            async with Line.to(server) as line:
                await line.send(post(b"Transfer-Encoding: chunked\r\n"), b"1\r\n[\r\n0\r\n")
                with contextlib.suppress(ConnectionError):
                    await line.send(*[b"a: " + b"b" * 10_000 + b"\r\n"] * 20)
                assert await line.ended()
            await nothing_is_kept(server)

    async def test_a_large_but_bounded_head_is_fine(self, start: Start):
        async with start() as server:
            async with Line.to(server) as line:
                await line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 30_000 + b"\r\n\r\n")
                assert (await line.answer())[0] == 200
