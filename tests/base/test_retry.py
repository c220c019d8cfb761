"""R, P4: the retry helper, its presets, and the delays of durable functions."""

from __future__ import annotations

import asyncio
import errno
import functools
import json
import logging
import random
import socket
import socketserver
import ssl
import struct
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from typing import Any

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import (
    ConfigurationError,
    NonRetriableError,
    OverloadedError,
    RetryAfterError,
    RunFailedError,
    StepError,
    Suspended,
)
from holdfast.base.limits import MAX_WAIT_MS
from holdfast.base.retry import Backoff, RetryPolicy, RetryPresets, call_with_retry
from holdfast.base.transient import parse_retry_after, retry_reason

NOW = 1_700_000_000_000

Call = Callable[..., Any]
Get = Callable[..., str]


class FakeTime:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.ms = NOW
        self.sleeps: list[float] = []

    def now(self) -> int:
        return self.ms

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.ms += round(seconds * 1000)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Edge:
    """Jitter at one end of its range: 0 for the shortest waits, 1 for the longest."""

    def __init__(self, where: float) -> None:
        self.where = where

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.where


LONGEST = Edge(1)
SHORTEST = Edge(0)


class HttpError(Exception):
    """What a client raises for a status, reduced to the least."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__("the server refused")
        self.status = status
        self.headers = headers or {}


class Script:
    """A callable that fails as told, then returns "done"."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = deque(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.popleft()
        return "done"

    async def call_async(self) -> str:
        await asyncio.sleep(0)
        return self()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, time: FakeTime) -> Call:
    """`call_with_retry` of a script, both ways, under the fake clock."""

    def run(script: Script, policy: RetryPolicy = RetryPresets.salla_api, rng: Any = LONGEST) -> Any:
        if request.param == "sync":
            return call_with_retry(script, policy, sleep=time.sleep, now=time.now, rng=rng)
        return asyncio.run(call_with_retry(script.call_async, policy, sleep=time.sleep_async, now=time.now, rng=rng))

    return run


# -- presets and their bounds ----------------------------------------------------------------------------------------

PRESETS: dict[str, tuple[RetryPolicy, int, list[float]]] = {
    "salla_api": (RetryPresets.salla_api, 5, [1, 2, 4, 8]),
    "scraper": (RetryPresets.scraper, 3, [5, 10]),
    "ai_api": (RetryPresets.ai_api, 3, [0.5, 1]),
}
CAPS = {"salla_api": 30, "scraper": 60, "ai_api": 10}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_waits_at_most_its_delays_and_at_least_nothing(name: Any, call: Call, time: FakeTime) -> None:
    policy, attempts, longest = PRESETS[name]

    script = Script(*(HttpError(503) for _ in range(attempts + 1)))
    with pytest.raises(HttpError):
        call(script, policy, LONGEST)
    assert (script.calls, time.sleeps) == (attempts, longest)

    time.sleeps.clear()
    with pytest.raises(HttpError):
        call(Script(*(HttpError(503) for _ in range(attempts))), policy, SHORTEST)
    assert time.sleeps == [0] * (attempts - 1)


@pytest.mark.protocol("values.backoff")
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_values_of_the_table(name: Any) -> None:
    policy, attempts, longest = PRESETS[name]
    assert (policy.attempts, policy.first_delay, policy.multiplier, policy.cap) == (attempts, longest[0], 2, CAPS[name])
    assert policy.jitter == "full"
    assert policy.bounds_ms(50) == (0, CAPS[name] * 1000)


def test_the_merchant_api_is_the_default(time: FakeTime) -> None:
    script = Script(*(HttpError(500) for _ in range(9)))
    with pytest.raises(HttpError):
        call_with_retry(script, sleep=time.sleep, rng=LONGEST)
    assert (script.calls, time.sleeps) == (5, [1, 2, 4, 8])


