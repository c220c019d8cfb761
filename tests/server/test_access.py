"""P5: who may come in: every route of the router, keys, logins, sites of others, and secrets that must not show."""

from __future__ import annotations

import logging
import re
from hashlib import sha256

import httpx
import pytest
from server_kit import (
    EVENT_KEY,
    FALLBACK_KEY,
    OTHER_EVENT_KEY,
    PASSWORD,
    PRODUCTION,
    SIGNING_KEY,
    Running,
    Start,
    bearer,
    every_route,
)

from holdfast.server.sessions import COOKIE

pytestmark = pytest.mark.anyio

PUBLIC = {("GET", "/health"), ("GET", "/login"), ("POST", "/login"), ("GET", "/login.css")}
"""Everything that answers without credentials in production. The event API is not here: it wants its own key."""
HTML = {"accept": "text/html,application/xhtml+xml"}


def some_path(path: str) -> str:
    return re.sub(r"\{\w+\}", "01ARZ3NDEKTSV4RRFFQ69G5FAV", path)


async def log_in(server: Running, credential: str = SIGNING_KEY, **fields: str) -> httpx.Response:
    return await server.http.post("/login", data={"credential": credential, **fields})


async def token(server: Running) -> str:
    """The CSRF token that the server puts into its forms."""
    page = (await server.http.get("/logout")).text
    return re.search(r'name="csrf_token" value="([^"]+)"', page)[1]


class TestEveryRoute:
    @pytest.mark.protocol("auth.closed")
    async def test_without_credentials(self, start: Start):
        async with start(**PRODUCTION) as server:
            routes = [(method, some_path(path)) for method, path in every_route(server.serving.app.routes)]
            assert len(routes) > 40
            for method, path in routes:
                response = await server.http.request(method, path)
                page = await server.http.request(method, path, headers=HTML)
                if (method, path) in PUBLIC:
                    assert response.status_code < 500, (method, path)
                    assert "Authentication failed" not in response.text, (method, path)
                elif path.endswith("/output"):
                    assert (response.status_code, response.json()["code"]) == (401, "token_refused"), (method, path)
                elif path.startswith("/e/"):
                    assert (
                        response.status_code in {401, 204}
                        if method == "OPTIONS"
                        else response.status_code in {401, 405}
                    ), (method, path)
                else:
                    assert (response.status_code, response.text) == (401, "Authentication failed"), (method, path)
                    if method == "GET":
                        assert page.status_code == 303, (method, path)
                        assert page.headers["location"].startswith("/login"), (method, path)
                    else:
                        assert page.status_code == 401, (method, path)

    @pytest.mark.protocol("auth.closed")
    async def test_paths_that_are_no_route_are_closed_as_well(self, start: Start):
        async with start(**PRODUCTION) as server:
            for path in (
                "/nothing",
                "/v1",
                "/health/",
                "/login/",
                "/login.css/x",
                "/healthx",
                "/e",
                "//health",
                "/e%2f../v1/runs",
                "/static/../v1/runs",
                "/E/x",
            ):
                response = await server.http.get(path)
                assert response.status_code == 401, path

    async def test_the_event_api_is_no_way_round(self, start: Start):
        async with start(**PRODUCTION) as server:
            for path in ["/e/../v1/runs", "/e/x/../../v1/runs", "/e//v1/runs", "/e/%2e%2e/v1/runs", "/e/x/v1/runs"]:
                request = httpx.Request("GET", server.http.base_url.join("/"))
                request.url = request.url.copy_with(raw_path=path.encode())
                response = await server.http.send(request)
                assert response.status_code in {401, 404, 405}
                assert "data" not in response.text or '"data":null' in response.text


