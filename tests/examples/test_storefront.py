"""A1 to A7 on the storefront as it runs: a real process, a real mail server, real databases."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from examples.demo.inbox import BUSY, UNKNOWN
from examples.demo.traffic import new_event_id
from examples.demo.waiting import until
from examples.storefront.webhook import sign

from local_resend import LocalResend, serve_resend
from running_shop import running_shop

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
README = Path(__file__).parents[2] / "examples" / "storefront" / "README.md"
ADA = "ada@example.test"


def waits(history):
    """Seconds between the tries of the e-mail, as planned; and the least they really were."""
    (step,) = [step for step in history["steps"] if step["id"] == "send-email"]
    moments = [(datetime.fromisoformat(a["ended_at"]), datetime.fromisoformat(a["retry_at"])) for a in step["attempts"] if a["retry_at"]]
    planned = [round((retry - ended).total_seconds()) for ended, retry in moments]
    starts = [datetime.fromisoformat(attempt["started_at"]) for attempt in step["attempts"]]
    for (ended, _), start, seconds in zip(moments, starts[1:], planned, strict=False):
        assert (start - ended).total_seconds() >= seconds - 0.002
    return planned


def step_ids(history):
    return [step["id"] for step in history["steps"]]


async def test_a1_a_purchase_is_confirmed_and_marked(shop):
    order = await shop.traffic.place_order(ADA, "poster", 2)
    answer = await shop.traffic.pay(order)
    history = await shop.ended(answer.event_id)
    assert history["run"]["status"] == "Completed"
    assert history["run"]["function"] == "riqle-send-purchase-confirmation"
    assert step_ids(history) == ["fetch-order", "send-email", "mark-fulfilled"]
    (mail,) = shop.inbox.mails
    assert (mail.recipients, mail.message_id) == ([ADA], f"<purchase-confirmation.{order.id}@riqle.example>")
    assert "58.00 EUR" in mail.text
    assert "58.00 EUR" in mail.html
    row = shop.database.orders()[order.id]
    assert row["status"] == "fulfilled"
    assert row["fulfilled_at"] is not None
    assert (await shop.traffic.client.get(f"/orders/{order.id}")).json()["status"] == "fulfilled"


async def test_a1_a_finished_step_is_not_redone_by_a_later_ones_retries(shop):
    order = await shop.traffic.place_order(ADA)
    with closing(sqlite3.connect(shop.database.path)) as database:
        database.execute("CREATE TRIGGER broken BEFORE UPDATE ON orders BEGIN SELECT RAISE(ABORT, 'the table is broken'); END")
        database.commit()
        answer = await shop.traffic.pay(order)
        run = await shop.api.run_of_event(answer.event_id)

        async def tried_twice():
            steps = {step["id"]: step for step in (await shop.api.history(run))["steps"]}
            return "mark-fulfilled" in steps and steps["mark-fulfilled"]["failed_attempts"] >= 2

        assert await until(tried_twice, 60)
        database.execute("DROP TRIGGER broken")
        database.commit()
    history = await shop.ended(answer.event_id)
    assert history["run"]["status"] == "Completed"
    assert [step["failed_attempts"] for step in history["steps"]] == [0, 0, 2]
    assert len(shop.inbox.mails) == 1
    assert [row["status"] for row in shop.database.email_log(order.id)] == ["sent"]


async def test_a2_a_refund_is_announced_and_marked(shop):
    order = await shop.traffic.place_order(ADA)
    history = await shop.ended((await shop.traffic.refund(order, "it arrived broken")).event_id)
    assert history["run"]["function"] == "riqle-send-refund-notification"
    assert step_ids(history) == ["fetch-order", "send-email", "mark-refunded"]
    (mail,) = shop.inbox.mails
    assert "Reason: it arrived broken" in mail.text
    row = shop.database.orders()[order.id]
    assert (row["status"], row["fulfilled_at"]) == ("refunded", None)
    assert row["refunded_at"] is not None


async def test_a3_a_sign_up_is_greeted_once(shop):
    first = await shop.traffic.sign_up(ADA, "Ada")
    again = await shop.traffic.sign_up(ADA, "Ada")
    assert (first.status, again.status, first.body) == (202, 202, again.body)
    assert await until(lambda: len(shop.inbox.mails) == 1, 60)
    assert "Welcome, Ada" in shop.inbox.mails[0].text
    (run,) = await shop.api.runs(function="riqle-send-welcome-email")
    history = await shop.ended(run["event_id"])
    assert step_ids(history) == ["send-email"]
    assert len(shop.inbox.mails) == 1


async def test_a4_delays_dead_letter_and_redrive(shop):
    shop.inbox.rejected[ADA] = UNKNOWN
    order = await shop.traffic.place_order(ADA)
    paid = await shop.traffic.pay(order)
    refund = await shop.traffic.refund(order, "")
    await shop.traffic.sign_up(ADA, "Ada")
    (welcome,) = await shop.api.runs(function="riqle-send-welcome-email")
    histories = [await shop.ended(event) for event in (paid.event_id, refund.event_id, welcome["event_id"])]
    assert [history["run"]["status"] for history in histories] == ["Failed"] * 3
    assert [waits(history) for history in histories] == [[1, 2, 4], [1, 2], [1]]
    assert "550 5.1.1 there is no such mailbox" in histories[0]["run"]["error"]
    assert [row["status"] for row in shop.database.email_log(order.id) if row["kind"] == "purchase-confirmation"] == ["failed"] * 4
    assert {letter["run_id"] for letter in await shop.api.dead_letters("dead")} == {history["run"]["run_id"] for history in histories}
    page = (await shop.server.get(f"/runs/{histories[0]['run']['run_id']}")).text
    assert all(f"next in {seconds} s" in page for seconds in (1, 2, 4))

    shop.inbox.rejected.clear()
    dead = histories[0]["run"]["run_id"]
    first, second = await asyncio.gather(shop.api.redrive(dead), shop.api.redrive(dead))
    assert first == second

    async def done():
        return (await shop.api.history(first))["run"]["status"] == "Completed"

    assert await until(done, 60)
    before, after = [await shop.api.history(run) for run in (dead, first)]
    assert step_ids(after) == ["fetch-order", "send-email", "mark-fulfilled"]
    assert after["steps"][0]["started_at"] == before["steps"][0]["started_at"]
    assert len(shop.inbox.mails) == 1
    assert shop.database.orders()[order.id]["fulfilled_at"] is not None


async def test_a4_the_functions_as_they_are_registered(shop):
    functions = {f["slug"]: f["config"] for f in (await shop.server.get("/v1/functions")).json()["data"]}
    expected = {"riqle-send-purchase-confirmation": 3, "riqle-send-refund-notification": 2, "riqle-send-welcome-email": 1}
    assert {slug: config["retries"] for slug, config in functions.items()} == expected
    for config in functions.values():
        assert config["backoff"] == {"jitter": "none", "firstDelay": "1s", "multiplier": 2}


@pytest.mark.parametrize(
    "event",
    [
        '{"name": "email/purchase-confirmation", "data": {"orderId": "%s", "customerEmail": "ada@example.test"}}',
        '{"name": "email/refund-notification", "data": {"orderId": "%s", "customerEmail": "ada@example.test", "refundReason": "broken"}}',
        '{"name": "email/refund-notification", "data": {"orderId": "%s", "customerEmail": "ada@example.test"}}',
        '{"name": "email/welcome", "data": {"userId": "%s", "email": "ada@example.test", "name": "Ada"}}',
        '{"name": "email/welcome", "data": {"userId": "%s", "email": "ada@example.test"}}',
    ],
)
async def test_events_verbatim_over_the_event_api(shop, event):
    order = await shop.traffic.place_order(ADA)
    body = event % order.id
    response = await shop.server.post("/e/any-key", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    (event_id,) = response.json()["ids"]
    assert (await shop.ended(event_id))["run"]["status"] == "Completed"
    (mail,) = shop.inbox.mails
    assert mail.recipients == [ADA]
    stored = (await shop.server.get(f"/v1/events/{event_id}")).json()["data"]
    assert {"name": stored["name"], "data": stored["data"]} == json.loads(body)


async def test_an_event_that_does_not_fit_names_the_field(shop):
    for field, data in [
        ("orderId", {"customerEmail": ADA}),
        ("customerEmail", {"orderId": "o1"}),
        ("orderId", {"orderId": 5, "customerEmail": ADA}),
        ("customerEmail", {"orderId": "o1", "customerEmail": "nobody"}),
    ]:
        response = await shop.server.post("/e/any-key", json={"name": "email/purchase-confirmation", "data": data})
        assert response.status_code == 400
        assert field in response.json()["error"]
    assert await shop.api.runs() == []


async def test_an_unknown_order_fails_at_once(shop):
    event = {"name": "email/purchase-confirmation", "data": {"orderId": "order_unknown", "customerEmail": ADA}}
    (event_id,) = (await shop.server.post("/e/any-key", json=event)).json()["ids"]
    history = await shop.ended(event_id, seconds=5)
    assert history["run"]["status"] == "Failed"
    assert "there is no order 'order_unknown'" in history["run"]["error"]
    assert shop.inbox.mails == []


async def test_a6_a_webhook_delivered_again_and_again_is_one_mail(shop):
    order, event_id = await shop.traffic.place_order(ADA), new_event_id()
    answers = [await shop.traffic.pay(order, event_id) for _ in range(2)]
    answers += await asyncio.gather(*(shop.traffic.pay(order, event_id) for _ in range(30)))
    assert [answer.status for answer in answers] == [200] * 32
    assert [answer.duplicate for answer in answers] == [False] + [True] * 31
    (run,) = await shop.api.runs()
    await shop.ended(run["event_id"])
    assert len(shop.inbox.mails) == 1
    events = await shop.api.events("email/purchase-confirmation")
    assert [event["id"] for event in events] == [event_id] * 32
    page = (await shop.server.get(f"/events/{answers[-1].event_id}")).text
    assert "duplicate event id" in page
    assert run["run_id"] in page


async def test_a6_at_the_same_instant_from_the_first_on(shop):
    order, event_id = await shop.traffic.place_order(ADA), new_event_id()
    answers = await asyncio.gather(*(shop.traffic.pay(order, event_id) for _ in range(20)))
    assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 19
    (run,) = await shop.api.runs()
    await shop.ended(run["event_id"])
    assert len(shop.inbox.mails) == 1


async def test_a6_one_payment_under_several_event_ids_is_one_mail(shop):
    order = await shop.traffic.place_order(ADA)
    answers = await asyncio.gather(*(shop.traffic.pay(order) for _ in range(5)))
    assert not any(answer.duplicate for answer in answers)
    histories = [await shop.ended(answer.event_id) for answer in answers]
    assert {history["run"]["status"] for history in histories} == {"Completed"}
    assert len(shop.inbox.mails) == 1
    assert [row["status"] for row in shop.database.email_log(order.id)] == ["sent"]
    senders = {history["run"]["output"]["sent_by"] for history in histories}
    assert len(senders) == 1


async def test_a6_a_bad_signature_is_400_and_enqueues_nothing(shop):
    order = await shop.traffic.place_order(ADA)
    answers = [
        await shop.traffic.forge(order, secret="whsec_guessed"),
        await shop.traffic.forge(order, age=301),
        await shop.traffic.forge(order, age=-302),
        await shop.traffic.forge(order, signed=False),
    ]
    assert [answer.status for answer in answers] == [400] * 4
    assert all(answer.body["detail"] for answer in answers)
    assert await shop.api.events("email/purchase-confirmation") == []
    assert await shop.api.runs() == []


async def deliver(shop, payload: bytes):
    headers = {"Stripe-Signature": sign(payload, "whsec_development", int(time.time()))}
    return await shop.traffic.client.post("/webhooks/payment", content=payload, headers=headers)


USELESS = (
    (b"", 422, "not JSON"),
    (b"{", 422, "not JSON"),
    (b"\xff", 422, "not JSON"),
    (b"[" * 100_000, 422, "not JSON"),
    (b"[]", 422, "no type"),
    (b'{"type": "charge.refunded"}', 422, "lacks id"),
    (b'{"id": "evt_1", "type": "charge.refunded", "data": {"object": {}}}', 422, "metadata.orderId"),
    (b'{"id": "evt_1", "type": "charge.refunded", "data": {"object": {"metadata": {"orderId": "o"}}}}', 422, "e-mail"),
    (b'{"id": "evt_1", "type": "charge.refunded", "data": {"object": {"metadata": {"orderId": "o"}, "receipt_email": "x"}}}', 422, "customer_email"),
    (b'{"id": "evt_1", "type": "customer.created"}', 200, "customer.created"),
    (b" " * 1_000_001, 413, "1000000 bytes"),
)
"""Bodies, the status they are answered with, and a part of the answer."""


async def test_a6_genuine_webhooks_that_are_of_no_use(shop):
    for payload, status, says in USELESS:
        response = await deliver(shop, payload)
        assert (response.status_code, says in response.text) == (status, True), (payload[:80], response.text)
    assert await shop.api.runs() == []


async def test_a6_bad_sign_ups_are_refused_with_the_field(shop):
    for field, body in [("email", {}), ("email", {"email": "nobody"}), ("admin", {"email": ADA, "admin": True}), ("name", {"email": ADA, "name": "x" * 201})]:
        response = await shop.traffic.client.post("/signup", json=body)
        assert response.status_code == 422
        assert [problem["loc"] for problem in response.json()["detail"]] == [["body", field]]
    assert await shop.api.runs() == []


async def test_p9_answers_come_at_once_with_the_mail_server_hanging(shop):
    shop.inbox.hold()
    orders = [await shop.traffic.place_order(f"c{n}@example.test") for n in range(40)]
    seconds = []
    for start in range(0, 40, 10):
        batch = orders[start : start + 10]
        paid = [shop.traffic.pay(order) for order in batch]
        answers = await asyncio.gather(*paid, *(shop.traffic.sign_up(order.email, "C") for order in batch))
        assert {answer.status for answer in answers} == {200, 202}
        seconds += [answer.seconds for answer in answers]
    assert await until(lambda: shop.inbox.held >= 20, 60)
    assert sorted(seconds)[len(seconds) * 99 // 100 - 1] < 0.5
    shop.inbox.release()


async def test_a7_the_queries_of_the_readme(shop):
    failed_mails, orders = re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)
    shop.inbox.refusal = BUSY
    first = await shop.traffic.place_order(ADA)
    await shop.ended((await shop.traffic.refund(first, "")).event_id)
    await shop.traffic.sign_up("bob@example.test", "Bob")
    assert await until(lambda: shop.inbox.refused.count("bob@example.test") == 2, 60)
    shop.inbox.refusal = None
    second = await shop.traffic.place_order(ADA)
    await shop.ended((await shop.traffic.pay(second)).event_id)
    assert await until(lambda: len(shop.database.rows(failed_mails)) == 5, 60)
    rows = shop.database.rows(failed_mails)
    assert [row["created_at"] for row in rows] == sorted((row["created_at"] for row in rows), reverse=True)
    assert {(row["kind"], row["recipient"], row["attempt"]) for row in rows} == {
        ("refund-notification", ADA, 1), ("refund-notification", ADA, 2), ("refund-notification", ADA, 3),
        ("welcome", "bob@example.test", 1), ("welcome", "bob@example.test", 2),
    }  # fmt: skip
    assert all("451" in row["error"] for row in rows)
    newest, oldest = shop.database.rows(orders)
    assert (newest["id"], newest["status"]) == (second.id, "fulfilled")
    assert newest["fulfilled_at"] is not None
    assert (oldest["id"], oldest["status"], oldest["fulfilled_at"]) == (first.id, "pending", None)


async def test_a_mail_over_resend_by_setting(tmp_path):
    local = LocalResend()
    with serve_resend(local) as url:
        async with running_shop(tmp_path, MAIL_TRANSPORT="resend", RESEND_API_KEY="re_secret", RESEND_URL=url) as shop:
            local.failures = [(500, "Internal error")]
            order = await shop.traffic.place_order(ADA)
            history = await shop.ended((await shop.traffic.pay(order)).event_id)
            assert history["run"]["status"] == "Completed"
            assert waits(history) == [1]
    assert list(local.sent) == [f"purchase-confirmation.{order.id}@riqle.example"]
    assert [row["status"] for row in shop.database.email_log(order.id)] == ["failed", "sent"]
    assert shop.inbox.mails == []


async def test_the_shop_says_where_an_order_stands_and_what_it_sells(shop):
    client = shop.traffic.client
    assert (await client.get("/orders/order_unknown")).status_code == 404
    answer = await client.post("/orders", json={"customerEmail": ADA, "items": [{"sku": "yacht"}]})
    assert answer.status_code == 422
    assert "there is no product 'yacht'; there are: mug, notebook, poster" in answer.text


async def test_a6_a_webhook_that_can_not_be_kept_is_refused_and_counts_when_delivered_again(shop):
    order, event_id = await shop.traffic.place_order(ADA), new_event_id()
    # no file of the process may grow: the disk is full, as far as it can tell
    _, hard = resource.prlimit(shop.storefront.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(shop.storefront.pid, resource.RLIMIT_FSIZE, (0, hard))
    refused = await shop.traffic.pay(order, event_id)
    assert refused.status == 503
    assert refused.body["detail"]
    await shop.storefront.kill()
    await shop.storefront.start()
    accepted = await shop.traffic.pay(order, event_id)
    assert (accepted.status, accepted.duplicate) == (200, False)
    assert (await shop.ended(accepted.event_id))["run"]["status"] == "Completed"
    assert len(shop.inbox.mails) == 1


async def test_with_postgresql_by_its_url(tmp_path, postgres_url):
    async with running_shop(tmp_path, DATABASE_URL=postgres_url) as shop:
        order, event_id = await shop.traffic.place_order(ADA, "poster", 2), new_event_id()
        answers = await asyncio.gather(*(shop.traffic.pay(order, event_id) for _ in range(10)), shop.traffic.pay(order))
        for answer in answers:
            if not answer.duplicate:
                assert (await shop.ended(answer.event_id))["run"]["status"] == "Completed"
        assert len(shop.inbox.mails) == 1
        stands = (await shop.traffic.client.get(f"/orders/{order.id}")).json()
        assert stands["status"] == "fulfilled"
        assert stands["fulfilledAt"].endswith("Z")


async def test_in_production_api_and_dashboard_need_the_keys(tmp_path):
    key = "signkey-prod-" + "5f" * 32
    production = {"APP_ENV": "production", "INNGEST_EVENT_KEY": "event-key-1", "INNGEST_SIGNING_KEY": key,
                  "PAYMENT_WEBHOOK_SECRET": "whsec_real", "SMTP_HOST": "127.0.0.1"}  # fmt: skip
    async with running_shop(tmp_path, **production) as shop:
        event = {"name": "email/welcome", "data": {"userId": "u1", "email": ADA}}
        assert (await shop.server.post("/e/guessed", json=event)).status_code == 401
        assert (await shop.server.get("/v1/runs")).status_code == 401
        page = await shop.server.get("/", headers={"Accept": "text/html"})
        assert (page.status_code, "login" in page.headers.get("location", "")) == (303, True)
        assert shop.inbox.mails == []

        shop.server.headers["Authorization"] = f"Bearer {key}"
        (event_id,) = (await shop.server.post("/e/event-key-1", json=event)).json()["ids"]
        assert (await shop.ended(event_id))["run"]["status"] == "Completed"
        shop.traffic.secret = "whsec_real"
        order = await shop.traffic.place_order(ADA)
        assert (await shop.ended((await shop.traffic.pay(order)).event_id))["run"]["status"] == "Completed"
    for log in tmp_path.glob("*.log"):
        text = log.read_text()
        assert not any(secret in text for secret in (key, "event-key-1", "whsec_real"))
