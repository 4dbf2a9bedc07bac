"""An issuer of `asgi_mcp_auth.testing` under a real HTTP server on loopback, in a thread of the tests."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn

from asgi_mcp_auth.testing import Issuer


class Upstream:
    """A loopback server for one issuer at a time that tests can stop and start."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.port: int = reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.issuer = Issuer(self.url, algorithms=())
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.issuer(scope, receive, send)

    def start(self) -> None:
        if self._server is not None:
            return
        options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_level": "critical", "access_log": False}
        config = uvicorn.Config(self, host="127.0.0.1", port=self.port, timeout_graceful_shutdown=1, **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._server = self._thread = None