class TestSigningKeys:
    @pytest.mark.protocol("auth.key")
    @pytest.mark.parametrize("key", [SIGNING_KEY, FALLBACK_KEY], ids=["current", "fallback"])
    async def test_every_form_is_accepted(self, start: Start, key):
        plain = key.rpartition("-")[2]
        hashed = sha256(bytes.fromhex(plain)).hexdigest()
        async with start(**PRODUCTION) as server:
            for form in (key, plain, hashed, f"signkey-test-{hashed}", f"signkey-prod-{plain}"):
                for path in ("/v1/runs", "/metrics", "/openapi.json", "/runs"):
                    assert (await server.http.get(path, headers=bearer(form))).status_code == 200, (path, form[:20])
            assert (
                await server.http.get("/v1/runs", headers={"authorization": f"bearer   {plain}"})
            ).status_code == 200

    @pytest.mark.protocol("auth.key")
    async def test_nothing_else_is(self, start: Start):
        async with start(**PRODUCTION) as server:
            for authorization in [
                "",
                "Bearer",
                "Bearer x",
                f"Bearer {SIGNING_KEY[:-1]}",
                f"Basic {SIGNING_KEY}",
                SIGNING_KEY,
                f"Bearer {EVENT_KEY}",
                "Bearer signkey-test-",
                "Bearer \xff",
            ]:
                response = await server.http.get(
                    "/v1/runs", headers=[(b"authorization", authorization.encode("latin-1"))]
                )
                assert (response.status_code, response.text, response.headers["content-type"]) == (
                    401,
                    "Authentication failed",
                    "text/plain; charset=utf-8",
                )


