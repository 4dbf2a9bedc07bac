"""One request as the protocol sees it: the raw header fields that matter, read in one pass.

Repeated fields are kept apart, so that whoever reads one decides what a repetition means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ("Request",)

READ = frozenset(
    {
        b"authorization",
        b"host",
        b"origin",
        b"access-control-request-method",
        b"access-control-request-headers",
        b"if-none-match",
        b"dpop",
    }
)
CREDENTIAL_FIELDS = frozenset({b"authorization", b"dpop"})


class Request:
    """A read-only view of an ASGI `http` or `websocket` scope.

    `fields` holds the credential, Host, Origin and CORS fields by lower-case name, each as the list of its lines.
    """

    __slots__ = ("fields", "scope")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope
        fields: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in READ:
                fields.setdefault(name, []).append(value)
        self.fields = fields

    @property
    def is_websocket(self) -> bool:
        """Whether this is a websocket handshake."""
        return bool(self.scope["type"] == "websocket")

    @property
    def method(self) -> str:
        """The request method; a websocket handshake is a GET."""
        return str(self.scope.get("method", "GET"))

    @property
    def path(self) -> str:
        """The decoded path, which is what frameworks route."""
        return str(self.scope["path"])

    @property
    def raw_path(self) -> bytes:
        """The path as received, without the query; from the decoded path where the server gives no other."""
        raw = self.scope.get("raw_path")
        if raw is None:
            return self.path.encode("utf-8", "surrogatepass")
        return bytes(raw).partition(b"?")[0]

    @property
    def query_string(self) -> bytes:
        """The raw query. It may hold secrets: never log it."""
        return bytes(self.scope.get("query_string", b""))

    @property
    def peer_certificate(self) -> str | None:
        """The client's certificate in PEM, where the server offers the ASGI TLS extension."""
        extensions: dict[str, Any] = self.scope.get("extensions") or {}
        tls: dict[str, Any] = extensions.get("tls") or {}
        chain: Iterable[str] = tls.get("client_cert_chain") or ()
        return next(iter(chain), None)

    def public_url(self, origin: str) -> str:
        """The URL as the client knows it: the configured origin and the received path, without the query."""
        return origin + self.raw_path.decode("ascii", "backslashreplace")
