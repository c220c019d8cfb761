"""`holdfast keys`: the two keys of production."""

from __future__ import annotations

import secrets

import click


def new_event_key() -> str:
    """An event key of 256 random bits. Hexadecimal, so that it fits into an address and starts with no hyphen."""
    return secrets.token_hex(32)


def new_signing_key() -> str:
    """A signing key of 256 random bits, in the form that every Inngest SDK accepts."""
    return f"signkey-prod-{secrets.token_hex(32)}"


@click.group("keys")
def command() -> None:
    """Make the keys that production needs.

    `holdfast start` refuses to run without two keys: the event key, with which applications send events, and the
    signing key, with which server and applications sign their requests to each other and which opens the API and
    the dashboard. Development needs neither.

    \b
      holdfast keys new                make both and print them, once
      holdfast keys new >> .env        or put them where they belong right away
    """  # noqa: D301


@command.command("new")
def new() -> None:
    """Make an event key and a signing key and print them once.

    They are printed to standard output as two lines of an environment file and are stored nowhere. The explanation
    goes to standard error, so that the output can be redirected.

    To rotate the signing key without an interruption, start the server with the new key in INNGEST_SIGNING_KEY and
    the old one in INNGEST_SIGNING_KEY_FALLBACK: both are accepted until you remove the second. Several event keys may
    be active at once; separate them by commas.

    \b
      holdfast keys new
      holdfast keys new >> .env
    """  # noqa: D301
    click.echo(f"INNGEST_EVENT_KEY={new_event_key()}")
    click.echo(f"INNGEST_SIGNING_KEY={new_signing_key()}")
    click.echo(
        "\nThese are shown once and stored nowhere. Put both lines into the environment of `holdfast start` and of\n"
        "every application that talks to it: an .env file outside version control, or your platform's secrets.\n"
        "The event key lets its holder send events; the signing key lets its holder do everything.",
        err=True,
    )