class TestLogin:
    async def test_the_signing_key_logs_in(self, start: Start):
        async with start(**PRODUCTION) as server:
            away = await server.http.get("/runs?status=failed", headers=HTML)
            assert away.headers["location"] == "/login?next=/runs%3Fstatus%3Dfailed"
            form = await server.http.get(away.headers["location"])
            assert 'name="next" value="/runs?status=failed"' in form.text
            assert "signing key" in form.text
            entered = await log_in(server, next="/runs?status=failed")
            assert (entered.status_code, entered.headers["location"]) == (303, "/runs?status=failed")
            cookie = entered.headers["set-cookie"]
            for part in (f"{COOKIE}=", "HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"):
                assert part in cookie
            assert SIGNING_KEY.rpartition("-")[2] not in cookie
            for path in ("/", "/runs", "/v1/runs", "/docs"):
                assert (await server.http.get(path)).status_code == 200
            assert (await server.http.get("/login")).status_code == 303

    async def test_a_password_takes_the_place_of_the_key(self, start: Start):
        async with start(**PRODUCTION, dashboard_password=PASSWORD) as server:
            assert "password" in (await server.http.get("/login")).text
            assert (await log_in(server, SIGNING_KEY)).status_code == 401
            assert (await log_in(server, PASSWORD)).status_code == 303
            assert (await server.http.get("/runs")).status_code == 200

    async def test_a_password_opens_no_api_by_itself(self, start: Start):
        async with start(**PRODUCTION, dashboard_password="ascii-password") as server:
            assert (await server.http.get("/v1/runs", headers=bearer("ascii-password"))).status_code == 401

    async def test_a_development_server_with_a_password_asks_for_it(self, start: Start):
        async with start(dashboard_password=PASSWORD) as server:
            assert (await server.http.get("/v1/runs")).status_code == 401
            assert (await server.http.post("/e/any", json={"name": "a"})).status_code == 200
            assert (await log_in(server, PASSWORD)).status_code == 303
            assert (await server.http.get("/dev")).status_code == 200

    async def test_wrong_tries_are_slowed(self, start: Start):
        async with start(**PRODUCTION) as server:
            for _ in range(10):
                wrong = await log_in(server, "wrong")
                assert wrong.status_code == 401
                assert "set-cookie" not in wrong.headers
            braked = await log_in(server)
            assert (braked.status_code, int(braked.headers["retry-after"])) == (429, pytest.approx(60, abs=5))
            server.clock.offset = 61_000
            assert (await log_in(server)).status_code == 303

    async def test_a_session_ends_by_itself(self, start: Start):
        async with start(**PRODUCTION, session_hours=1) as server:
            await log_in(server)
            server.clock.offset = 3_590_000
            assert (await server.http.get("/v1/runs")).status_code == 200
            server.clock.offset = 3_610_000
            assert (await server.http.get("/v1/runs")).status_code == 401

    async def test_logging_out_ends_it_even_for_a_copy_of_the_cookie(self, start: Start):
        async with start(**PRODUCTION) as server:
            await log_in(server)
            copy = server.http.cookies[COOKIE]
            left = await server.http.post("/logout", data={"csrf_token": await token(server)})
            assert (left.status_code, left.headers["location"]) == (303, "/login")
            assert COOKIE not in server.http.cookies
            assert (await server.http.get("/v1/runs", headers={"cookie": f"{COOKIE}={copy}"})).status_code == 401

    async def test_pages_show_the_way_out_to_whom_it_concerns(self, start: Start):
        async with start(**PRODUCTION, prefix="/jobs") as server:
            await log_in(server)
            assert 'href="/jobs/logout"' in (await server.http.get("/runs")).text
        async with start() as server:
            assert "/logout" not in (await server.http.get("/runs")).text

    async def test_a_link_logs_nobody_out(self, start: Start):
        async with start(**PRODUCTION) as server:
            await log_in(server)
            await server.http.get("/logout")
            assert (await server.http.post("/logout")).status_code == 403
            assert (await server.http.get("/v1/runs")).status_code == 200

    async def test_another_login_goes_nowhere_else(self, start: Start):
        async with start(**PRODUCTION) as server:
            assert (await log_in(server, next="//evil.example/x")).headers["location"] == "/"
            assert (await log_in(server, next="https://evil.example")).headers["location"] == "/"

    async def test_logins_are_in_the_audit_log(self, start: Start):
        async with start(**PRODUCTION) as server:
            await log_in(server, "wrong")
            await log_in(server)
            await server.http.post("/logout", data={"csrf_token": await token(server)})
            entries = await server.engine.reader.audit()
            assert [(entry.action, entry.target) for entry in entries] == [
                ("logout", "127.0.0.1"),
                ("login", "127.0.0.1"),
            ]
            assert len({entry.actor for entry in entries}) == 1

    async def test_a_restart_with_the_same_key_keeps_sessions(self, start: Start):
        async with start(**PRODUCTION) as server:
            await log_in(server)
            cookie = server.http.cookies[COOKIE]
        async with start(**{**PRODUCTION, "signing_key": FALLBACK_KEY, "signing_key_fallback": SIGNING_KEY}) as server:
            assert (await server.http.get("/v1/runs", headers={"cookie": f"{COOKIE}={cookie}"})).status_code == 200
        async with start(**{**PRODUCTION, "signing_key": FALLBACK_KEY, "signing_key_fallback": None}) as server:
            assert (await server.http.get("/v1/runs", headers={"cookie": f"{COOKIE}={cookie}"})).status_code == 401

    async def test_over_https_the_cookie_is_secure(self, start: Start):
        async with start(**PRODUCTION) as server:
            response = await server.http.post(
                "/login", data={"credential": SIGNING_KEY}, headers={"x-forwarded-proto": "https"}
            )
            assert "Secure" in response.headers["set-cookie"]


