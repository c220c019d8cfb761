"""A8: the how-to "webhook, enqueue, durable work", executed as it is written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from examples.storefront.webhook import sign
from ports import free_port

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "webhook-enqueue-durable-work.md").read_text()


def blocks(title: str) -> str:
    found = re.findall(rf'^```python title="{re.escape(title)}"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no block for {title}"
    return "\n\n".join(found)


def wait_for(fact, what: str, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


class Shop:
    """The page's shop, started by the page's command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.dashboard_port = free_port()
        command = re.search(r"^```sh\n(uvicorn .*?)\n```", PAGE, re.MULTILINE | re.DOTALL)
        assert command
        self.command = [sys.executable, "-m", *command[1].replace("8000", str(self.port)).split()]
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def start(self) -> None:
        with (self.folder / "shop.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, env=self.environ, stdout=log, stderr=log)
        wait_for(self.answers, "the shop's start")

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "shop.log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/openapi.json").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(20)

    def deliver(self, event_id: str, order_id: str) -> httpx.Response:
        session = {"metadata": {"orderId": order_id}, "customer_details": {"email": "ada@example.com"}}
        payload = json.dumps({"id": event_id, "type": "checkout.session.completed", "data": {"object": session}}).encode()
        headers = {"Stripe-Signature": sign(payload, "whsec_development", int(time.time()))}
        return httpx.post(f"http://127.0.0.1:{self.port}/webhooks/payment", content=payload, headers=headers)

    def steps(self) -> dict[str, str]:
        """The steps of the latest run, with their states."""
        api = f"http://127.0.0.1:{self.dashboard_port}/v1/runs"
        runs = httpx.get(api).json()["data"]
        steps = httpx.get(f"{api}/{runs[0]['run_id']}/steps").json()["data"]["steps"] if runs else []
        return {step["name"]: step["state"] for step in steps}

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def shop(tmp_path):
    made = Shop(tmp_path)
    (tmp_path / "shop.py").write_text(blocks("shop.py").replace("8288", str(made.dashboard_port)))
    made.start()
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGTERM)


def test_the_page_does_what_it_says(shop):
    (shop.folder / "provider.py").write_text(blocks("provider.py").replace("8000", str(shop.port)))
    done = subprocess.run([sys.executable, "provider.py"], cwd=shop.folder, capture_output=True, text=True, timeout=60, check=True)
    printed = re.search(r"^It prints\n\n```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert printed
    assert done.stdout == printed[1]
    wait_for(lambda: shop.lines("outbox.txt"), "the e-mail")
    assert shop.lines("outbox.txt") == ["ada@example.com: your invoice 2026-0001 for order order-1"]


def test_the_work_survives_a_mail_server_that_is_down_and_kill_9(shop):
    (shop.folder / "mail-server-is-down").touch()
    assert shop.deliver("evt_2", "order-2").status_code == 200
    wait_for(lambda: shop.steps() == {"number-invoice": "done", "send-email": "pending"}, "a failed attempt to send the e-mail")
    shop.end(signal.SIGKILL)
    (shop.folder / "mail-server-is-down").unlink()
    shop.start()
    wait_for(lambda: shop.lines("outbox.txt"), "the e-mail")
    assert shop.lines("outbox.txt") == ["ada@example.com: your invoice 2026-0001 for order order-2"]
    assert shop.lines("invoices.txt") == ["2026-0001"]
