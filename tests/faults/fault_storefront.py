"""The storefront's customers and its payment provider, and what must be true of orders and e-mails in the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fault_siege import insist
from fault_world import World

from examples.storefront.delivery import DIED
from examples.storefront.webhook import sign

SECRET = "whsec_development"
SLOW = "did not finish within"
"""What the log says when the whole machine was too slow: whether the mail was taken is not known then either."""
FUNCTIONS = {"paid": "riqle-send-purchase-confirmation", "refunded": "riqle-send-refund-notification", "welcome": "riqle-send-welcome-email"}


@dataclass
class Bought:
    """An order, as its customer knows it."""

    id: str
    email: str
    total: str


class StorefrontSiege:
    """Orders that are paid, some refunded, and people who sign up. Whatever gets no answer is done again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.paid: dict[str, Bought] = {}
        self.refunded: dict[str, Bought] = {}
        self.welcomed: dict[str, str] = {}
        self.accepted: dict[str, str] = {}
        """The provider's events that were accepted, each under the internal id that was answered last."""
        self._count = 0

    async def act(self, customer: int) -> None:
        self._count += 1
        name, chosen = f"{customer}-{self._count}", self.world.chosen
        if chosen.random() < 0.25:
            await self._sign_up(f"new-{name}@example.test")
            return
        order = await self._order(f"buyer-{name}@example.test")
        await self._report("paid", order, f"evt_{name}_paid")
        self.paid[order.id] = order
        if chosen.random() < 0.3:
            await self._report("paid", order, f"evt_{name}_paid")  # delivered twice
        if chosen.random() < 0.2:
            await self._report("paid", order, f"evt_{name}_again")  # one payment under two ids
        if chosen.random() < 0.3:
            await self._report("refunded", order, f"evt_{name}_refund")
            self.refunded[order.id] = order

    async def _order(self, email: str) -> Bought:
        body = {"customerEmail": email, "items": [{"sku": "mug", "quantity": self.world.chosen.randint(1, 9)}]}
        placed = await insist(lambda: self.world.client.post("/orders", json=body))
        return Bought(placed["orderId"], email, f"{placed['total'] / 100:,.2f}")

    async def _sign_up(self, email: str) -> None:
        if self.world.over_http:
            self.welcomed[f"user-{email}"] = email
            await self.world.server.send("email/welcome", f"welcome-{email}", {"userId": f"user-{email}", "email": email, "name": "Ada"})
            return
        answer = await insist(lambda: self.world.client.post("/signup", json={"email": email, "name": "Ada"}))
        self.welcomed[answer["userId"]] = email

    async def _report(self, what: str, order: Bought, event: str) -> None:
        if self.world.over_http:
            name = "email/purchase-confirmation" if what == "paid" else "email/refund-notification"
            answer = await self.world.server.send(name, event, {"orderId": order.id, "customerEmail": order.email})
            self.accepted[event] = answer["ids"][0]
            return
        subject = {"metadata": {"orderId": order.id}, "customer_details": {"email": order.email}}
        kind = "checkout.session.completed" if what == "paid" else "charge.refunded"
        payload = json.dumps({"id": event, "type": kind, "data": {"object": subject}}).encode()
        headers = {"Content-Type": "application/json", "Stripe-Signature": sign(payload, SECRET, int(time.time()))}
        answer = await insist(lambda: self.world.client.post("/webhooks/payment", content=payload, headers=headers))
        self.accepted[event] = answer["eventId"]

    # -- what must be true -----------------------------------------------------------------------------------------------

    async def settled(self) -> bool:
        return not await self.world.unfinished()

    async def broken(self) -> list[str]:
        orders, problems = self.world.database.orders(), []
        for id_, order in self.paid.items():
            row = orders.get(id_)
            wanted = "refunded" if id_ in self.refunded else "fulfilled"
            if row is None or row["status"] != wanted or not row["fulfilled_at"]:
                problems.append(f"order {id_} should be {wanted}: {row}")
            problems += self._mail("purchase-confirmation", id_, order.email, order.total)
        for id_, order in self.refunded.items():
            problems += self._mail("refund-notification", id_, order.email, order.total)
        for id_, email in self.welcomed.items():
            problems += self._mail("welcome", id_, email, "Ada")
        return problems + self._unasked() + await self._runs()

    def _mail(self, kind: str, subject: str, email: str, text: str) -> list[str]:
        """One e-mail: the log says sent once, and what is in the mailbox more often is what the log can't know."""
        rows = self.world.database.rows(
            "SELECT status, error, attempt FROM email_log WHERE kind = ? AND (order_id = ? OR user_id = ?) ORDER BY id", kind, subject, subject
        )
        found = [mail for mail in self.world.inbox.mails if mail.message_id.startswith(f"<{kind}.{_quoted(subject)}@")]
        said, where = Counter(row["status"] for row in rows), f"{kind} of {subject}"
        problems = []
        if said["sent"] != 1 or said["sent"] + said["failed"] != len(rows) or rows[-1]["status"] != "sent":
            problems.append(f"{where}: the log says {rows}")
        unknown = sum(row["error"] == DIED or SLOW in str(row["error"]) for row in rows)
        if not 1 <= len(found) <= 1 + unknown:
            problems.append(f"{where}: {len(found)} e-mails, and the log says {rows}")
        if len({(mail.message_id, mail.subject, mail.text) for mail in found}) > 1:
            problems.append(f"{where}: the copies differ: {found}")
        if any(mail.recipients != [email] or text not in mail.text for mail in found):
            problems.append(f"{where}: wrong recipient or text: {found}")
        if said["failed"] != unknown:
            problems.append(f"{where}: the mail server refused nothing, and the log says {rows}")
        return problems

    def _unasked(self) -> list[str]:
        wanted = {f"purchase-confirmation.{_quoted(id_)}" for id_ in self.paid} | {f"refund-notification.{_quoted(id_)}" for id_ in self.refunded}
        wanted |= {f"welcome.{_quoted(id_)}" for id_ in self.welcomed}
        seen = {mail.message_id.strip("<>").rpartition("@")[0] for mail in self.world.inbox.mails}
        return [f"nobody asked for {one}" for one in seen - wanted]

    async def _runs(self) -> list[str]:
        """One run for each event of the provider's, however often and whenever it was delivered."""
        runs: Counter[Any] = Counter()
        for run in await self.world.all("/v1/runs"):
            if run["origin"] == "event":
                runs[run["event_id"], run["function"]] += 1
        problems = [f"{count} runs of {what}" for what, count in runs.items() if count != 1]
        per_function = Counter(function for _, function in runs)
        wanted = {
            FUNCTIONS["paid"]: sum("refund" not in event for event in self.accepted),
            FUNCTIONS["refunded"]: sum("refund" in event for event in self.accepted),
            FUNCTIONS["welcome"]: len(self.welcomed),
        }
        return problems + [f"{per_function[f]} runs of {f}, not {n}" for f, n in wanted.items() if per_function[f] != n]


def _quoted(subject: str) -> str:
    return quote(subject, safe="")
