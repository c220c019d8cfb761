"""The studio in the demo: one job of each kind, a model that is out of order, receivers that refuse, and a kill."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass, field
from typing import Any

import pypdf

from .expectations import Row
from .inbox import Inbox
from .neighbours import Neighbour
from .processes import ROOT
from .receiver import Receiver
from .waiting import until

SECRET = "whsec_studio_demo"  # noqa: S105 - for reports to ourselves
TESTS = ROOT / "examples" / "studio" / "tests" / "test_inngest.py"
DOCUMENT = {"title": "Autumn campaign", "sections": [{"heading": "Why", "text": "Because it is cold."}]}


@dataclass
class StudioScene:
    """What is asked of the studio."""

    app: Neighbour
    inbox: Inbox
    receiver: Receiver
    hooks: str
    jobs: dict[str, str] = field(default_factory=dict)

    async def play(self) -> None:
        """Everything, one after the other."""
        await self.app.play("one job of each kind", self._all_kinds)
        await self.app.play("a receiver that refuses for good", self._refused)
        await self.app.play("kill -9 during a delivery", self._kill)

    async def trickle(self, number: int) -> None:
        """A little of it."""
        await self._begin(f"trickle-{number}", "/api/hello", {"name": f"visitor {number}"})

    async def rows(self) -> list[Row]:
        """What should have come of it."""
        row = self.app.row
        return [
            await row("C1", "a greeting", "jobs JSON", "Hello, Ada!", self._greeting),
            await row("C1", "an e-mail is really sent", "inbox", "1 mail to ada@studio.test", self._mailed),
            await row("C2", "a model that fails twice", "jobs JSON, API", "COMPLETED after 2 failures", self._strategy),
            await row("C2", "a PDF can be read back", "download", "1 page with its title and text", self._pdf),
            await row("C2", "a webhook is signed", "receiver", "signature fits", self._signed),
            await row("C2", "a receiver that answers 410", "API", "1 dead letter after 1 attempt", self._dead),
            await row("C2", "kill -9 during a delivery", "receiver", "COMPLETED, 2 copies with one id", self._killed),
            await row("C3", "its own tests, in four groups", "pytest", "4 groups pass, 18 tests or more", self._tests),
            await self.app.played("C"),
        ]

    # -- scenes ------------------------------------------------------------------------------------------------------

    async def _begin(self, name: str, path: str, body: dict[str, Any]) -> None:
        answer = await self.app.client.post(path, json=body)
        answer.raise_for_status()
        self.jobs[name] = answer.json()["jobId"]

    async def _job(self, name: str) -> dict[str, Any]:
        answer = await self.app.client.get(f"/api/jobs/{self.jobs[name]}")
        answer.raise_for_status()
        job: dict[str, Any] = answer.json()
        return job

    async def _ended(self, name: str) -> bool:
        async def over() -> bool:
            return (await self._job(name))["status"] in {"COMPLETED", "FAILED"}

        return await until(over, 30, every=0.2)

    async def _all_kinds(self) -> None:
        self.app.outside.model.failures = [503, 500]
        await self._begin("strategy", "/api/strategies", {"product": "Cold brew", "audience": "students"})
        await self._ended("strategy")
        await self._begin("hello", "/api/hello", {"name": "Ada"})
        await self._begin("email", "/api/emails", {"to": "ada@studio.test", "subject": "Draft", "text": "Ready."})
        await self._begin("pdf", "/api/exports", DOCUMENT)
        await self._begin("hook", "/api/deliveries", {"url": self.hooks, "event": "ready", "payload": {"n": 1}})
        for name in ("hello", "email", "pdf", "hook"):
            await self._ended(name)

    async def _refused(self) -> None:
        self.receiver.failures = [410]
        await self._begin("refused", "/api/deliveries", {"url": self.hooks, "event": "ready", "payload": {"n": 2}})
        await self._ended("refused")

    async def _kill(self) -> None:
        self.receiver.seconds = 5
        arrived = len(self.receiver.arrived)
        await self._begin("killed", "/api/deliveries", {"url": self.hooks, "event": "ready", "payload": {"n": 3}})
        await until(lambda: len(self.receiver.arrived) > arrived, 10)
        await self.app.process.kill()
        self.receiver.seconds = 0
        await self.app.process.start()
        await self._ended("killed")

    # -- what came of them -------------------------------------------------------------------------------------------

    async def _tests(self) -> str:
        command = (sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--no-header", str(TESTS))
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=STDOUT)
        output = (await process.communicate())[0].decode(errors="replace")
        passed = re.findall(r"^PASSED .*::(Test\w+)::", output, re.MULTILINE)
        if process.returncode:
            return f"pytest ended with {process.returncode}: {output.strip().splitlines()[-1]}"
        return f"{len(set(passed))} groups pass, {'18 tests or more' if len(passed) >= 18 else f'{len(passed)} tests'}"

    async def _greeting(self) -> str:
        return str((await self._job("hello"))["output"])

    async def _mailed(self) -> str:
        mails = [mail for mail in self.inbox.mails if mail.recipients == ["ada@studio.test"]]
        return f"{len(mails)} mail to ada@studio.test"

    async def _strategy(self) -> str:
        job = await self._job("strategy")
        history = await self.app.api.history(self.jobs["strategy"])
        return f"{job['status']} after {history['steps'][0]['failed_attempts']} failures"

    async def _pdf(self) -> str:
        answer = await self.app.client.get(f"/api/exports/{self.jobs['pdf']}.pdf")
        answer.raise_for_status()
        pages = pypdf.PdfReader(io.BytesIO(answer.content)).pages
        text = "".join(page.extract_text() for page in pages)
        whole = "Autumn campaign" in text and "Because it is cold." in text
        return f"{len(pages)} page with{'' if whole else 'out'} its title and text"

    async def _signed(self) -> str:
        arrived = next(a for a in self.receiver.arrived if a.headers["x-studio-delivery"] == self.jobs["hook"])
        moment, given = (part.partition("=")[2] for part in arrived.headers["x-studio-signature"].split(","))
        wanted = hmac.new(SECRET.encode(), f"{moment}.".encode() + arrived.body, hashlib.sha256).hexdigest()
        return "signature fits" if hmac.compare_digest(given, wanted) else "signature does not fit"

    async def _dead(self) -> str:
        letters = [one for one in await self.app.api.dead_letters("dead") if one["run_id"] == self.jobs["refused"]]
        history = await self.app.api.history(self.jobs["refused"])
        (step,) = [step for step in history["steps"] if step["id"] == "deliver"]
        return f"{len(letters)} dead letter after {len(step['attempts'])} attempt"

    async def _killed(self) -> str:
        job = await self._job("killed")
        copies = [a for a in self.receiver.arrived if a.headers["x-studio-delivery"] == self.jobs["killed"]]
        return f"{job['status']}, {len(copies)} copies with one id"
