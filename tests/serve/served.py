"""A web application behind uvicorn."""

from __future__ import annotations

import threading
import time
from typing import Any

import uvicorn


class Uvicorn:
    """uvicorn in a thread, on a free port."""

    def __init__(self, app: Any, **config: Any) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", ws="none", **config))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "uvicorn did not start"
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
