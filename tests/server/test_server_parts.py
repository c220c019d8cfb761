"""Settings, keys, sessions and the brake on guessing, by themselves."""

from __future__ import annotations

from hashlib import sha256

import pytest
from server_kit import EVENT_KEY, FALLBACK_KEY, PASSWORD, PRODUCTION, SIGNING_KEY

from holdfast.base.errors import ConfigurationError
from holdfast.server.keys import KeyRing, check_signing_key, derived_secret, fingerprint
from holdfast.server.pages import safe_target
from holdfast.server.sessions import LoginBrake, Sessions
from holdfast.server.settings import ServerSettings, is_loopback


class TestSettings:
    def test_development_on_this_machine_needs_nothing(self):
        settings = ServerSettings()
        assert (settings.open, settings.kind, settings.checks_event_keys) == (True, "dev", False)

    def test_keys_of_an_application_do_not_close_a_development_server(self):
        settings = ServerSettings(event_keys=("k",), signing_key="not a key at all")
        assert settings.open
        assert not settings.checks_event_keys

    @pytest.mark.parametrize("missing", ["event_keys", "signing_key"])
    def test_production_needs_both_keys(self, missing):
        given = {name: value for name, value in PRODUCTION.items() if name != missing}
        variable = {"event_keys": "INNGEST_EVENT_KEY", "signing_key": "INNGEST_SIGNING_KEY"}[missing]
        with pytest.raises(
            ConfigurationError, match=f"production needs {variable}; make keys with `holdfast keys new`"
        ):
            ServerSettings(**given)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
    def test_development_for_other_machines_needs_a_login(self, host):
        with pytest.raises(ConfigurationError, match="HOLDFAST_DASHBOARD_PASSWORD"):
            ServerSettings(host=host)
        settings = ServerSettings(host=host, dashboard_password=PASSWORD)
        assert not settings.open

    def test_a_password_closes_a_development_server(self):
        assert not ServerSettings(dashboard_password=PASSWORD).open

    @pytest.mark.parametrize("key", ["", "short", "signkey-prod-abc", "signkey-prod-" + "a" * 33, "g" * 32, "a" * 30])
    def test_a_signing_key_must_be_usable_by_sdks(self, key):
        with pytest.raises(ConfigurationError, match="holdfast keys new"):
            check_signing_key(key, "INNGEST_SIGNING_KEY")

    def test_a_malformed_fallback_is_named(self):
        with pytest.raises(ConfigurationError, match="INNGEST_SIGNING_KEY_FALLBACK is not a signing key"):
            ServerSettings(**{**PRODUCTION, "signing_key_fallback": "nonsense"})

    @pytest.mark.parametrize("prefix", ["holdfast", "/holdfast/", "/"])
    def test_a_malformed_prefix_is_refused(self, prefix):
        with pytest.raises(ConfigurationError, match="prefix"):
            ServerSettings(prefix=prefix)

    def test_secrets_are_not_in_its_repr(self):
        text = repr(ServerSettings(**PRODUCTION, dashboard_password=PASSWORD, session_secret="session-canary"))
        for secret in (EVENT_KEY, SIGNING_KEY, FALLBACK_KEY, PASSWORD, "session-canary"):
            assert secret not in text

    def test_the_environment_is_read_and_arguments_win(self):
        environ = {
            "INNGEST_EVENT_KEY": "a, b,,",
            "INNGEST_SIGNING_KEY": SIGNING_KEY,
            "INNGEST_SIGNING_KEY_FALLBACK": "",
            "HOLDFAST_ALLOWED_HOSTS": "a.example, b.example",
            "HOLDFAST_PREFIX": "/hf/",
        }
        settings = ServerSettings.from_environment(environ, mode="start", port=9000, host=None)
        assert settings.event_keys == ("a", "b")
        assert settings.signing_key_fallback is None
        assert settings.allowed_hosts == ("a.example", "b.example")
        assert (settings.prefix, settings.port, settings.host) == ("/hf", 9000, "127.0.0.1")
        with pytest.raises(ConfigurationError, match="INNGEST_EVENT_KEY and INNGEST_SIGNING_KEY"):
            ServerSettings.from_environment({"INNGEST_EVENT_KEY": " ", "INNGEST_SIGNING_KEY": ""}, mode="start")

    @pytest.mark.parametrize(
        "address", ["8288", "localhost", "localhost:", ":8288", "localhost:x", "localhost:99999", ""]
    )
    def test_an_address_must_have_a_host_and_a_port(self, address):
        with pytest.raises(ConfigurationError, match="write it as '127.0.0.1:8288'"):
            ServerSettings.at(address)

    def test_an_address(self, monkeypatch):
        monkeypatch.delenv("HOLDFAST_DASHBOARD_PASSWORD", raising=False)
        assert (ServerSettings.at("[::1]:80").host, ServerSettings.at("[::1]:80").port) == ("::1", 80)
        assert ServerSettings.at("localhost:0").open

    @pytest.mark.parametrize(
        ("host", "expected"),
        [
            ("127.0.0.1", True),
            ("127.8.8.8", True),
            ("::1", True),
            ("[::1]", True),
            ("localhost", True),
            ("0.0.0.0", False),
            ("10.0.0.1", False),
            ("x.example", False),
        ],
    )
    def test_loopback(self, host, expected):
        assert is_loopback(host) is expected