@given(
    seed=st.integers(),
    failed=st.integers(0, 5000),
    first=st.integers(0, 10**7),
    multiplier=st.floats(1, 100),
    cap=st.none() | st.integers(0, 10**9),
)
def test_full_jitter_stays_within_its_bounds(seed: Any, failed: Any, first: Any, multiplier: Any, cap: Any) -> None:
    policy = RetryPolicy(
        first_delay=first / 1000, multiplier=multiplier, cap=None if cap is None else cap / 1000, jitter="full"
    )
    delay = policy.delay_ms(failed, random.Random(seed))
    assert isinstance(delay, int)
    assert 0 <= delay <= (MAX_WAIT_MS if cap is None else min(cap, MAX_WAIT_MS))
    if failed == 0:
        assert delay <= first


@given(seed=st.integers(), failed=st.integers(0, 30))
def test_the_default_table_adds_up_to_thirty_seconds(seed: Any, failed: Any) -> None:
    table = [15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200]
    base = table[min(failed, 9)] * 1000
    assert base <= Backoff.table().delay_ms(failed, random.Random(seed)) <= base + 30_000
    assert Backoff.table().bounds_ms(failed) == (base, base + 30_000)


def test_full_jitter_is_spread_evenly() -> None:
    rng = random.Random(7)
    delays = [RetryPresets.scraper.delay_ms(0, rng) for _ in range(10_000)]
    tenths = [sum(1 for delay in delays if i * 500 <= delay < (i + 1) * 500) for i in range(10)]
    assert min(tenths) > 850
    assert max(tenths) < 1150


def test_two_to_the_n_seconds_without_jitter() -> None:
    policy = Backoff.exponential(base=timedelta(seconds=1), factor=2, jitter="none", attempts=6)
    assert [policy.delay_ms(n) for n in range(policy.retries)] == [1000, 2000, 4000, 8000, 16000]


def test_constant_backoff() -> None:
    policy = Backoff.constant("7s")
    assert {policy.delay_ms(n) for n in range(20)} == {7000}
    assert Backoff.constant(7, jitter=3).bounds_ms(4) == (7000, 10_000)


def test_exponential_backoff_with_a_cap() -> None:
    policy = Backoff.exponential(base="500ms", factor=3, cap=timedelta(seconds=4), jitter="none")
    assert [policy.delay_ms(n) for n in range(4)] == [500, 1500, 4000, 4000]


def test_a_growing_delay_never_overflows() -> None:
    assert Backoff.exponential(factor=10, jitter="none").delay_ms(100_000) == MAX_WAIT_MS


# -- policies --------------------------------------------------------------------------------------------------------


def test_every_field_can_be_overridden() -> None:
    policy = RetryPresets.scraper.replace(
        attempts=7,
        first_delay="250ms",
        multiplier=3,
        cap=timedelta(minutes=1),
        jitter="additive",
        spread=2,
        table=[1, "1m"],
    )
    assert policy == RetryPolicy(
        attempts=7, first_delay=0.25, multiplier=3, cap=60, jitter="additive", spread=2, table=(1.0, 60.0),
        transient_only=True,
    )
    assert RetryPresets.scraper.replace(attempts=9) == RetryPolicy(attempts=9, first_delay=5, cap=60, transient_only=True)
    assert RetryPresets.scraper.attempts == 3