class TestForgery:
    async def test_a_change_with_a_session_carries_its_token(self, start: Start):
        async with start(**PRODUCTION) as server:
            await log_in(server)
            event = {"name": "shop/order.shipped", "data": {"order_id": "o1"}}
            event_id = (await server.http.post(f"/e/{EVENT_KEY}", json=event)).json()["ids"][0]
            run_id = await server.run_of(event_id)
            good = await token(server)
            for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": good[:-1]}):
                response = await server.http.delete(f"/v1/runs/{run_id}", headers=headers)
                assert (response.status_code, response.json()["code"]) == (403, "forbidden")
            assert (await server.engine.reader.run_view(run_id)).status != "CANCELLED"
            assert (await server.http.delete(f"/v1/runs/{run_id}", headers={"x-csrf-token": good})).status_code == 200

    async def test_a_token_is_of_one_session(self, start: Start):
        async with start(**PRODUCTION) as server:
            await log_in(server)
            first = await token(server)
            server.http.cookies.clear()
            await log_in(server)
            assert await token(server) != first
            assert (await server.http.post("/logout", data={"csrf_token": first})).status_code == 403

    @pytest.mark.parametrize(
        "path", ["/events/send", "/dead-letters/redrive", "/crons/run", "/functions/shop-fulfil/invoke"]
    )
    async def test_forms_of_the_dashboard_want_it(self, start: Start, path):
        for settings in (PRODUCTION, {}):
            async with start(**settings) as server:
                if settings:
                    await log_in(server)
                for fields in ({"name": "a", "data": "{}"}, {"name": "a", "data": "{}", "csrf_token": "forged"}):
                    assert (await server.http.post(path, data=fields)).status_code == 403
                assert (await server.engine.reader.events(limit=5, internal=False))[0] == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://localhost:1"},
            {"origin": "http://127.0.0.1"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ],
    )
    async def test_pages_of_other_sites_change_nothing_in_development(self, start: Start, headers):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            for method, path in (
                ("DELETE", f"/v1/runs/{run_id}"),
                ("POST", f"/v1/runs/{run_id}/rerun"),
                ("POST", "/invoke/shop-fulfil"),
                ("POST", "/events/send"),
            ):
                response = await server.http.request(method, path, headers=headers)
                assert (response.status_code, response.json()["code"]) == (403, "origin_refused"), path
            assert (await server.engine.reader.run_view(run_id)).status != "CANCELLED"

    @pytest.mark.slow
    async def test_every_route_that_changes_something_wants_the_token_and_no_other_site(self, start: Start):
        for settings in (PRODUCTION, {}):
            async with start(**settings, test_mode=True) as server:
                if settings:
                    await log_in(server)
                routes = [one for one in every_route(server.serving.app.routes) if one[0] not in {"GET", "OPTIONS"}]
                assert len(routes) > 45
                for method, path in routes:
                    if path in {"/e/{key}", "/login"}:  # a key of its own, and what makes the session
                        continue
                    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
                    refused = await server.http.request(method, some_path(path), headers=foreign)
                    assert (refused.status_code, refused.json()["code"]) == (403, "origin_refused"), (method, path)
                    assert "access-control-allow-origin" not in refused.headers
                    if settings:
                        for headers in ({}, {"x-csrf-token": "forged"}):
                            refused = await server.http.request(method, some_path(path), headers=headers)
                            assert refused.status_code == 403, (method, path, refused.text)

    async def test_its_own_pages_do(self, start: Start):
        async with start() as server:
            run_id = await server.run_of(await server.send("shop/order.shipped", order_id="o1"))
            origin = {"origin": f"http://127.0.0.1:{server.port}", "sec-fetch-site": "same-origin"}
            assert (await server.http.delete(f"/v1/runs/{run_id}", headers=origin)).status_code == 200


class TestHosts:
    async def test_names_that_nobody_else_can_claim(self, start: Start):
        async with start() as server:
            for host in [
                "localhost",
                "LOCALHOST:8288",
                "127.0.0.1",
                "[::1]:8288",
                "shop.localhost:1",
                "host.docker.internal:8288",
                "192.168.1.7",
            ]:
                for path in ("/", "/v1/runs", "/health"):
                    assert (await server.http.get(path, headers={"host": host})).status_code == 200

    async def test_a_rebound_name_reaches_nothing(self, start: Start):
        async with start() as server:
            for host in [
                "evil.example",
                "localhost.evil.example",
                "evil.example:8288",
                "127.0.0.1.evil.example",
                "",
                "[evil",
                "localhost@evil.example",
            ]:
                for method, path in (
                    ("GET", "/"),
                    ("GET", "/v1/runs"),
                    ("GET", "/health"),
                    ("POST", "/e/k"),
                    ("GET", "/static/x"),
                ):
                    response = await server.http.request(method, path, headers={"host": host})
                    assert (response.status_code, response.json()["code"]) == (403, "host_refused")
                    assert "HOLDFAST_ALLOWED_HOSTS" in response.json()["error"]

    async def test_further_names_can_be_allowed(self, start: Start):
        async with start(allowed_hosts=("holdfast.test",)) as server:
            assert (await server.http.get("/", headers={"host": "holdfast.test:8288"})).status_code == 200

    async def test_in_production_they_are_the_only_ones_once_given(self, start: Start):
        async with start(bearer(), **PRODUCTION) as server:
            assert (await server.http.get("/v1/runs", headers={"host": "any.example"})).status_code == 200
        async with start(bearer(), **PRODUCTION, allowed_hosts=("jobs.example",)) as server:
            assert (await server.http.get("/v1/runs", headers={"host": "jobs.example"})).status_code == 200
            assert (await server.http.get("/v1/runs", headers={"host": "any.example"})).status_code == 403


