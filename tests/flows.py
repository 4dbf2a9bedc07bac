"""The servers of a whole flow: the development authorization server and a protected MCP server, with a journal.

`flow_servers.py` of the counterparts is what runs; here it is started, restarted, put ahead in time, and read.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import processes
from certificates import Authority
from small_server import Answer, serving

COUNTERPARTS = Path(__file__).parent / "counterparts"


@dataclass
class World:
    """The servers of a flow as a client sees them."""

    resource: str
    issuer: str
    journal: Path
    _clock: Path
    _env: Mapping[str, str]
    _up: dict[str, contextlib.ExitStack] = field(default_factory=dict[str, contextlib.ExitStack])

    @property
    def metadata_url(self) -> str:
        """The URL of the resource's metadata document."""
        parts = urlsplit(self.resource)
        path = parts.path.rstrip("/")
        return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{path}"

    def start(self, app: str) -> None:
        """Start `protected` or `authority`."""
        port = urlsplit(self.resource if app == "protected" else self.issuer).port
        self._up[app] = contextlib.ExitStack()
        served = processes.uvicorn(
            f"flow_servers:{app}", app_dir=COUNTERPARTS, port=port, env=self._env, args=["--factory"]
        )
        self._up[app].enter_context(served)

    def stop(self, app: str) -> None:
        """Stop one server; its memory is lost."""
        self._up.pop(app).close()

    def stop_all(self) -> None:
        """Stop the running servers."""
        for app in list(self._up):
            self.stop(app)

    def later(self, seconds: float) -> None:
        """Advance the clocks of both servers."""
        ahead = float(self._clock.read_text(encoding="utf-8")) + seconds
        self._clock.write_text(str(ahead), encoding="utf-8")

    def exchanges(self, server: str | None = None, path: str | None = None) -> list[dict[str, Any]]:
        """The requests and responses so far, in order."""
        lines = self.journal.read_text(encoding="utf-8").splitlines()
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [
            exchange for exchange in found if server in (None, exchange["server"]) and path in (None, exchange["path"])
        ]

    def forget(self) -> None:
        """Start a new page of the journal."""
        self.journal.write_text("", encoding="utf-8")

    def statuses(self, operation: str) -> list[int]:
        """The statuses with which the resource answered an operation."""
        return [e["status"] for e in self.exchanges("resource") if e["operation"] == operation]

    def requests(self) -> Counter[tuple[str, str]]:
        """The number of requests to the authorization server, by method and path."""
        return Counter((e["method"], e["path"]) for e in self.exchanges("authority"))

    def tokens(self) -> list[dict[str, Any]]:
        """The token requests with their responses."""
        return self.exchanges("authority", "/token")

    def asked(self) -> list[Mapping[str, str]]:
        """The authorization requests."""
        return [e["query"] for e in self.exchanges("authority", "/authorize") if e["method"] == "GET"]


@contextlib.contextmanager
def world(directory: Path, *, path: str = "/mcp", **env: str) -> Generator[World]:
    """Run both servers; `path` is the path of the MCP endpoint, `env` has further variables for flow_servers.py."""
    resource = f"http://127.0.0.1:{processes.free_port()}{path}"
    issuer = f"http://127.0.0.1:{processes.free_port()}"
    journal, clock = directory / "journal", directory / "clock"
    journal.write_text("", encoding="utf-8")
    clock.write_text("0", encoding="utf-8")
    settings = {"RESOURCE": resource, "ISSUER": issuer, "JOURNAL": str(journal), "CLOCK": str(clock), **env}
    made = World(resource, issuer, journal, clock, settings)
    try:
        made.start("authority")
        made.start("protected")
        yield made
    finally:
        made.stop_all()


def scopes_of(text: str | None) -> set[str]:
    """Return the scopes of the resource in a `scope` parameter; offline_access concerns the client."""
    return set((text or "").split()) - {"offline_access"}


@dataclass
class Documents:
    """An https server of one client id metadata document; `trusted` is the file with its certificate authority."""

    trusted: Path
    asked: int = 0
    client_id: str = ""

    def answer(self, port: int, path: str) -> Answer:
        """The client id metadata document; its redirect URIs have no port (AS-11)."""
        self.asked += 1
        document = {
            "client_id": f"https://localhost:{port}{path}",
            "client_name": "A client with a document",
            "redirect_uris": ["http://127.0.0.1/callback", "http://127.0.0.1/oauth/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        return Answer(json.dumps(document), "application/json")


@contextlib.contextmanager
def serving_documents(directory: Path) -> Generator[Documents]:
    """Run a server of a client id metadata document."""
    authority = Authority()
    made = Documents(directory / "trusted.pem")
    made.trusted.write_text(authority.pem, encoding="ascii")
    with serving(made.answer, authority.server_context(directory, "localhost")) as port:
        made.client_id = f"https://localhost:{port}/client.json"
        yield made
