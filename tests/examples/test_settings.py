"""The storefront checks its environment at start: keys optional in development, required in production."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.storefront.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]
STOREFRONT = ROOT / "examples" / "storefront"
PRODUCTION = {
    "APP_ENV": "production",
    "INNGEST_EVENT_KEY": "event-key",
    "INNGEST_SIGNING_KEY": "signkey-prod-00",
    "PAYMENT_WEBHOOK_SECRET": "whsec_real",
    "MAIL_FROM": "Riqle <shop@example.com>",
    "SMTP_HOST": "mail.example.com",
}


def test_development_needs_nothing():
    assert Settings.from_environment({}) == Settings()


def test_production_with_everything():
    assert Settings.from_environment(PRODUCTION).environment == "production"


@pytest.mark.parametrize("missing", sorted(set(PRODUCTION) - {"APP_ENV"}))
def test_production_names_what_is_missing(missing):
    with pytest.raises(SettingsError, match=f"{missing} is required in production"):
        Settings.from_environment({name: value for name, value in PRODUCTION.items() if name != missing})


def test_everything_that_is_wrong_is_said_at_once():
    environ = {"APP_ENV": "production", "SMTP_PORT": "twenty", "MAIL_TRANSPORT": "pigeon", "DATABASE_URL": "sqlite:///x.db"}
    with pytest.raises(SettingsError) as error:
        Settings.from_environment(environ)
    for name in ("INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY", "PAYMENT_WEBHOOK_SECRET", "SMTP_PORT", "MAIL_TRANSPORT", "DATABASE_URL"):
        assert name in str(error.value)


def test_the_secret_of_development_is_refused_in_production():
    with pytest.raises(SettingsError, match="everybody knows"):
        Settings.from_environment(PRODUCTION | {"PAYMENT_WEBHOOK_SECRET": "whsec_development"})


def test_resend_needs_its_key_everywhere():
    with pytest.raises(SettingsError, match="RESEND_API_KEY"):
        Settings.from_environment({"MAIL_TRANSPORT": "resend"})


@pytest.mark.parametrize("text", ["8288", ":8288", "localhost:", "localhost:http"])
def test_an_address_that_is_none(text):
    with pytest.raises(SettingsError, match="DASHBOARD_ADDRESS must be host:port, or off"):
        Settings.from_environment({"DASHBOARD_ADDRESS": text})


def test_the_dashboard_can_be_off():
    assert Settings.from_environment({"DASHBOARD_ADDRESS": "off"}).dashboard is None


def test_secrets_are_not_in_the_representation():
    secrets = {"INNGEST_EVENT_KEY": "canary-1", "PAYMENT_WEBHOOK_SECRET": "canary-2", "SMTP_USERNAME": "me", "SMTP_PASSWORD": "canary-3",
               "RESEND_API_KEY": "canary-4", "INNGEST_SIGNING_KEY": "canary-5"}
    assert "canary" not in repr(Settings.from_environment(PRODUCTION | secrets))


def test_the_command_refuses_with_a_sentence_and_no_traceback():
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "APP_ENV": "production"}
    done = subprocess.run([sys.executable, "-m", "examples.storefront"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "INNGEST_SIGNING_KEY is required in production: make one with `holdfast keys new`" in done.stderr
    assert "Traceback" not in done.stderr


def test_readme_and_example_environment_name_every_variable():
    known = set(re.findall(r'read\.\w+\("([A-Z_]+)"', (STOREFRONT / "settings.py").read_text()))
    assert known
    example = set(re.findall(r"^#? ?([A-Z_]+)=", (STOREFRONT / ".env.example").read_text(), re.MULTILINE))
    readme = set(re.findall(r"^\| `([A-Z_]+)`", (STOREFRONT / "README.md").read_text(), re.MULTILINE))
    assert example == known
    assert readme == known


def test_the_example_environment_is_usable_as_it_is():
    lines = [line for line in (STOREFRONT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert Settings.from_environment(dict(line.split("=", 1) for line in lines)).environment == "development"
