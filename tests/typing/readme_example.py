import asyncio
from datetime import timedelta
from holdfast import App, Context, Event, NonRetriableError

app = App("shop")

class OrderPaid(Event, name="shop/order.paid"):          # a pydantic model
    order_id: str
    amount: int

class OrderShipped(Event, name="shop/order.shipped"):
    order_id: str

class ReceiptWanted(Event, name="shop/receipt.wanted"):
    order_id: str

async def charge_card(order_id: str, amount: int) -> str:
    if amount <= 0:
        raise NonRetriableError("nothing to charge")
    return f"charge-{order_id}"

def pack(order_id: str) -> int:                          # sync code is fine
    return len(order_id)

@app.function(ReceiptWanted)
async def make_receipt(ctx: Context[ReceiptWanted]) -> str:
    return f"receipt for {ctx.event.data.order_id}"

@app.function(OrderPaid, retries=3)
async def fulfil(ctx: Context[OrderPaid]) -> str:
    order = ctx.event.data
    charge, parcel = await asyncio.gather(               # parallel steps are plain asyncio
        ctx.step.run("charge", charge_card, order.order_id, order.amount),
        ctx.step.run("pack", pack, order.order_id),
    )
    await ctx.step.sleep("cool-off", timedelta(seconds=1))
    shipped = await ctx.step.wait_for_event(
        "shipped", OrderShipped, where={"order_id": order.order_id}, timeout=timedelta(days=7)
    )
    if shipped is None:
        return "never shipped"
    return await ctx.step.invoke("receipt", make_receipt, ReceiptWanted(order_id=order.order_id))

async def main() -> None:
    async with app.running(store="sqlite:///shop.db"):
        await app.send(OrderPaid(order_id="o1", amount=5), id="payment-123")   # returns when it is on disk
        await app.send(OrderShipped(order_id="o1"))

if __name__ == "__main__":
    asyncio.run(main())
