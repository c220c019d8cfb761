"""The protocol's header names, in lower case, and what identifies an SDK."""

from __future__ import annotations

from typing import Final

from holdfast.base.version import __version__

SDK: Final = "x-inngest-sdk"
"""`<sdk>:v<version>`, on every answer of an SDK; what lacks it did not come from one."""
SDK_HANDLED: Final = "x-inngest-sdk-handled"
FRAMEWORK: Final = "x-inngest-framework"
PLATFORM: Final = "x-inngest-platform"
ENV: Final = "x-inngest-env"
SIGNATURE: Final = "x-inngest-signature"
REQUEST_VERSION: Final = "x-inngest-req-version"
NO_RETRY: Final = "x-inngest-no-retry"
RETRY_AFTER: Final = "retry-after"
SERVER_KIND: Final = "x-inngest-server-kind"
EXPECTED_SERVER_KIND: Final = "x-inngest-expected-server-kind"
SYNC_KIND: Final = "x-inngest-sync-kind"
STEP_ID: Final = "x-inngest-step-id"
RUN_ID: Final = "x-run-id"
REQUEST_ID: Final = "x-request-id"
GENERATION_ID: Final = "x-inngest-generation-id"
JOB_ID: Final = "x-inngest-job-id"
FORCE_STEP_PLAN: Final = "x-inngest-force-step-plan"
EVENT_ID_SEED: Final = "x-inngest-event-id-seed"
ACCOUNT_ID: Final = "account-id"
SHOWS_LINES: Final = "x-holdfast-shows-log"
"""On holdfast's calls: the server takes lines that are logged, as metadata of the run, and shows them."""

REQUEST_VERSION_NOW: Final = 2
"""The version of the execution protocol that holdfast's SDK side speaks: parallel steps are coalesced by the server."""
LANGUAGE: Final = "holdfast-py"
SDK_NAME: Final = f"{LANGUAGE}:v{__version__}"
"""How holdfast's SDK side calls itself."""


def sdk_parts(value: str) -> tuple[str, str]:
    """`inngest-js:v4.18.0` -> `("js", "4.18.0")`: language and version of an SDK, empty where they are not said."""
    name, _, version = value.partition(":")
    return name.removeprefix("inngest-"), version.removeprefix("v")
