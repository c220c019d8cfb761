"""C1 and C2 on the real engine, with a real mail server, a text model and receivers over real HTTP; time is the test's."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pypdf
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from examples.demo.inbox import BUSY, UNKNOWN, Inbox, smtp_server
from examples.demo.outside import Outside
from examples.demo.receiver import Receiver
from examples.demo.serving import served
from examples.studio.client import app
from examples.studio.events import EmailSend, ExportPdf, HelloWorld, StrategyGenerate, WebhookDeliver
from examples.studio.exporting import Exporter
from examples.studio.functions import deliver_webhook, export_pdf, generate_strategy, hello_world, send_email
from holdfast import EventInvalidError
from holdfast.testing import Harness
from ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
ADA = "ada@example.test"
MAIL = EmailSend(to=ADA, subject="Your draft", text="It is ready.", html="<p>It is <b>ready</b>.</p>")
BRIEF = StrategyGenerate(product="Cold brew", audience="students", goal="200 subscriptions")
DOCUMENT = ExportPdf(
    title="Campaign: Crème brûlée",
    sections=[{"heading": "Why", "text": "Because 5 £ is fair."}, {"heading": "How", "text": "Word after word. " * 900}],
)


@dataclass
class Studio:
    h: Any
    outside: Outside
    inbox: Inbox
    receiver: Receiver
    hooks: str
    exports: Path

    def webhook(self, **changes: Any) -> WebhookDeliver:
        return WebhookDeliver(**{"url": self.hooks, "event": "strategy.ready", "payload": {"number": 5, "ü": "ß"}, **changes})


@pytest.fixture
async def studio(tmp_path, monkeypatch) -> AsyncIterator[Studio]:
    outside, inbox, receiver = Outside(), Inbox(), Receiver()
    async with served(outside.app()) as url, served(receiver.app()) as hooks, smtp_server(inbox) as smtp_port:
        settings = {
            "TEXT_MODEL_URL": f"{url}/v1", "SMTP_PORT": str(smtp_port), "EXPORT_DIRECTORY": str(tmp_path / "exports"), "MAIL_TIMEOUT": "5",
            "MAIL_FROM": "Studio <studio@advert.example>", "WEBHOOK_SECRET": "hook-secret", "WEBHOOK_TIMEOUT": "1", "TEXT_MODEL_TIMEOUT": "5",
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        async with Harness(app, start=datetime.now(UTC), patience=60) as h:
            yield Studio(h, outside, inbox, receiver, f"{hooks}/hooks", tmp_path / "exports")


# -- C1: test/hello.world --------------------------------------------------------------------------------------------


async def test_c1_hello_world_greets_through_a_step_and_logs(studio):
    run = await studio.h.run(hello_world, HelloWorld(name="Ada"))
    assert run.output == run.step("greet").result == "Hello, Ada!"
    assert [(log.level, log.message) for log in run.logs] == [("info", "Hello, Ada!")]


async def test_c1_hello_world_by_its_event_alone(studio):
    await studio.h.send({"name": "test/hello.world", "data": {}})
    (run,) = await studio.h.runs(hello_world)
    assert run.output == "Hello, world!"


@pytest.mark.parametrize("data", [{"name": ""}, {"name": 5}, {"name": "Ada", "age": 5}])
async def test_c1_hello_world_refuses_what_is_no_name(studio, data):
    with pytest.raises(EventInvalidError, match="name|age"):
        await studio.h.send({"name": "test/hello.world", "data": data})
    assert await studio.h.runs() == []


# -- C1: email/send --------------------------------------------------------------------------------------------------


async def test_c1_an_email_is_really_sent(studio):
    run = await studio.h.run(send_email, MAIL)
    (mail,) = studio.inbox.mails
    assert (mail.recipients, mail.subject, mail.text.strip()) == ([ADA], "Your draft", "It is ready.")
    assert "<b>ready</b>" in mail.html
    assert (run.output.to, run.output.message_id) == (ADA, mail.message_id)
    assert mail.message_id == f"<{run.id}@advert.example>"


async def test_c1_email_a_server_that_is_busy_gets_it_later(studio):
    studio.inbox.refusal = BUSY
    run = await studio.h.start(send_email, MAIL)
    assert run.step("send").failed_attempts[0].error.message.endswith(f"refused: {ADA}: {BUSY}")
    studio.inbox.refusal = None
    assert (await studio.h.finish(run)).status == "COMPLETED"
    assert len(studio.inbox.mails) == 1


async def test_c1_email_an_address_that_does_not_exist_fails_at_once(studio):
    studio.inbox.rejected[ADA] = UNKNOWN
    run = await studio.h.run(send_email, MAIL)
    assert (run.status, len(run.step("send").failed_attempts)) == ("FAILED", 1)
    assert "there is no such mailbox" in run.error.message


async def test_c1_email_a_server_that_is_down_is_a_dead_letter(studio, monkeypatch):
    monkeypatch.setenv("SMTP_PORT", str(free_port()))
    await studio.h.restart()
    run = await studio.h.run(send_email, MAIL)
    assert (run.status, len(run.step("send").failed_attempts)) == ("FAILED", 5)
    assert "mail server 127.0.0.1" in run.error.message


@pytest.mark.parametrize("field", ["to", "subject"])
async def test_c1_email_headers_can_not_be_smuggled_in(studio, field):
    data = {"to": ADA, "subject": "Hello", "text": "x"} | {field: "x@y\r\nBcc: all@example.test"}
    with pytest.raises(EventInvalidError, match=field):
        await studio.h.send({"name": "email/send", "data": data})


# -- C2: strategy/generate -------------------------------------------------------------------------------------------


async def test_c2_a_strategy_is_written(studio):
    run = await studio.h.run(generate_strategy, BRIEF)
    assert run.output.text.startswith("Strategy: Product: Cold brew")
    (request,) = studio.outside.model.requests
    assert request["messages"][1]["content"] == "Product: Cold brew\nAudience: students\nGoal: 200 subscriptions"


async def test_c2_strategy_a_model_that_is_out_of_order_is_asked_three_times(studio):
    studio.outside.model.failures = [503, 500]
    run = await studio.h.run(generate_strategy, BRIEF)
    assert (run.status, len(run.step("write").failed_attempts)) == ("COMPLETED", 2)
    studio.outside.model.failures = [503, 500, 502, 500]
    run = await studio.h.run(generate_strategy, BRIEF)
    attempts = run.step("write").failed_attempts
    assert (run.status, len(attempts)) == ("FAILED", 3)
    first, second = [(attempt.retry_at - attempt.started_at).total_seconds() for attempt in attempts[:2]]
    assert first <= 0.5
    assert second <= 1


async def test_c2_strategy_a_wrong_key_fails_at_once_and_is_nowhere_to_be_read(studio, monkeypatch, caplog):
    monkeypatch.setenv("TEXT_MODEL_KEY", "canary-key")
    await studio.h.restart()
    run = await studio.h.run(generate_strategy, BRIEF)
    assert (run.status, len(run.step("write").failed_attempts)) == ("FAILED", 1)
    assert "the text model answered 401" in run.error.message
    assert "canary-key" not in repr(run) + caplog.text


async def test_c2_strategy_an_answer_without_a_text_is_asked_for_again(studio):
    studio.outside.model.answers = ["  ", "", "At last"]
    run = await studio.h.run(generate_strategy, BRIEF)
    assert run.output.text == "At last"
    assert run.step("write").failed_attempts[0].error.message == "the text model answered without a text"


async def test_c2_strategy_a_model_that_can_not_be_reached(studio, monkeypatch):
    monkeypatch.setenv("TEXT_MODEL_URL", f"http://127.0.0.1:{free_port()}/v1")
    await studio.h.restart()
    run = await studio.h.run(generate_strategy, BRIEF)
    assert (run.status, run.error.message) == ("FAILED", "the text model can't be reached: ConnectError")


# -- C2: export/pdf --------------------------------------------------------------------------------------------------


def read(path: Path) -> str:
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages)


async def test_c2_a_pdf_is_written_and_can_be_read_back(studio):
    run = await studio.h.run(export_pdf, DOCUMENT)
    path = studio.exports / run.output.file
    text = read(path)
    for words in ("Campaign: Crème brûlée", "Why", "Because 5 £ is fair.", "How"):
        assert words in text
    assert text.count("Word after word.") > 700
    assert (run.output.pages, run.output.bytes) == (len(pypdf.PdfReader(path).pages), path.stat().st_size)
    assert run.output.pages > 2
    assert pypdf.PdfReader(path).metadata.title == DOCUMENT.title


async def test_c2_pdf_a_character_that_the_font_lacks_fails_at_once_by_name(studio):
    run = await studio.h.run(export_pdf, ExportPdf(title="Qahwa قهوة", sections=[{"heading": "One"}]))
    assert (run.status, len(run.step("render").failed_attempts)) == ("FAILED", 1)
    assert run.error.message == "the character 'ق' is not in the font; name one that has it in PDF_FONT"
    assert not studio.exports.exists()


async def test_c2_pdf_a_directory_that_can_not_be_written_to_is_tried_again(studio):
    studio.exports.write_text("a file where the directory should be")
    run = await studio.h.start(export_pdf, DOCUMENT)
    assert "File exists" in run.step("render").failed_attempts[0].error.message
    studio.exports.unlink()
    assert (await studio.h.finish(run)).status == "COMPLETED"
    assert os.listdir(studio.exports) == [f"{run.id}.pdf"]


async def test_c2_pdf_what_a_process_left_that_died_while_it_wrote_is_removed(studio):
    studio.exports.mkdir()
    exporter = Exporter(studio.exports)
    for name in ("run-1.4711.draft", "run-2.4711.draft"):
        (studio.exports / name).write_bytes(b"%PDF-1.3 half")
    exporter.export(DOCUMENT, "run-1")
    assert sorted(os.listdir(studio.exports)) == ["run-1.pdf", "run-2.4711.draft"]


async def test_c2_pdf_an_export_that_failed_for_good_leaves_nothing(studio):
    studio.exports.mkdir()
    for name in ("run-1.4711.draft", "run-1.pdf", "run-2.4711.draft", "run-2.pdf"):
        (studio.exports / name).write_bytes(b"%PDF-1.3 half")
    Exporter(studio.exports).discard("run-1")
    assert sorted(os.listdir(studio.exports)) == ["run-2.4711.draft", "run-2.pdf"]
    Exporter(studio.exports).discard("run-1")

    failed = await studio.h.run(export_pdf, ExportPdf(title="日", sections=DOCUMENT.sections))
    (handler,) = [run for run in await studio.h.runs() if run.id != failed.id]
    assert (failed.status, handler.status, [step.id for step in handler.steps]) == ("FAILED", "COMPLETED", ["discard"])


@pytest.mark.parametrize("data", [{"title": "x", "sections": []}, {"title": " ", "sections": [{"heading": "x"}]}, {"title": "x", "sections": [{"text": "x"}]}])
async def test_c2_pdf_an_empty_document_is_refused(studio, data):
    with pytest.raises(EventInvalidError, match="title|sections"):
        await studio.h.send({"name": "export/pdf", "data": data})


async def test_c2_pdf_another_font_has_other_letters(studio, tmp_path, monkeypatch):
    builder = FontBuilder(1000, isTTF=True)
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((500, 0)), pen.lineTo((500, 700)), pen.closePath()
    shape = pen.glyph()
    letters = "TheOnق"
    names = [".notdef", "space", *(f"uni{ord(c):04X}" for c in letters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({32: "space", **{ord(c): f"uni{ord(c):04X}" for c in letters}})
    builder.setupGlyf(dict.fromkeys(names, shape))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(tmp_path / "test.ttf")
    monkeypatch.setenv("PDF_FONT", str(tmp_path / "test.ttf"))
    await studio.h.restart()
    run = await studio.h.run(export_pdf, ExportPdf(title="The ق", sections=[{"heading": "One"}]))
    assert run.status == "COMPLETED", run.error
    assert "ق" in read(studio.exports / run.output.file)
    lacking = await studio.h.run(export_pdf, ExportPdf(title="The z", sections=[{"heading": "One"}]))
    assert lacking.error.message.startswith("the character 'z' is not in the font")


# -- C2: webhook/deliver ---------------------------------------------------------------------------------------------


async def test_c2_a_webhook_is_delivered_signed(studio):
    run = await studio.h.run(deliver_webhook, studio.webhook())
    (arrived,) = studio.receiver.arrived
    timestamp, signature = (part.partition("=")[2] for part in arrived.headers["x-studio-signature"].split(","))
    expected = hmac.new(b"hook-secret", f"{timestamp}.".encode() + arrived.body, hashlib.sha256).hexdigest()
    assert signature == expected
    body = json.loads(arrived.body)
    assert (body["event"], body["payload"], body["id"]) == ("strategy.ready", {"number": 5, "ü": "ß"}, run.id)
    assert arrived.headers["x-studio-delivery"] == run.id
    assert run.output.status == 200


async def test_c2_webhook_a_receiver_that_stays_down_is_a_dead_letter_after_growing_delays(studio):
    studio.receiver.down = True
    run = await studio.h.run(deliver_webhook, studio.webhook())
    attempts = run.step("deliver").failed_attempts
    assert (run.status, len(attempts)) == ("FAILED", 8)
    assert run.error.message == f"{studio.hooks} answered 503"
    waits = [(attempt.retry_at - attempt.started_at).total_seconds() for attempt in attempts[:-1]]
    assert all(wait <= bound for wait, bound in zip(waits, (2, 8, 32, 128, 512, 2048, 3600), strict=True))
    # each attempt is the same report, so that the receiver can tell
    assert len({(arrived.body, arrived.headers["x-studio-signature"]) for arrived in studio.receiver.arrived}) == 1
    studio.receiver.down = False
    redriven = await studio.h.redrive(run)
    assert (await studio.h.finish(redriven)).status == "COMPLETED"


async def test_c2_webhook_a_receiver_that_refuses_is_not_asked_again(studio):
    studio.receiver.failures = [410]
    run = await studio.h.run(deliver_webhook, studio.webhook())
    assert (run.status, len(studio.receiver.arrived)) == ("FAILED", 1)
    assert run.error.message == f"{studio.hooks} answered 410; it does not want this report"


async def test_c2_webhook_a_slow_receiver_and_one_that_says_when(studio):
    studio.receiver.seconds = 1.5
    run = await studio.h.start(deliver_webhook, studio.webhook())
    assert "did not answer within 1 s" in run.step("deliver").failed_attempts[0].error.message
    studio.receiver.seconds, studio.receiver.failures, studio.receiver.retry_after = 0, [429], 30
    finished = await studio.h.finish(run)
    second = finished.step("deliver").failed_attempts[1]
    assert (second.retry_at - second.started_at).total_seconds() == pytest.approx(30, abs=0.01)
    assert finished.status == "COMPLETED"


async def test_c2_webhook_in_production_only_https(studio, monkeypatch):
    import httpx

    from examples.studio.delivering import Deliverer, Delivery
    from holdfast import NonRetriableError

    async with httpx.AsyncClient() as client:
        deliverer = Deliverer(client, "secret", 1, only_https=True)
        with pytest.raises(NonRetriableError, match="is not https"):
            await deliverer.deliver(Delivery(studio.hooks, "1", "x", datetime.now(UTC), {}))
    assert studio.receiver.arrived == []


async def test_c2_many_at_once(studio):
    await asyncio.gather(*(studio.h.send(studio.webhook(payload={"n": n})) for n in range(20)))
    await studio.h.settle(within="1m")
    assert sorted(json.loads(arrived.body)["payload"]["n"] for arrived in studio.receiver.arrived) == list(range(20))
