"""The durable functions. Each does its work in a step, which is tried again as long as that makes sense."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from holdfast import Backoff, Context, Function, FunctionFailed, RetryPresets

from .client import app
from .delivering import Delivered, Delivery
from .events import EmailSend, ExportPdf, HelloWorld, StrategyGenerate, WebhookDeliver
from .exporting import Exported
from .mail import Mail, MailSent
from .resources import Studio
from .strategy import Strategy, write_strategy

DELIVERY = Backoff.exponential(base=timedelta(seconds=2), factor=4, cap=timedelta(hours=1), attempts=8)
"""For receivers of webhooks: 2 s, 8 s, 32 s, then minutes and an hour, each at random between nothing and that."""


@app.function(HelloWorld)
async def hello_world(ctx: Context[HelloWorld]) -> str:
    """Greet. What it logs is on the run's page."""
    greeting = await ctx.step.run("greet", greet, ctx.event.data.name)
    ctx.logger.info(greeting)
    return greeting


def greet(name: str) -> str:
    return f"Hello, {name}!"


@app.function(EmailSend, retries=4, backoff=Backoff.exponential(base=timedelta(seconds=2), cap=timedelta(minutes=5)))
async def send_email(ctx: Context[EmailSend]) -> MailSent:
    """Send an e-mail. Its Message-ID belongs to the run, so that a mailbox can tell a repetition."""
    studio: Studio = ctx.resources
    wanted = ctx.event.data
    mail = Mail(to=wanted.to, subject=wanted.subject, text=wanted.text, html=wanted.html, key=ctx.run_id)
    return await ctx.step.run("send", studio.mailer.send, mail)


@app.function(StrategyGenerate, retries=RetryPresets.ai_api)
async def generate_strategy(ctx: Context[StrategyGenerate]) -> Strategy:
    """Have a text model write a marketing strategy."""
    studio: Studio = ctx.resources
    ctx.progress(None, "Asking the text model")
    return await ctx.step.run("write", write_strategy, studio.model, ctx.event.data)


async def export_failed(ctx: Context[FunctionFailed]) -> None:
    """Leave nothing behind. A redriven export is another run, with a file of its own."""
    studio: Studio = ctx.resources
    await ctx.step.run("discard", studio.exporter.discard, ctx.event.data.run_id)


@app.function(ExportPdf, retries=3, backoff=Backoff.exponential(base=timedelta(seconds=1)), on_failure=export_failed)
async def export_pdf(ctx: Context[ExportPdf]) -> Exported:
    """Write a document as PDF. The file belongs to the run: written again, it is the same one."""
    studio: Studio = ctx.resources
    return await ctx.step.run("render", studio.exporter.export, ctx.event.data, ctx.run_id, ctx.progress)


@app.function(WebhookDeliver, retries=DELIVERY)
async def deliver_webhook(ctx: Context[WebhookDeliver]) -> Delivered:
    """Report something to another system, signed, until it has taken it. One that stays down is a dead letter."""
    studio: Studio = ctx.resources
    wanted = ctx.event.data
    # fixed by the first attempt, so that a repetition is byte for byte the same report
    at = await ctx.now()
    delivery = Delivery(wanted.url, ctx.run_id, wanted.event, at, wanted.payload)
    ctx.progress(None, "Waiting for the receiver to take it")
    return await ctx.step.run("deliver", studio.deliverer.deliver, delivery)


functions: list[Function[Any, Any]] = [hello_world, send_email, generate_strategy, export_pdf, deliver_webhook]
