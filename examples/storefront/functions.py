"""The durable functions. A finished step is on disk and is not run again, whatever happens to the steps after it."""

from __future__ import annotations

from datetime import timedelta

from holdfast import Backoff, Context, NonRetriableError

from . import rendering
from .client import app
from .delivery import Delivery
from .events import PurchaseConfirmation, RefundNotification, Welcome
from .orders import OrderNotFoundError, PlacedOrder
from .resources import Shop

BACKOFF = Backoff.exponential(base=timedelta(seconds=1), factor=2, jitter="none")
"""2^n seconds after failed try n, counted from 0."""


@app.function(PurchaseConfirmation, retries=3, backoff=BACKOFF)
async def send_purchase_confirmation(ctx: Context[PurchaseConfirmation]) -> Delivery:
    """Confirm a paid order by e-mail, then mark it fulfilled."""
    event = ctx.event.data
    shop: Shop = ctx.resources
    order = await ctx.step.run("fetch-order", fetch_order, shop, event.order_id)
    delivery = await ctx.step.run("send-email", send_confirmation, shop, order, event.customer_email, ctx.run_id)
    await ctx.step.run("mark-fulfilled", shop.orders.mark_fulfilled, order.id)
    return delivery


@app.function(RefundNotification, retries=2, backoff=BACKOFF)
async def send_refund_notification(ctx: Context[RefundNotification]) -> Delivery:
    """Tell the customer of a refund, then mark the order refunded."""
    event = ctx.event.data
    shop: Shop = ctx.resources
    order = await ctx.step.run("fetch-order", fetch_order, shop, event.order_id)
    delivery = await ctx.step.run(
        "send-email", send_refund, shop, order, event.customer_email, event.refund_reason, ctx.run_id
    )
    await ctx.step.run("mark-refunded", shop.orders.mark_refunded, order.id)
    return delivery


@app.function(Welcome, retries=1, backoff=BACKOFF)
async def send_welcome_email(ctx: Context[Welcome]) -> Delivery:
    """Greet a new user."""
    return await ctx.step.run("send-email", send_welcome, ctx.resources, ctx.event.data, ctx.run_id)


async def fetch_order(shop: Shop, order_id: str) -> PlacedOrder:
    try:
        return await shop.orders.fetch(order_id)
    except OrderNotFoundError as error:
        raise NonRetriableError(f"{error}; trying again can't change that") from error


async def send_confirmation(shop: Shop, order: PlacedOrder, recipient: str, run_id: str) -> Delivery:
    return await shop.postbox.send(rendering.purchase_confirmation(order, recipient, shop.mail_domain), run_id)


async def send_refund(shop: Shop, order: PlacedOrder, recipient: str, reason: str | None, run_id: str) -> Delivery:
    return await shop.postbox.send(rendering.refund_notification(order, recipient, reason, shop.mail_domain), run_id)


async def send_welcome(shop: Shop, event: Welcome, run_id: str) -> Delivery:
    return await shop.postbox.send(rendering.welcome(event.user_id, event.email, event.name, shop.mail_domain), run_id)


functions = [send_purchase_confirmation, send_refund_notification, send_welcome_email]
