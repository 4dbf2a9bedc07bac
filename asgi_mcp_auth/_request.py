"""One request as every room may know it: the ASGI scope, and the header fields that decide anything, read in one pass.

Repeated fields are kept as separate lines, so that each reader decides what a repetition means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, Final
from urllib.parse import quote

__all__ = (
    "API_KEY_FIELD",
    "CREDENTIAL_FIELDS",
    "FOR_MESSAGES",
    "FOR_REQUESTS",
    "MESSAGE_FIELDS",
    "RequestInfo",
    "Scope",
    "canonical_name",
    "reading_keys",
    "spellings",
)

Scope = Mapping[str, Any]

API_KEY_FIELD: Final = b":api-key"
"""The name in `RequestInfo.fields` of the configured field for API keys; no client can send a field of this name."""

CREDENTIAL_FIELDS: Final = frozenset({b"authorization", b"dpop", API_KEY_FIELD})
REQUEST_FIELDS: Final = (CREDENTIAL_FIELDS - {API_KEY_FIELD}) | {
    b"host",
    b"origin",
    b"access-control-request-method",
    b"access-control-request-headers",
    b"access-control-request-private-network",
    b"if-none-match",
    b"mcp-session-id",
    b"traceparent",
    b"x-request-id",
}
MESSAGE_FIELDS: Final = REQUEST_FIELDS | {
    b"content-type",
    b"content-encoding",
    b"content-length",
    b"mcp-protocol-version",
    b"mcp-method",
    b"mcp-name",
    b"last-event-id",
}
WELL_KNOWN = b"/.well-known/"
MAX_ROOT_PATH = 512  # characters of a root path that may precede a well-known path; clients of Daphne choose it


def spellings(name: bytes) -> Iterable[bytes]:
    """Yield a lower-case field name with `_` for any `-`: CGI and WSGI adapters cannot tell the two apart.

    See RFC 3875 section 4.1.18. The number of spellings doubles with each `-`.
    """
    first, *parts = name.split(b"-")
    for separators in product((b"-", b"_"), repeat=len(parts)):
        yield first + b"".join(map(bytes.__add__, separators, parts))


def _canonical(names: Iterable[bytes]) -> Mapping[bytes, bytes]:
    return {spelling: name for name in names for spelling in spellings(name)}


FOR_REQUESTS: Final = _canonical(REQUEST_FIELDS)
FOR_MESSAGES: Final = _canonical(MESSAGE_FIELDS)


def reading_keys(read: Mapping[bytes, bytes], header: str) -> Mapping[bytes, bytes]:
    """Return the fields to read, with one more that carries API keys, by every spelling."""
    return {**read, **dict.fromkeys(spellings(header.lower().encode("ascii")), API_KEY_FIELD)}


def canonical_name(name: bytes) -> bytes:
    """Return a field name as the key of `RequestInfo.fields`; other names are returned unchanged."""
    return FOR_MESSAGES.get(name, name)


class RequestInfo:
    """A read-only view of an ASGI `http` or `websocket` scope.

    Args:
        scope: The scope.
        read: The fields to read, by every spelling: `FOR_REQUESTS`, or `FOR_MESSAGES` if rules apply to the body.

    Attributes:
        scope: The scope itself.
        fields: The fields that were read, by canonical lower-case name, each as the list of its lines.
        forwarded: All header fields but credentials, in their order, as the app may see them.
    """

    __slots__ = ("fields", "forwarded", "scope")

    def __init__(self, scope: Scope, read: Mapping[bytes, bytes] = FOR_MESSAGES) -> None:
        fields: dict[bytes, list[bytes]] = {}
        forwarded: list[tuple[bytes, bytes]] = []
        for field in scope["headers"]:
            if field[0] in read:
                name = read[field[0]]
                if name in fields:
                    fields[name].append(field[1])
                else:
                    fields[name] = [field[1]]
                if name in CREDENTIAL_FIELDS:
                    continue
            forwarded.append(field)
        self.scope: Final = scope
        self.fields: Final[Mapping[bytes, list[bytes]]] = fields
        self.forwarded: Final = forwarded

    @property
    def is_websocket(self) -> bool:
        """Whether the request is a websocket handshake, which counts as a GET."""
        return bool(self.scope["type"] == "websocket")

    @property
    def method(self) -> str:
        """The request method."""
        return str(self.scope.get("method", "GET"))

    @property
    def path(self) -> str:
        """The decoded path, which is what frameworks route. The root path may or may not be its beginning."""
        return str(self.scope["path"])

    @property
    def root_path(self) -> str:
        """The path at which the app is mounted; an empty string if there is none."""
        return self.scope.get("root_path") or ""

    @property
    def raw_path(self) -> bytes:
        """The path as received, without the query; encoded from the decoded path if the server gives no raw path."""
        raw: bytes | None = self.scope.get("raw_path")
        if raw is None:
            return self.path.encode("utf-8", "surrogatepass")
        return raw if b"?" not in raw else raw.partition(b"?")[0]

    @property
    def may_be_well_known(self) -> bool:
        """Whether `well_known_path` may be a well-known path."""
        raw = self.scope.get("raw_path")
        return bool(self.root_path) or (raw or self.raw_path).startswith(WELL_KNOWN)

    @property
    def well_known_path(self) -> bytes:
        """The raw path, without the root path if that precedes a well-known path.

        Well-known paths belong to the host root (RFC 8615 section 3). A server with a configured root path may prepend
        the root path to every path (`_compat.asgi_servers.PREPENDS_ROOT_PATH`).
        """
        raw, root = self.raw_path, self.root_path.rstrip("/")
        if 0 < len(root) <= MAX_ROOT_PATH:
            for spelling in (
                root.encode("utf-8", "surrogatepass"),
                quote(root, errors="surrogatepass").encode("ascii"),
            ):
                if raw.startswith(spelling + WELL_KNOWN):
                    return raw.removeprefix(spelling)
        return raw

    @property
    def token(self) -> bytes:
        """What follows the scheme in `Authorization`, unchecked: to remove it from texts that may quote it."""
        return b" ".join(self.fields.get(b"authorization", ())).partition(b" ")[2].strip(b" ")

    @property
    def query_string(self) -> bytes:
        """The raw query. It may contain secrets: never log it."""
        return bytes(self.scope.get("query_string", b""))

    def public_url(self, origin: str) -> str:
        """Return the URL as the client knows it: the configured origin and the received path, without the query."""
        return origin + self.raw_path.decode("ascii", "backslashreplace")