class TestHeaders:
    async def test_every_answer_is_hardened(self, start: Start):
        async with start(**PRODUCTION) as server:
            for path in ("/login", "/health", "/v1/runs", "/nothing", "/login.css"):
                headers = (await server.http.get(path)).headers
                policy = headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert "*" not in policy
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] == "same-origin"
                assert "server" not in headers
                assert headers["cache-control"] == ("public, max-age=3600" if path == "/login.css" else "no-store")


class TestSecrets:
    SECRETS = (
        EVENT_KEY,
        OTHER_EVENT_KEY,
        SIGNING_KEY,
        SIGNING_KEY.rpartition("-")[2],
        FALLBACK_KEY.rpartition("-")[2],
        PASSWORD,
    )

    async def test_they_show_nowhere(self, start: Start, caplog: pytest.LogCaptureFixture):
        for name in ("holdfast", "uvicorn", "asyncio"):
            caplog.set_level(logging.DEBUG, logger=name)
        seen: list[str] = []

        async with start(**PRODUCTION, dashboard_password=PASSWORD) as server:

            async def note(method: str, path: str, **kwargs) -> None:
                response = await server.http.request(method, path, **kwargs)
                seen.append(response.text)
                seen.append(str(response.headers))

            for key in (EVENT_KEY, "wrong"):
                for body in (b'{"name":"a"}', b"nonsense", b"[1]"):
                    await note("POST", f"/e/{key}", content=body)
                await note("GET", f"/e/{key}")
                await note("POST", f"/e/{key}/more")
            await log_in(server, PASSWORD)

            async def crash():
                raise RuntimeError("on purpose")

            server.engine.reader.functions = crash  # its stack is logged
            for path in (
                "/",
                "/v1/functions",
                "/v1/runs",
                "/metrics",
                "/docs",
                "/openapi.json",
                "/dev",
                "/health",
                "/audit",
                f"/nothing/{EVENT_KEY}",
                f"/e/{EVENT_KEY}/more",
            ):
                await note("GET", path)
                await note("GET", path, headers=bearer())
                await note("GET", path, headers=bearer("wrong" + "0" * 60))
            seen.append(repr(server.serving.app.state.__dict__))
            seen.extend(f"{entry}" for entry in await server.engine.reader.audit())
        # the client's own log has the addresses it asked for
        seen.extend(
            record.getMessage() + str(record.exc_text or "")
            for record in caplog.records
            if not record.name.startswith(("httpx", "httpcore"))
        )
        assert "GET /v1/functions failed" in "".join(seen)
        for secret in self.SECRETS:
            assert secret not in "".join(seen)

    async def test_they_are_not_kept_in_memory_where_requests_are_checked(self, start: Start):
        async with start(**PRODUCTION, dashboard_password=PASSWORD) as server:
            (gate,) = [item for item in server.serving.app.user_middleware]
            access = gate.kwargs["access"]
            kept = b"".join([*access.event_keys._digests, *access.signing_keys._digests, *access._password._digests])
            for secret in self.SECRETS:
                assert secret.encode() not in kept