def test_retries_are_the_attempts_after_the_first() -> None:
    assert [p.retries for p in (RetryPresets.salla_api, RetryPresets.scraper, Backoff.table())] == [4, 2, 4]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attempts": 0}, "attempts.* 0"),
        ({"attempts": True}, "attempts.* True"),
        ({"attempts": 2.0}, "attempts.* 2.0"),
        ({"multiplier": 0.5}, "multiplier.* 0.5"),
        ({"multiplier": float("nan")}, "multiplier.* nan"),
        ({"first_delay": -1}, "-1"),
        ({"first_delay": "soon"}, "'soon'"),
        ({"cap": float("inf")}, "inf"),
        ({"jitter": "some"}, "jitter.* 'some'"),
        ({"spread": 5}, "spread needs jitter='additive'"),
        ({"table": ["x"]}, "'x'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        RetryPolicy(**changes)


@pytest.mark.parametrize(
    "policy",
    [
        *(preset for preset, _, _ in PRESETS.values()), Backoff.table(), Backoff.constant(90, jitter=10),
        Backoff.exponential(jitter="none"), Backoff.exponential("2s", 1.5, cap="1h"),
    ],
)  # fmt: skip
def test_a_description_is_json_and_reads_back(policy: Any) -> None:
    text = json.dumps(policy.describe())
    assert RetryPolicy.parse(json.loads(text), attempts=policy.attempts) == policy


def test_the_description_of_a_preset() -> None:
    assert RetryPresets.ai_api.describe() == {
        "firstDelay": "500ms", "multiplier": 2.0, "cap": "10s", "jitter": "full", "transientOnly": True,
    }  # fmt: skip


def test_an_unknown_field_of_a_description_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'firstdelay'"):
        RetryPolicy.parse({"firstdelay": "1s"})


# -- what is retried -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_these_statuses_are_retried(status: Any, call: Call, time: FakeTime) -> None:
    script = Script(HttpError(status))
    assert call(script) == "done"
    assert (script.calls, time.sleeps) == (2, [1])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 425, 501, 505, 200, 302])
def test_other_statuses_are_raised_at_once(status: Any, call: Call, time: FakeTime) -> None:
    script = Script(HttpError(status))
    with pytest.raises(HttpError):
        call(script)
    assert (script.calls, time.sleeps) == (1, [])


def test_the_last_error_is_raised(call: Call) -> None:
    errors = [HttpError(500), HttpError(502), HttpError(503)]
    with pytest.raises(HttpError) as raised:
        call(Script(*errors), RetryPresets.scraper)
    assert raised.value is errors[-1]


def test_an_error_that_is_not_retried_ends_it_after_one_that_is(call: Call) -> None:
    script = Script(HttpError(503), HttpError(404))
    with pytest.raises(HttpError) as raised:
        call(script)
    assert (raised.value.status, script.calls) == (404, 2)


def client_error(**attributes: Any) -> Exception:
    error = Exception("the server answered")
    error.__dict__.update(attributes)
    return error


class Response:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


URL = "http://shop.example/p/1"


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ("response.status_code", lambda status: client_error(response=Response(status_code=status))),
        ("response.status", lambda status: client_error(response=Response(status=status))),
        ("status", lambda status: client_error(status=status)),
        ("status as text", lambda status: client_error(status=str(status))),
        ("status_code", lambda status: client_error(status_code=status, code="rate_limited")),
        ("http_status", lambda status: client_error(http_status=status)),
        ("botocore", lambda status: client_error(response={"ResponseMetadata": {"HTTPStatusCode": status}})),
        ("code", lambda status: client_error(code=status)),
        ("urllib", lambda status: urllib.error.HTTPError(URL, status, "no", Message(), None)),
        (
            "httpx",
            lambda status: httpx.HTTPStatusError(
                "no", request=httpx.Request("GET", URL), response=httpx.Response(status)
            ),
        ),
        ("aiohttp", lambda status: aiohttp.ClientResponseError(None, (), status=status)),  # type: ignore[arg-type]
    ],
)
def test_the_status_is_found_where_clients_keep_it(shape: Any, make: Any) -> None:
    assert retry_reason(make(503)) == "HTTP 503"
    assert retry_reason(make(404)) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionResetError(), "connection reset"),
        (ConnectionAbortedError(), "connection reset"),
        (BrokenPipeError(), "connection reset"),
        (ConnectionRefusedError(), "connection refused"),
        (TimeoutError(), "timed out"),
        (asyncio.TimeoutError(), "timed out"),
        (OSError(errno.ETIMEDOUT, "x"), "timed out"),
        (ConnectionError("lost"), "connection failed"),
        (httpx.ConnectTimeout("x"), "timed out"),
        (httpx.ReadTimeout("x"), "timed out"),
        (httpx.ConnectError("x"), "connection failed"),
        (httpx.ReadError("x"), "connection failed"),
        (aiohttp.ServerTimeoutError(), "timed out"),
        (aiohttp.ServerDisconnectedError(), "connection reset"),
        (urllib.error.URLError(ConnectionRefusedError()), "connection refused"),
        (urllib.error.URLError("timed out"), "timed out"),
        (OverloadedError("full"), "overloaded"),
        (RetryAfterError("later", 1), "asked to be tried again"),
        # a type that says no, whatever the message says
        (FileNotFoundError(2, "no such file", "/pages/503"), None),
        (OSError(errno.ENETUNREACH, "timed out"), None),
        (socket.gaierror(-2, "Name or service not known"), None),
        (ssl.SSLCertVerificationError(1, "certificate verify failed: 503"), None),
        (NonRetriableError("HTTP 503"), None),
        (StepError("charge", "HTTPError", "HTTP 503"), None),
        (RunFailedError("01J", "HTTPError", "HTTP 503"), None),
        (ExceptionGroup("429 failed", [ValueError()]), None),
    ],
    ids=repr,
)
def test_the_type_decides(error: Any, reason: Any) -> None:
    assert retry_reason(error) == reason


