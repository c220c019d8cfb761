"""The studio's callers, and what must be true of what they asked for in the end."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

from fault_siege import insist
from fault_world import WEBHOOK_SECRET, World
from pypdf import PdfReader

from examples.studio.delivering import sign

EVENTS = {
    "/api/hello": "test/hello.world", "/api/emails": "email/send", "/api/strategies": "strategy/generate",
    "/api/exports": "export/pdf", "/api/deliveries": "webhook/deliver",
}  # fmt: skip


class StudioSiege:
    """People who ask for greetings, e-mails, strategies, documents and deliveries. What gets no answer is asked for again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.jobs: dict[str, tuple[str, str]] = {}
        """What was accepted: by the job's or the event's id, what it was and its number."""
        self.asked: Counter[str] = Counter()
        """How often each was sent; a request that got no answer may have been accepted too."""
        self.kills = 0
        self._count = 0
        world.receiver.failures = [503, 500]

    async def act(self, customer: int) -> None:
        self._count += 1
        path, number = self.world.chosen.choice(sorted(EVENTS)), f"no-{customer}-{self._count}"
        body = self._body(path, number)
        if self.world.over_http:
            self.asked[number] = 1  # an id is accepted once
            await self.world.server.send(EVENTS[path], f"job-{number}", body)
            self.jobs[f"job-{number}"] = (path, number)
            return

        def ask() -> Any:
            self.asked[number] += 1
            return self.world.client.post(path, json=body)

        self.jobs[(await insist(ask))["jobId"]] = (path, number)

    def _body(self, path: str, number: str) -> dict[str, Any]:
        return {
            "/api/hello": {"name": number},
            "/api/emails": {"to": f"{number}@example.test", "subject": number, "text": "It is ready."},
            "/api/strategies": {"product": number},
            "/api/exports": {"title": number, "sections": [{"heading": "One", "text": f"{number} in words. " * 40}]},
            "/api/deliveries": {"url": self.world.hooks, "event": "done", "payload": {"number": number}},
        }[path]

    # -- what must be true -----------------------------------------------------------------------------------------------

    async def settled(self) -> bool:
        return not await self.world.unfinished()

    async def broken(self) -> list[str]:
        problems: list[str] = []
        runs = await self.world.server.all("/v1/runs")
        for job, (path, number) in self.jobs.items():
            mine = [run for run in runs if run["run_id"] == job] if not self.world.over_http else await self.world.server.all("/v1/runs", event_id=job)
            done = [run for run in mine if run["status"] == "Completed"]
            if len(done) != 1:
                problems.append(f"{path} {number} should have completed once: {mine}")
            else:
                problems += await self._job(path, number, (await self.world.server.run(done[0]["run_id"])))
        return problems + self._unasked({run["run_id"] for run in runs}) + self._left_over()

    async def _job(self, path: str, number: str, run: dict[str, Any]) -> list[str]:
        output, run_id = run["output"], run["run_id"]
        if path == "/api/hello":
            return [] if output == f"Hello, {number}!" else [f"{number}: {output}"]
        if path == "/api/strategies":
            return [] if output["text"].startswith(f"Strategy: Product: {number}") else [f"{number}: {output}"]
        if path == "/api/exports":
            return self._document(number, (self.world.folder / "exports" / output["file"]).read_bytes(), output)
        if path == "/api/emails":
            mails = [mail for mail in self.world.inbox.mails if mail.message_id == f"<{run_id}@localhost>"]
            right = mails and all(mail.recipients == [f"{number}@example.test"] and mail.subject == number for mail in mails)
            return [] if right else [f"{number}: its e-mails are {mails}"]
        return self._delivered(number, run_id)

    def _document(self, number: str, content: bytes, output: dict[str, Any]) -> list[str]:
        text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
        whole = text.count(number) == 41 and len(content) == output["bytes"]
        return [] if whole else [f"{number}: the document has {len(content)} bytes, recorded were {output}; its text: {text[:100]}"]

    def _delivered(self, number: str, run_id: str) -> list[str]:
        arrived = [one for one in self.world.receiver.arrived if one.headers["x-studio-delivery"] == run_id]
        if not arrived:
            return [f"{number} was never delivered"]
        body, problems = json.loads(arrived[0].body), []
        if len({(one.body, one.headers["x-studio-signature"]) for one in arrived}) != 1:
            problems.append(f"{number}: its deliveries differ: {arrived}")
        moment = int(arrived[0].headers["x-studio-signature"].partition(",")[0].removeprefix("t="))
        if arrived[0].headers["x-studio-signature"] != sign(arrived[0].body, WEBHOOK_SECRET, moment):
            problems.append(f"{number}: the signature is wrong")
        if body["payload"] != {"number": number} or body["id"] != run_id:
            problems.append(f"{number}: wrong content: {body}")
        return problems

    def _unasked(self, runs: set[str]) -> list[str]:
        """Nothing is done more often than a kill can be the reason, and nothing that nobody asked for."""
        problems = []
        for what, seen in (
            ("e-mails", Counter(mail.subject for mail in self.world.inbox.mails)),
            ("deliveries", Counter(json.loads(one.body)["payload"]["number"] for one in self.world.receiver.arrived)),
        ):
            refused = 2 if what == "deliveries" else 0
            problems += [f"{count} {what} of {n}" for n, count in seen.items() if count > self.asked[n] + self.kills + refused]
        strangers = {one.headers["x-studio-delivery"] for one in self.world.receiver.arrived} - runs
        return problems + [f"a delivery of no run: {one}" for one in strangers]

    def _left_over(self) -> list[str]:
        folder = self.world.folder / "exports"
        return [f"left behind: {path.name}" for path in folder.glob("*") if path.suffix != ".pdf"] if folder.is_dir() else []
