"""The bounds of the protocol (section 1.10), and the rules for names."""

from __future__ import annotations

MAX_EVENT_BYTES = 3 * 1024 * 1024
MAX_EVENTS_PER_REQUEST = 5000
MAX_NAME_LENGTH = 255
MAX_STEP_OUTPUT_BYTES = 4 * 1024 * 1024
MAX_RUN_STATE_BYTES = 32 * 1024 * 1024
MAX_STEPS_PER_RUN = 1000
MAX_STEPS_ABSOLUTE = 10_000
MAX_JSON_DEPTH = 128
MAX_RETRIES = 20
MAX_WAIT_MS = 366 * 86_400_000
MAX_INVOKE_MS = 365 * 86_400_000
DEFAULT_RETRIES = 4
EVENT_ID_WINDOW_MS = 86_400_000
MIN_EVENT_TS = 315_532_800_000
"""1980-01-01, the earliest timestamp an event may carry (protocol section 1.2)."""
MAX_EVENT_TS = 4_102_444_800_000
"""2100-01-01, exclusive."""
MIN_RETRY_AFTER_MS = 1000
MAX_RETRY_AFTER_MS = 86_400_000


def event_name_problem(name: str, *, sent: bool = False) -> str | None:
    """Why a name can't be an event's name, or None if it can (protocol sections 1.2 and 3).

    Args:
        name: The name.
        sent: Whether a user sends it; reserved names can be listened to, not sent.
    """
    if not name:
        return "event name is empty"
    if len(name) > MAX_NAME_LENGTH:
        return f"event name is longer than {MAX_NAME_LENGTH} characters: {name[:60]}..."
    if sent and name[:8].lower() == "inngest/":
        return f"event name is reserved for internal use: {name}"
    return None
