"""The test kit: run apps in memory on a virtual clock, and prove that functions survive crashes.

```python
from holdfast.testing import Harness, assert_durable
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.testing.async_harness import AsyncHarness
    from holdfast.testing.blocking import BlockingHarness
    from holdfast.testing.clock import NotQuietError, VirtualClock
    from holdfast.testing.durability import NotDurableError, assert_durable
    from holdfast.testing.harness import Harness
    from holdfast.testing.observed import (
        ObservedAttempt,
        ObservedError,
        ObservedEvent,
        ObservedLog,
        ObservedRun,
        ObservedStep,
    )

__all__ = [
    "AsyncHarness",
    "BlockingHarness",
    "Harness",
    "NotDurableError",
    "NotQuietError",
    "ObservedAttempt",
    "ObservedError",
    "ObservedEvent",
    "ObservedLog",
    "ObservedRun",
    "ObservedStep",
    "VirtualClock",
    "assert_durable",
]

_MODULES = {
    "AsyncHarness": "async_harness",
    "BlockingHarness": "blocking",
    "Harness": "harness",
    "NotDurableError": "durability",
    "NotQuietError": "clock",
    "VirtualClock": "clock",
    "assert_durable": "durability",
}


def __getattr__(name: str) -> Any:
    # every pytest run loads the plugin, and with it this package: the engine only comes with the first use
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'observed')}"), name)