class TestKeys:
    def test_a_signing_key_is_accepted_plain_and_hashed(self):
        ring = KeyRing.of_signing_keys([SIGNING_KEY, FALLBACK_KEY])
        for key in (SIGNING_KEY, FALLBACK_KEY):
            plain = key.rpartition("-")[2]
            assert ring.accepts(plain)
            assert ring.accepts(sha256(bytes.fromhex(plain)).hexdigest())
            assert not ring.accepts(sha256(plain.encode()).hexdigest())
            assert not ring.accepts(plain[:-1])
        assert not ring.accepts("")

    def test_an_empty_ring_accepts_nothing(self):
        assert not KeyRing.of_event_keys([]).accepts("")

    def test_keys_are_kept_as_digests(self):
        ring = KeyRing.of_event_keys([EVENT_KEY])
        kept = b"".join(ring._digests)
        assert EVENT_KEY.encode() not in kept
        assert EVENT_KEY not in repr(ring)
        assert ring.accepts(EVENT_KEY)
        assert ring.accepts("\udcff") is False

    def test_fingerprints_tell_keys_apart_and_show_nothing(self):
        assert fingerprint(EVENT_KEY) != fingerprint(SIGNING_KEY)
        assert len(fingerprint(EVENT_KEY)) == 8


class TestSessions:
    def sessions(self, *secrets: str, credentials: tuple[str, ...] = ("cred",)) -> Sessions:
        return Sessions([derived_secret(secret, "sessions") for secret in secrets or ("s",)], credentials, 1000)

    def test_a_cookie_is_read_until_it_expires(self):
        sessions = self.sessions()
        session, cookie = sessions.start("ann", "cred", 5000)
        assert sessions.read(cookie, 5999) == session
        assert sessions.read(cookie, 6000) is None

    def test_another_process_with_the_same_secret_reads_it(self):
        _, cookie = self.sessions().start("ann", "cred", 0)
        assert self.sessions().read(cookie, 1).actor == "ann"
        assert self.sessions("other").read(cookie, 1) is None

    def test_rotation_keeps_people_logged_in(self):
        _, cookie = self.sessions("old").start("ann", "cred", 0)
        assert self.sessions("new", "old").read(cookie, 1) is not None

    def test_a_changed_password_ends_sessions(self):
        _, cookie = self.sessions().start("ann", "cred", 0)
        assert self.sessions(credentials=("changed",)).read(cookie, 1) is None

    def test_no_byte_of_a_cookie_can_be_changed(self):
        sessions = self.sessions()
        _, cookie = sessions.start("ann", "cred", 0)
        assert sessions.read(cookie, 1) is not None
        for position in range(len(cookie)):
            changed = cookie[:position] + ("A" if cookie[position] != "A" else "B") + cookie[position + 1 :]
            assert sessions.read(changed, 1) is None, position

    @pytest.mark.parametrize("cookie", ["", ".", "a.b", "ü.ü", "." * 100, "e30.e30"])
    def test_what_is_no_cookie_is_nobody(self, cookie):
        assert self.sessions().read(cookie, 0) is None

    def test_logging_out_ends_one_session(self):
        sessions = self.sessions()
        one, one_cookie = sessions.start("ann", "cred", 0)
        _, other_cookie = sessions.start("bob", "cred", 0)
        sessions.end(one, 1)
        assert sessions.read(one_cookie, 2) is None
        assert sessions.read(other_cookie, 2) is not None

    def test_what_was_logged_out_and_expired_is_forgotten(self):
        sessions = self.sessions()
        for now in range(0, 50_000, 500):
            session, _ = sessions.start("ann", "cred", now)
            sessions.end(session, now)
        assert len(sessions._revoked) <= 4

    def test_csrf_tokens_belong_to_a_session(self):
        sessions = self.sessions()
        assert sessions.csrf_matches("one", sessions.csrf_token("one"))
        assert not sessions.csrf_matches("two", sessions.csrf_token("one"))
        assert not sessions.csrf_matches("one", "")
        assert not sessions.csrf_matches("one", "ü")

    def test_a_csrf_token_is_no_session(self):
        sessions = self.sessions()
        session, cookie = sessions.start("ann", "cred", 0)
        body = cookie.partition(".")[0]
        assert sessions.read(f"{body}.{sessions.csrf_token(body)}", 1) is None


class TestBrake:
    def test_ten_wrong_tries_then_a_minute(self):
        brake = LoginBrake()
        for _ in range(10):
            assert brake.wait_ms("1.2.3.4", 0) == 0
            brake.failed("1.2.3.4", 0)
        assert brake.wait_ms("1.2.3.4", 10) == 59_990
        assert brake.wait_ms("5.6.7.8", 10) == 0
        assert brake.wait_ms("1.2.3.4", 60_000) == 0

    def test_a_new_minute_counts_anew(self):
        brake = LoginBrake()
        for _ in range(9):
            brake.failed("a", 0)
        brake.failed("a", 60_000)
        assert brake.wait_ms("a", 60_001) == 0

    def test_it_does_not_grow_without_bound(self):
        brake = LoginBrake()
        for number in range(20_000):
            brake.failed(str(number), 0)
        assert len(brake._failures) == 10_000


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/runs?status=failed", "/runs?status=failed"),
        ("", "/"),
        ("runs", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nset-cookie: x", "/"),
        ("/a\\b", "/"),
        ("/\t/evil", "/"),
    ],
)
def test_after_the_login_one_stays_on_this_server(given, expected):
    assert safe_target(given) == expected
