"""Catalogue, studio and inbox check their environment at start: keys optional in development, required in production."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.common.environment import SettingsError

ROOT = Path(__file__).parents[2]
KEYS = {"APP_ENV": "production", "INNGEST_EVENT_KEY": "event-key", "INNGEST_SIGNING_KEY": "signkey-prod-00"}
PRODUCTION = {
    "catalogue": KEYS | {
        "SESSION_SECRET": "canary-1", "SALLA_WEBHOOK_SECRET": "canary-2", "SALLA_CLIENT_ID": "id", "SALLA_CLIENT_SECRET": "canary-3",
        "TEXT_MODEL_URL": "https://model.example.com/v1", "TEXT_MODEL_KEY": "canary-4",
    },
    "studio": KEYS | {
        "STUDIO_API_KEY": "canary-1", "MAIL_FROM": "Studio <s@example.com>", "SMTP_HOST": "mail.example.com", "WEBHOOK_SECRET": "canary-2",
        "TEXT_MODEL_URL": "https://model.example.com/v1", "TEXT_MODEL_KEY": "canary-3",
    },
    "inbox": KEYS | {"REDIS_URL": "redis://:canary-1@redis.example.com:6379/0", "INBOX_API_KEY": "canary-2", "CRON_SECRET": "canary-3"},
}  # fmt: skip
APPS = sorted(PRODUCTION)
WRONG = {
    "catalogue": {"IMPORT_PLATFORMS": "nonsense", "SCRAPE_TIMEOUT": "soon", "SALLA_TOKEN_URL": "salla", "DATABASE_URL": "sqlite:///x.db"},
    "studio": {"SMTP_SECURITY": "some", "PDF_FONT": "/nowhere.ttf", "WEBHOOK_TIMEOUT": "-1", "SMTP_USERNAME": "me"},
    "inbox": {"BACKGROUND_JOBS_USE_INNGEST": "maybe", "REDIS_URL": "localhost", "RECOMPUTE_CAP": "0", "DASHBOARD_ADDRESS": "8288"},
}


def settings_of(app: str):
    return importlib.import_module(f"examples.{app}.settings").Settings


@pytest.mark.parametrize("app", APPS)
def test_development_needs_nothing(app):
    assert settings_of(app).from_environment({}) == settings_of(app)()


@pytest.mark.parametrize(("app", "missing"), [(app, name) for app in APPS for name in sorted(set(PRODUCTION[app]) - {"APP_ENV"})])
def test_production_names_what_is_missing(app, missing):
    with pytest.raises(SettingsError, match=f"{missing} is required in production"):
        settings_of(app).from_environment({name: value for name, value in PRODUCTION[app].items() if name != missing})


@pytest.mark.parametrize("app", APPS)
def test_production_with_everything_shows_no_secret(app):
    settings = settings_of(app).from_environment(PRODUCTION[app])
    assert settings.production
    assert "canary" not in repr(settings)
    assert "signkey" not in repr(settings)


@pytest.mark.parametrize(("app", "name"), [("catalogue", "SESSION_SECRET"), ("catalogue", "SALLA_WEBHOOK_SECRET"), ("studio", "WEBHOOK_SECRET")])
def test_the_secrets_of_development_are_refused_in_production(app, name):
    with pytest.raises(SettingsError, match=f"{name} is the one of development, which everybody knows"):
        settings_of(app).from_environment(PRODUCTION[app] | {name: "development"})


@pytest.mark.parametrize("app", APPS)
def test_everything_that_is_wrong_is_said_at_once(app):
    with pytest.raises(SettingsError) as error:
        settings_of(app).from_environment(WRONG[app])
    for name in WRONG[app]:
        assert name in str(error.value)


@pytest.mark.parametrize("app", APPS)
def test_readme_and_example_environment_name_every_variable(app):
    folder = ROOT / "examples" / app
    known = set(re.findall(r'read\.\w+\(\s*"([A-Z_]+)"', (folder / "settings.py").read_text()))
    assert known
    example = set(re.findall(r"^#? ?([A-Z_]+)=", (folder / ".env.example").read_text(), re.MULTILINE))
    readme = set(re.findall(r"^\| `([A-Z_]+)`", (folder / "README.md").read_text(), re.MULTILINE))
    assert example == known
    assert readme == known


@pytest.mark.parametrize("app", APPS)
def test_the_example_environment_can_be_read_by_a_shell_and_is_usable_as_it_is(app):
    names = re.findall(r"^([A-Z_]+)=", (ROOT / "examples" / app / ".env.example").read_text(), re.MULTILINE)
    script = f". ./.env.example; {'; '.join(f'echo {name}=${name}' for name in names)}"
    done = subprocess.run(["sh", "-euc", script], cwd=ROOT / "examples" / app, capture_output=True, text=True, check=True)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert settings_of(app).from_environment(found) == settings_of(app)() or app == "studio"
    assert settings_of(app).from_environment(found).environment == "development"


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS)
def test_the_command_refuses_with_a_sentence_and_no_traceback(app):
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "APP_ENV": "production"}
    done = subprocess.run([sys.executable, "-m", f"examples.{app}"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "INNGEST_SIGNING_KEY is required in production: make one with `holdfast keys new`" in done.stderr
    assert "Traceback" not in done.stderr
