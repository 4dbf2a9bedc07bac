"""One request as the protocol sees it: the raw header fields that matter, read in one pass.

Repeated fields are kept apart, so that whoever reads one decides what a repetition means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

__all__ = ("RequestInfo", "canonical_name")

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
WELL_KNOWN = b"/.well-known/"
CREDENTIAL_FIELDS = frozenset({b"authorization", b"dpop"})


def canonical_name(name: bytes) -> bytes:
    """Return the name of a header field as an app behind a CGI or WSGI adapter reads it.

    WSGI and CGI turn both `-` and `_` into `_` (PEP 3333, RFC 3875 section 4.1.18), so `mcp_session_id` is
    `Mcp-Session-Id` there. Compare canonical names wherever a field decides about security.
    """
    return name.lower().replace(b"_", b"-")


class RequestInfo:
    """A view of an ASGI `http` or `websocket` scope; type checkers hold it frozen, a request pays nothing for it.

    Attributes:
        scope: The scope itself.
        is_websocket: Whether it is a websocket handshake, which counts as a GET.
        method: The request method.
        path: The decoded path, which is what frameworks route, less the root path.
        root_path: Where the app is mounted; it may or may not stand in front of `path`.
        fields: The credential, Host, Origin and CORS fields by lower-case name, each as the list of its lines.
    """

    __slots__ = ("fields", "is_websocket", "method", "path", "root_path", "scope")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope: Final = scope
        self.is_websocket: Final[bool] = scope["type"] == "websocket"
        self.method: Final[str] = scope.get("method", "GET")
        self.path: Final[str] = scope["path"]
        self.root_path: Final[str] = scope.get("root_path") or ""
        fields: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            if name in READ:
                if name in fields:
                    fields[name].append(value)
                else:
                    fields[name] = [value]
        self.fields: Final[Mapping[bytes, list[bytes]]] = fields

    @property
    def raw_path(self) -> bytes:
        """The path as received, without the query; from the decoded path where the server gives no other."""
        raw: bytes | None = self.scope.get("raw_path")
        if raw is None:
            return self.path.encode("utf-8", "surrogatepass")
        return raw if b"?" not in raw else raw.partition(b"?")[0]

    @property
    def may_be_well_known(self) -> bool:
        """Whether to look at `well_known_path` at all."""
        raw = self.scope.get("raw_path")
        return bool(self.root_path) or (raw or self.raw_path).startswith(WELL_KNOWN)

    @property
    def well_known_path(self) -> bytes:
        """The raw path; less the root path where that stands in front of a well-known path.

        Well-known paths are those of the host root (RFC 8615 section 3), but servers that are told a root path, uvicorn
        for one, put it in front of every path that a proxy gives them, whether the proxy has cut it off or not.
        """
        raw = self.raw_path
        if self.root_path:
            root = self.root_path.rstrip("/")
            for spelling in (
                root.encode("utf-8", "surrogatepass"),
                quote(root, errors="surrogatepass").encode("ascii"),
            ):
                if raw.startswith(spelling + WELL_KNOWN):
                    return raw.removeprefix(spelling)
        return raw

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