@pytest.mark.parametrize(
    "name", ["ConnectTimeout", "ReadTimeoutError", "APITimeoutError", "TimeoutException", "Timeout"]
)
def test_a_timeout_is_known_by_its_class_name(name: Any) -> None:
    assert retry_reason(type(name, (Exception,), {})("x")) == "timed out"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("server said 503", "HTTP 503"),
        ("HTTP 429: slow down", "HTTP 429"),
        ("status=500", "HTTP 500"),
        ("(502)", "HTTP 502"),
        ("got 504.", "HTTP 504"),
        ("[Errno 104] Connection reset by peer", "connection reset"),
        ("read ECONNRESET", "connection reset"),
        ("Connection refused", "connection refused"),
        ("page.goto: net::ERR_CONNECTION_REFUSED at http://x", "connection refused"),
        ("The request timed out", "timed out"),
        ("order 1503 failed", None),
        ("5030", None),
        ("E503x", None),
        ("code_503_x", None),
        ("it took 0.503 s", None),
        ("price 500.25", None),
        ("HTTP 404", None),
        ("runtimed outside", None),
        ("", None),
    ],
)
def test_without_status_and_type_the_message_is_searched_for_whole_words(message: Any, reason: Any) -> None:
    assert retry_reason(RuntimeError(message)) == reason


def test_the_status_wins_over_the_message() -> None:
    error = client_error(status=404)
    error.args = ("503 Service Unavailable, connection reset",)
    assert retry_reason(error) is None


def test_a_message_that_can_not_be_read_is_no_reason(call: Call) -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("503")

    with pytest.raises(BrokenError):
        call(Script(BrokenError()))


def raised_from(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def raised_while_handling(error: Exception, context: BaseException) -> Exception:
    error.__context__ = context
    return error


def test_an_error_that_says_nothing_is_judged_by_what_it_was_raised_from() -> None:
    assert retry_reason(raised_from(RuntimeError("no product"), HttpError(503))) == "HTTP 503"
    assert retry_reason(raised_from(RuntimeError("product 503"), HttpError(404))) is None
    assert retry_reason(raised_from(HttpError(404), HttpError(503))) is None
    assert retry_reason(raised_from(RuntimeError("x"), NonRetriableError())) is None


def test_an_error_raised_while_handling_another_is_an_error_of_its_own() -> None:
    assert retry_reason(raised_while_handling(ValueError("no price"), HttpError(503))) is None


def test_an_unknown_host_and_a_bad_certificate_are_not_retried_inside_a_client_error() -> None:
    unknown_host = raised_from(OSError("All connection attempts failed"), socket.gaierror(-2, "unknown"))
    assert retry_reason(raised_from(httpx.ConnectError("x"), unknown_host)) is None
    assert retry_reason(raised_from(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "x"))) is None


def test_one_address_of_several_that_refused_is_enough() -> None:
    group = ExceptionGroup("x", [OSError(errno.EADDRNOTAVAIL, "x"), ConnectionRefusedError()])
    assert retry_reason(raised_from(httpx.ConnectError("x"), raised_from(OSError("x"), group))) == "connection refused"


