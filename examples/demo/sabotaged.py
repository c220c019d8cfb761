"""The storefront with something broken on purpose, to show that the demo notices.

`python -m examples.demo.sabotaged mail-step` and so on; further arguments are the storefront's.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any, Literal, get_args

from examples.storefront import functions, idempotency
from examples.storefront.__main__ import main
from examples.storefront.delivery import Delivery

Sabotage = Literal["mail-step", "idempotency", "server-killed"]
SABOTAGES: tuple[Sabotage, ...] = get_args(Sabotage)


def break_it(kind: str) -> None:
    """Break the storefront within this process."""
    if kind == "mail-step":
        for name in ("send_confirmation", "send_refund", "send_welcome"):
            setattr(functions, name, _send_nothing)
    elif kind == "idempotency":
        numbers = itertools.count()
        fixed = idempotency.message_id
        idempotency.event_id = lambda *_: None
        idempotency.message_id = lambda kind, subject, domain: fixed(kind, f"{subject}-{next(numbers)}", domain)
    else:
        raise ValueError(f"{kind!r} can't be broken in the storefront itself")


async def _send_nothing(*_: Any) -> Delivery:
    return Delivery("<nothing>", "nobody", 0)


if __name__ == "__main__":
    break_it(sys.argv.pop(1))
    sys.exit(main())
