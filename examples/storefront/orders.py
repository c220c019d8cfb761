"""Orders and users: what the shop writes down, and the updates that the durable functions make."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import case, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload

from .database import Sessions
from .models import Order, OrderItem, User

PRODUCTS = {
    "mug": ("Mug, speckled", 1450),
    "poster": ("Poster, 50 x 70", 2900),
    "notebook": ("Notebook, dotted", 990),
}
"""What the shop sells: sku to name and price in cents."""


class OrderNotFoundError(Exception):
    """There is no such order."""


@dataclass(frozen=True)
class PlacedItem:
    """A line of an order."""

    name: str
    quantity: int
    unit_price: int

    @property
    def total(self) -> int:
        return self.quantity * self.unit_price


@dataclass(frozen=True)
class PlacedOrder:
    """An order with its items, as an e-mail needs it."""

    id: str
    currency: str
    items: list[PlacedItem]

    @property
    def total(self) -> int:
        return sum(item.total for item in self.items)


class Orders:
    """The tables `orders`, `order_items` and `users`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def place(self, customer_email: str, quantities: Sequence[tuple[str, int]]) -> PlacedOrder:
        """Write a new order down, unpaid.

        Args:
            customer_email: Who ordered.
            quantities: Each product's sku and how many of it.

        Raises:
            KeyError: there is no such product.
        """
        lines = [(sku, *PRODUCTS[sku], quantity) for sku, quantity in quantities]
        order = Order(
            id=f"order_{secrets.token_hex(8)}",
            customer_email=customer_email,
            currency="EUR",
            created_at=datetime.now(UTC),
            items=[
                OrderItem(sku=sku, name=name, unit_price=price, quantity=quantity)
                for sku, name, price, quantity in lines
            ],
        )
        async with self._sessions.begin() as session:
            session.add(order)
        return _placed(order)

    async def fetch(self, order_id: str) -> PlacedOrder:
        """An order with its items.

        Raises:
            OrderNotFoundError: there is none.
        """
        return _placed(await self.row(order_id))

    async def row(self, order_id: str) -> Order:
        """An order as its row, items loaded.

        Raises:
            OrderNotFoundError: there is none.
        """
        async with self._sessions() as session:
            order = await session.scalar(select(Order).where(Order.id == order_id).options(selectinload(Order.items)))
        if order is None:
            raise OrderNotFoundError(f"there is no order {order_id!r}")
        return order

    async def mark_fulfilled(self, order_id: str) -> bool:
        """Note that the confirmation was sent; False when that had been noted before.

        The first time stays, and an order that was refunded meanwhile stays refunded.
        """
        status = case((Order.status == "pending", "fulfilled"), else_=Order.status)
        changes = update(Order).where(Order.id == order_id, Order.fulfilled_at.is_(None))
        async with self._sessions.begin() as session:
            done = await session.execute(
                changes.values(fulfilled_at=datetime.now(UTC), status=status).returning(Order.id)
            )
            return done.first() is not None

    async def mark_refunded(self, order_id: str) -> bool:
        """Note that the order was refunded; False when that had been noted before."""
        changes = update(Order).where(Order.id == order_id, Order.refunded_at.is_(None))
        async with self._sessions.begin() as session:
            done = await session.execute(
                changes.values(refunded_at=datetime.now(UTC), status="refunded").returning(Order.id)
            )
            return done.first() is not None

    async def sign_up(self, email: str, name: str | None) -> User:
        """The user of an address: a new one, or the one there is."""
        try:
            async with self._sessions.begin() as session:
                user = User(id=f"user_{secrets.token_hex(8)}", email=email, name=name, created_at=datetime.now(UTC))
                session.add(user)
            return user
        except IntegrityError:
            async with self._sessions() as session:
                return (await session.scalars(select(User).where(User.email == email))).one()


def _placed(order: Order) -> PlacedOrder:
    items = [PlacedItem(item.name, item.quantity, item.unit_price) for item in order.items]
    return PlacedOrder(order.id, order.currency, items)
