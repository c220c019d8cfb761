"""`python -m examples.demo.outside`: the outside world that the example applications talk to, on one port.

A web shop to import from, Salla's token service, and a text model.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette

from .salla import Salla
from .shop_site import ShopSite
from .text_model import StandInModel


@dataclass
class Outside:
    """All stand-ins together."""

    shop: ShopSite = field(default_factory=ShopSite)
    salla: Salla = field(default_factory=Salla)
    model: StandInModel = field(default_factory=StandInModel)

    def app(self) -> Starlette:
        """They as one web application; the shop has every path that the others haven't."""
        return Starlette(routes=[*self.salla.routes(), *self.model.routes(), *self.shop.routes()])


def main() -> None:
    parser = argparse.ArgumentParser(description="A shop to import from, Salla's token service, and a text model.")
    parser.add_argument("--port", type=int, default=8100, help="default %(default)s")
    options = parser.parse_args()
    print(
        f"a shop to import from: http://127.0.0.1:{options.port}/oud, /slow, /busy, /shaky, /about, /photo", flush=True
    )
    uvicorn.run(Outside().app(), port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