def test_errors_that_point_at_each_other_end() -> None:
    one, two = RuntimeError("x"), RuntimeError("y")
    one.__cause__, two.__cause__ = two, one
    assert retry_reason(one) is None


# -- what is never swallowed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError("503"), KeyboardInterrupt(), Suspended(), NonRetriableError("503")]
)
def test_it_passes_at_once(error: Any, call: Call) -> None:
    script = Script(error)
    with pytest.raises(type(error)):
        call(script)
    assert script.calls == 1


def test_cancelling_during_the_wait_ends_it() -> None:
    script = Script(*(HttpError(503) for _ in range(9)))

    async def main() -> None:
        waiting = asyncio.Event()

        async def sleep(_: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(call_with_retry(script.call_async, sleep=sleep))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert script.calls == 1


# -- sync, async, and what lies between -------------------------------------------------------------------------------


def test_an_async_function_is_not_called_before_the_await() -> None:
    script = Script()

    async def main() -> str:
        pending = call_with_retry(script.call_async)
        assert script.calls == 0
        return await pending

    assert asyncio.run(main()) == "done"


def test_a_lambda_that_returns_an_awaitable_is_awaited_and_called_again(time: FakeTime) -> None:
    script = Script(HttpError(503), HttpError(502))

    async def main() -> str:
        return await call_with_retry(lambda: script.call_async(), sleep=time.sleep_async, rng=LONGEST)

    assert asyncio.run(main()) == "done"
    assert (script.calls, time.sleeps) == (3, [1, 2])


def test_partials_and_callable_objects(time: FakeTime) -> None:
    script = Script(HttpError(503))

    class Fetch:
        async def __call__(self) -> str:
            return await script.call_async()

    async def fetch(path: str) -> str:
        return path + await script.call_async()

    async def main() -> tuple[str, str]:
        first = await call_with_retry(Fetch(), sleep=time.sleep_async)
        return first, await call_with_retry(functools.partial(fetch, "/"), sleep=time.sleep_async)

    assert asyncio.run(main()) == ("done", "/done")


def test_one_attempt_means_no_retry(call: Call, time: FakeTime) -> None:
    script = Script(HttpError(503))
    with pytest.raises(HttpError):
        call(script, RetryPresets.salla_api.replace(attempts=1))
    assert (script.calls, time.sleeps) == (1, [])


# -- Retry-After -----------------------------------------------------------------------------------------------------


def test_retry_after_lengthens_the_wait(call: Call, time: FakeTime) -> None:
    call(Script(HttpError(429, {"Retry-After": "9"}), HttpError(503, {"retry-after": "1"})))
    assert time.sleeps == [9, 2]


def test_retry_after_as_a_date(call: Call, time: FakeTime) -> None:
    call(Script(HttpError(503, {"Retry-After": http_date(NOW + 12_000)})))
    assert time.sleeps == [12]


def test_retry_after_in_the_past_changes_nothing(call: Call, time: FakeTime) -> None:
    call(Script(HttpError(503, {"Retry-After": http_date(NOW - 60_000)})))
    assert time.sleeps == [1]


def test_retry_after_equal_to_the_cap_is_waited_for(call: Call, time: FakeTime) -> None:
    call(Script(HttpError(429, {"Retry-After": "30"})))
    assert time.sleeps == [30]


@pytest.mark.parametrize("asked", ["31", "30.001", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_retry_after_longer_than_the_cap_raises_the_error(asked: Any, call: Call, time: FakeTime) -> None:
    script = Script(HttpError(429, {"Retry-After": asked}))
    with pytest.raises(HttpError):
        call(script)
    assert (script.calls, time.sleeps) == (1, [])


@pytest.mark.parametrize(
    "text", ["soon", "-5", "", "nan", "inf", "1e3", "٣", "Fri, 99 Foo 2023 99:99:99 GMT", "10, 20"]
)
def test_a_retry_after_that_can_not_be_read_changes_nothing(text: Any, call: Call, time: FakeTime) -> None:
    call(Script(HttpError(503, {"Retry-After": text})))
    assert time.sleeps == [1]


def test_retry_after_of_the_response_and_of_the_cause(call: Call, time: FakeTime) -> None:
    answer = client_error(response=Response(status_code=429, headers=httpx.Headers({"Retry-After": "3"})))
    call(Script(answer, raised_from(RuntimeError("x"), HttpError(503, {"Retry-After": "20"}))))
    assert time.sleeps == [3, 20]


@pytest.mark.parametrize("asked", [4, 4.0, timedelta(seconds=4), datetime.fromtimestamp(NOW / 1000 + 4, UTC)])
def test_an_error_that_names_its_own_wait(asked: Any, call: Call, time: FakeTime) -> None:
    call(Script(RetryAfterError("later", asked)))
    assert time.sleeps == [4]


def test_without_a_cap_a_day_is_the_longest_wait(call: Call, time: FakeTime) -> None:
    policy = Backoff.constant(1)
    call(Script(HttpError(429, {"Retry-After": "86400"})), policy)
    assert time.sleeps == [86_400]
    with pytest.raises(HttpError):
        call(Script(HttpError(429, {"Retry-After": "86401"})), policy)


@given(st.text() | st.floats() | st.integers() | st.none() | st.booleans())
def test_whatever_a_server_sends_is_a_wait_or_nothing(value: Any) -> None:
    wait = parse_retry_after(value, NOW)
    assert wait is None or wait >= 0


def http_date(ms: int) -> str:
    return format_datetime(datetime.fromtimestamp(ms / 1000, UTC), usegmt=True)


# -- the log ---------------------------------------------------------------------------------------------------------


def test_each_retry_is_logged_with_attempt_reason_and_delay(time: FakeTime, caplog: pytest.LogCaptureFixture) -> None:
    def fetch_order() -> str:
        return script()

    script = Script(HttpError(503), ConnectionRefusedError())
    with caplog.at_level(logging.INFO, "holdfast.retry"):
        call_with_retry(fetch_order, sleep=time.sleep, rng=LONGEST)
    name = fetch_order.__qualname__
    assert [record.getMessage() for record in caplog.records] == [
        f"{name}: attempt 1 of 5 failed (HTTP 503), next in 1s",
        f"{name}: attempt 2 of 5 failed (connection refused), next in 2s",
    ]
    fields = [tuple(vars(record)[key] for key in ("attempt", "reason", "delay_ms")) for record in caplog.records]
    assert fields == [(1, "HTTP 503", 1000), (2, "connection refused", 2000)]


def test_an_error_that_is_raised_is_not_logged(time: FakeTime, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HttpError):
        call_with_retry(Script(HttpError(404)), sleep=time.sleep)
    assert caplog.records == []


# -- real clients on real sockets --------------------------------------------------------------------------------------


def answer(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Length: 2", "Connection: close", *headers]
    return "\r\n".join([*lines, "", "ok"]).encode()


RESET = "reset"
"""Close with RST once the request is in."""
CLOSE = "close"
"""Close with FIN where an answer is due."""
CUT = "cut"
"""RST in the middle of the body."""
HANG = "hang"
"""Never answer."""


class Shop(socketserver.ThreadingTCPServer):
    """A server on a real socket that answers each connection with the next line of its script."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script: deque[bytes | str] = deque()
        self.requests = 0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/p/1"


class Answer(socketserver.BaseRequestHandler):
    server: Shop

    def handle(self) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = self.request.recv(65536)
            if not chunk:
                return
            received += chunk
        self.server.requests += 1
        act = self.server.script.popleft() if self.server.script else answer(200)
        if isinstance(act, bytes):
            self.request.sendall(act)
        elif act == HANG:
            self.server.closing.wait()
        elif act in {RESET, CUT}:
            if act == CUT:
                self.request.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\nhalf")
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()

    def finish(self) -> None:
        self.request.close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def get_httpx(url: str, time: FakeTime, timeout: float) -> str:
    def fetch() -> str:
        return client.get(url).raise_for_status().text

    with httpx.Client(timeout=timeout, trust_env=False) as client:
        return call_with_retry(fetch, RetryPresets.scraper, sleep=time.sleep, now=time.now, rng=LONGEST)


def get_httpx_async(url: str, time: FakeTime, timeout: float) -> str:
    async def main() -> str:
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:

            async def fetch() -> str:
                return (await client.get(url)).raise_for_status().text

            return await call_with_retry(fetch, RetryPresets.scraper, sleep=time.sleep_async, now=time.now, rng=LONGEST)

    return asyncio.run(main())


def get_aiohttp(url: str, time: FakeTime, timeout: float) -> str:
    async def main() -> str:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(timeout=limit, raise_for_status=True) as session:
            # aiohttp tries a request again by itself when a kept connection was reset
            async def fetch() -> str:
                async with session.post(url) as response:
                    return await response.text()

            return await call_with_retry(fetch, RetryPresets.scraper, sleep=time.sleep_async, now=time.now, rng=LONGEST)

    return asyncio.run(main())


def get_urllib(url: str, time: FakeTime, timeout: float) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def fetch() -> str:
        try:
            with opener.open(url, timeout=timeout) as response:
                return str(response.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
            raise

    return call_with_retry(fetch, RetryPresets.scraper, sleep=time.sleep, now=time.now, rng=LONGEST)


CLIENTS = {"httpx": get_httpx, "httpx async": get_httpx_async, "aiohttp": get_aiohttp, "urllib": get_urllib}


@pytest.fixture(params=CLIENTS)
def get(request: pytest.FixtureRequest, time: FakeTime) -> Get:
    def fetch(url: str, timeout: float = 30) -> str:
        return CLIENTS[request.param](url, time, timeout)

    return fetch


def test_a_client_gets_through_failing_answers(get: Get, shop: Shop, time: FakeTime) -> None:
    shop.script.extend([answer(503), answer(429, "Retry-After: 17")])
    assert get(shop.url) == "ok"
    assert (shop.requests, time.sleeps) == (3, [5, 17])


def test_a_client_waits_until_the_date_the_server_gives(get: Get, shop: Shop, time: FakeTime) -> None:
    shop.script.append(answer(503, f"retry-after: {http_date(NOW + 40_000)}"))
    assert get(shop.url) == "ok"
    assert time.sleeps == [40]


def test_a_client_s_lasting_error_is_raised_at_once(get: Get, shop: Shop, time: FakeTime) -> None:
    shop.script.append(answer(404))
    with pytest.raises(Exception, match="404"):
        get(shop.url)
    assert (shop.requests, time.sleeps) == (1, [])


def test_a_client_is_told_to_wait_too_long(get: Get, shop: Shop, time: FakeTime) -> None:
    shop.script.append(answer(429, "Retry-After: 61"))
    with pytest.raises(Exception, match="429"):
        get(shop.url)
    assert (shop.requests, time.sleeps) == (1, [])


@pytest.mark.parametrize("how", [RESET, CLOSE, CUT])
def test_a_client_s_connection_is_lost(
    how: Any, get: Get, shop: Shop, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    shop.script.append(how)
    assert get(shop.url) == "ok"
    assert (shop.requests, time.sleeps) == (2, [5])
    assert [vars(record)["reason"] for record in caplog.records if record.name == "holdfast.retry"] == [
        "connection reset"
    ]


def test_a_client_s_connection_is_refused(get: Get, time: FakeTime, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Exception) as raised:
            get(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert retry_reason(raised.value) == "connection refused"
    assert time.sleeps == [5, 10]


def test_a_client_s_answer_does_not_come_in_time(get: Get, shop: Shop, time: FakeTime) -> None:
    shop.script.append(HANG)
    shop.script.extend([HANG, HANG])
    with pytest.raises(Exception) as raised:
        get(shop.url, timeout=0.1)
    assert retry_reason(raised.value) == "timed out"
    assert time.sleeps == [5, 10]


def test_a_client_does_not_find_the_host(get: Get, time: FakeTime) -> None:
    with pytest.raises(Exception) as raised:
        get("http://no-such-host.invalid/")
    assert retry_reason(raised.value) is None
    assert time.sleeps == []
