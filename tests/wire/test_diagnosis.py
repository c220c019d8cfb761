"""A sync that fails says which failure it was and what to do; the doctor's tests have the rest."""

from __future__ import annotations

import pytest

from holdfast.base.findings import Level
from holdfast.wire.diagnosis import Seen, Silence, diagnose_sync, no_answer

URL = "http://shop.example/api/inngest"
SDK = {"x-inngest-sdk": "inngest-js:v4.24.0", "content-type": "application/json"}
PAGE = {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "subject", "remedy"),
    [
        (404, {}, b"", "no route", "Mount the SDK's serve route"), (405, {}, b"", "no route", "mount it for all three"),
        (401, {}, b"", "access wall", "Exempt /api/inngest"), (302, {"location": "/login"}, b"", "access wall", "Exempt"),
        (200, PAGE, b"<!doctype html>", "HTML", "before it"), (200, {}, b"{}", "not an SDK", "usually /api/inngest"),
        (401, SDK, b'{"message":"Unauthorized"}', "signing key", "INNGEST_SIGNING_KEY"), (500, SDK, b'{"message":"no server answers"}', "SDK", "log"),
    ],
)
def test_a_sync_that_fails(status, headers, body, subject, remedy):
    found = diagnose_sync(Seen(URL, status, headers, body, "PUT"))
    assert (found.level, found.subject) == (Level.WRONG, subject)
    assert remedy in found.remedy
    assert "GET (" not in found.text


def test_a_sync_that_goes_well():
    assert diagnose_sync(Seen(URL, 200, SDK, b'{"ok":true}', "PUT")).level is Level.FINE


@pytest.mark.parametrize(("silence", "said"), [(Silence.TIMED_OUT, "within 5 s"), (Silence.REFUSED, "nothing listens on shop.example"), (Silence.TLS, "no secure connection"), (Silence.OTHER, "can't be reached: boom")])
def test_no_answer_at_all(silence, said):
    found = no_answer(URL, silence, "boom", 5)
    assert said in found.text
    assert found.remedy
