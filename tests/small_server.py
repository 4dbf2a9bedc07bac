"""A small HTTP server in a thread of the tests: a function returns the answer to each GET."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Answer(NamedTuple):
    """One response; with `location` it is a redirect."""

    body: str = ""
    content_type: str = "text/html"
    location: str | None = None


@contextlib.contextmanager
def serving(answer: Callable[[int, str], Answer], context: ssl.SSLContext | None = None) -> Generator[int]:
    """Serve the result of `answer(port, target)`, with TLS if a context is passed; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answer(server.server_port, self.path)
            data = found.body.encode()
            self.send_response(200 if found.location is None else 302)
            self.send_header("content-type", found.content_type)
            self.send_header("content-length", str(len(data)))
            if found.location is not None:
                self.send_header("location", found.location)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(5)
