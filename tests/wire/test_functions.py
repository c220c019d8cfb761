"""Configurations that can't be used are refused in the protocol's words; those that can, in all their forms, are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.wire.functions import LimitConfig, decode_function
from holdfast.wire.registering import InvalidFunctionsError, decode_register, functions_of
from holdfast.wire.errors import WireError
from holdfast.wire.validation import problems

STEP = {"id": "step", "name": "step", "runtime": {"type": "http", "url": "http://x/api/inngest?fnId=a-f&stepId=step"}}
GOOD: dict[str, Any] = {"name": "F", "id": "a-f", "triggers": [{"event": "a/b"}], "steps": {"step": STEP}}


def found(**changes: Any) -> list[str]:
    return [problem.message for problem in problems(decode_function(json.dumps({**GOOD, **changes}).encode()))]


@pytest.mark.protocol("register.config")
@pytest.mark.parametrize(
    "changes",
    [
        {}, {"concurrency": 5}, {"concurrency": {"limit": 1, "key": "event.data.x"}}, {"concurrency": [{"limit": 1}, {"limit": 2, "scope": "env", "key": "'x'"}]},
        {"concurrency": {"fn": [{"limit": 1}], "step": [{"limit": 2}, 3]}}, {"concurrency": []}, {"concurrency": None, "cancel": None, "triggers": [{"cron": "TZ=Europe/Paris 0 9 * * *", "jitter": "30s"}]},
        {"throttle": {"limit": 0, "period": "5s"}}, {"rateLimit": {"limit": 1, "period": "24h"}}, {"debounce": {"period": "7d", "key": ""}},
        {"batchEvents": {"maxSize": 2, "timeout": "1s"}}, {"priority": {"run": "event.data.p"}}, {"singleton": {"mode": "skip"}}, {"idempotency": "event.data.id"},
        {"idempotency": {"key": "event.data.id", "bucket": "10s", "trailing": True}},
        {"timeouts": {"start": "nonsense"}}, {"retries": 3}, {"checkpoint": {"batch_steps": 3}}, {"somethingNew": {"x": 1}},
        {"steps": {"anything": STEP}}, {"cancel": [{"event": "a/x", "if": "event.data.id == async.data.id", "timeout": "1h"}]}, {"triggers": [{"event": "a/*"}, {"event": "a.b.*"}]},
    ],
    ids=str,
)
def test_what_can_be_used(changes: dict[str, Any]) -> None:
    assert found(**changes) == []


@pytest.mark.protocol("register.refused")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "A function name is required"),
        ({"steps": {}}, "Functions must contain one step"),
        ({"steps": {"a": STEP, "b": STEP}}, "Functions must contain one step"),
        ({"steps": {"step": {"id": "step", "name": "step"}}}, "No SDK URL provided for function 'F'"),
        ({"steps": {"step": {**STEP, "runtime": {"type": "http", "url": "ftp://x"}}}}, "Non-supported step schema: ftp"),
        ({"triggers": [{}]}, "A trigger must supply an event name or a cron schedule"),
        ({"triggers": [{"event": "a", "cron": "* * * * *"}]}, "A trigger must supply an event name or a cron schedule"),
        ({"triggers": [{"event": f"a/{n}"} for n in range(11)]}, "This function exceeds the max number of triggers: 10"),
        ({"triggers": [{"event": "a"}, {"event": "a"}]}, "Duplicate trigger 'a'"),
        ({"triggers": [{"cron": "* * * * *"}, {"cron": "* * * * *"}]}, "Duplicate cron schedule '* * * * *'"),
        ({"triggers": [{"event": "x" * 256}]}, "event name must be at most 255 characters"),
        ({"triggers": [{"event": "a", "expression": "event.data.a ="}]}, "invalid trigger expression on 'a'"),
        ({"triggers": [{"cron": "@daily"}]}, "'@daily' isn't a valid cron schedule"),
        ({"triggers": [{"cron": "61 * * * *"}]}, "'61 * * * *' isn't a valid cron schedule"),
        ({"triggers": [{"cron": "* * * * *", "jitter": "6m"}]}, "The cron jitter of '6m' is greater than the max of: 5m"),
        ({"concurrency": [1, 2, 3]}, "There are more concurrency limits specified than the allowed max of: 2"),
        ({"concurrency": {"limit": 1, "scope": "env"}}, "A concurrency key must be specified for env scoped limits"),
        ({"concurrency": {"limit": 1, "scope": "account"}}, "A concurrency key must be specified for account scoped limits"),
        ({"concurrency": {"limit": 1, "scope": "app"}}, "Unknown concurrency scope 'app'"),
        ({"idempotency": {"key": "event.data.id =", "bucket": "10s"}}, "Idempotency expression is invalid: "),
        ({"concurrency": {"fn": [{"limit": 0}]}}, "A function concurrency limit must be greater than 0"),
        ({"concurrency": "five"}, "concurrency: "),
        ({"rateLimit": {"limit": 0, "period": "1h"}}, "limit must be greater than 0"),
        ({"rateLimit": {"limit": 1}}, "period must be specified"),
        ({"rateLimit": {"limit": 1, "period": "25h"}}, "The rate limit period of '25h' is greater than the max of: 1d"),
        ({"debounce": {"period": "999ms"}}, "The debounce period of '999ms' is less than the min of: 1s"),
        ({"debounce": {"period": "8d"}}, "The debounce period of '8d' is greater than the max of: 7d"),
        ({"batchEvents": {"maxSize": 1, "timeout": "5s"}}, "batch size cannot be smaller than 2: 1"),
        ({"batchEvents": {"maxSize": 5, "timeout": "1d"}}, "invalid timeout string: '1d'"),
        ({"batchEvents": {"maxSize": 5, "timeout": "5s"}, "cancel": [{"event": "a"}]}, "Batching and cancellation are mutually exclusive"),
        ({"priority": {"run": "1 +"}}, "Priority.Run expression is invalid: "),
        ({"cancel": [{"event": "a", "if": "a ="}]}, "Cancellation expression is invalid: "),
        ({"cancel": [{"event": "a"}] * 6}, "This function exceeds the max number of cancellation events: 5"),
        ({"singleton": {"mode": "both"}}, "Unknown singleton mode 'both'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot(changes: dict[str, Any], message: str) -> None:
    assert any(one.startswith(message) for one in found(**changes)), found(**changes)


@pytest.mark.protocol("register.config")
@pytest.mark.parametrize(
    ("changes", "retries"),
    [({}, 4), ({"retries": 2}, 2), ({"retries": 99}, 20), ({"retries": 2, "steps": {"step": {**STEP, "retries": {"attempts": 0}}}}, 0)],
    ids=str,
)
def test_retries(changes: dict[str, Any], retries: int) -> None:
    assert decode_function(json.dumps({**GOOD, **changes}).encode()).retry_count == retries


@pytest.mark.protocol("register.config")
def test_limits_have_one_normal_form() -> None:
    assert decode_function(json.dumps({**GOOD, "concurrency": 5}).encode()).limits.step == [LimitConfig(5)]


@pytest.mark.protocol("register.refused")
def test_a_registration_says_everything_that_is_wrong_with_it() -> None:
    body = {"appname": "a", "URL": "http://x", "deploy_type": "ping", "functions": [GOOD, {**GOOD, "id": "a-g", "name": None}, {**GOOD, "triggers": 5}]}
    request = decode_register(json.dumps(body).encode())
    assert (request.app_name, request.url) == ("a", "http://x")
    with pytest.raises(InvalidFunctionsError, match="At least one function is invalid: a-g: A function name is required; ") as raised:
        functions_of(request)
    assert len(raised.value.reasons) == 2


@pytest.mark.protocol("register.refused")
@pytest.mark.parametrize("body", ["{}", '{"appName":""}', '{"appName":null}'])
def test_an_app_needs_an_id(body: str) -> None:
    with pytest.raises(WireError, match="App ID required"):
        decode_register(body.encode())


@pytest.mark.parametrize("body", ["", "[]", "5", '{"appName":5}', '{"appName":"a","functions":{}}'])
def test_no_registration_at_all(body: str) -> None:
    with pytest.raises(WireError):
        decode_register(body.encode())


@pytest.mark.protocol("register.same")
def test_no_functions_are_fine() -> None:
    assert functions_of(decode_register(b'{"appName":"a","functions":null}')) == []
