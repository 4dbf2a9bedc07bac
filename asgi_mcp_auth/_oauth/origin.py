"""Cross-origin access: the `Host` check against DNS rebinding, the `Origin` check, CORS.

MCP's Streamable HTTP transport requires the Origin check for every request that has the field. Whole serialised origins
are compared (RFC 6454 section 6.1); no prefix, suffix or substring matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from asgi_mcp_auth._oauth.grammar import TCHAR
from asgi_mcp_auth._oauth.urls import DEFAULT_PORTS, Url, is_loopback, parse_url
from asgi_mcp_auth._request import FOR_MESSAGES, RequestInfo, canonical_name
from asgi_mcp_auth.errors import Misdirected, OriginNotAllowed, Reason

__all__ = (
    "Cors",
    "HostCheck",
    "OriginCheck",
    "is_field_name",
    "is_free_field",
    "is_preflight",
    "normal_origin",
    "parse_authority",
)

PREFLIGHT_METHODS = ("GET", "POST", "DELETE")
PREFLIGHT_HEADERS = (
    *("authorization", "content-type", "accept", "mcp-protocol-version", "mcp-method", "mcp-name"),
    *("mcp-session-id", "last-event-id", "dpop", "traceparent", "tracestate", "baggage", "x-request-id"),
)
MAX_ECHOED = 64  # field names of one preflight
EXPOSED_HEADERS = b"WWW-Authenticate, Mcp-Session-Id, DPoP-Nonce"
FIX = "the host of a resource, or a host in allowed_hosts"
TEST_FIX = "the host of the resource: pass base_url=asgi_mcp_auth.testing.base_url(auth) to the test client"
"""For the default host of Starlette's `TestClient`: the log names the fix; the check itself has no exception."""
_FIELD_NAME = re.compile(f"[{TCHAR}]{{1,128}}")
_PARAM_FIELD = "mcp-param-"
MAX_HYPHENS = 8  # in the name of a field for credentials, which is read in each of its 2^8 spellings

Headers = tuple[tuple[bytes, bytes], ...]


def is_field_name(text: str) -> bool:
    """Return whether `text` is a token of RFC 9110 section 5.6.2, as field names and methods are, and not too long."""
    return _FIELD_NAME.fullmatch(text) is not None


def is_free_field(text: str) -> bool:
    """Return whether a field may carry credentials: one that neither this library nor a cookie jar reads."""
    name = text.lower().encode("ascii", "replace")
    is_read = canonical_name(name) != name or name in FOR_MESSAGES or name in (b"cookie", b"sec-websocket-protocol")
    return is_field_name(text) and name.count(b"-") <= MAX_HYPHENS and not is_read


def normal_origin(text: str) -> str | None:
    """Return a serialised origin (any scheme) in normal form; None for `null`, a path or user information."""
    url = parse_url(text)
    if url is None or url.path or url.query is not None or url.fragment is not None:
        return None
    return url.origin


def parse_authority(text: str) -> tuple[str, int | None] | None:
    """Parse `host[:port]`, in lower case; return None for another text."""
    url = parse_url(f"any://{text}")
    return (
        (url.host, url.port)
        if url is not None and not url.path and url.query is None and url.fragment is None
        else None
    )


class HostCheck:
    """Checks `Host` for loopback resources, or if hosts are configured; the one line must then be listed.

    Args:
        resources: The configured resources; their authorities are always allowed.
        allowed: More authorities, parsed; one without a port matches any port.

    Attributes:
        on: Whether anything is checked.
    """

    def __init__(self, resources: Iterable[Url], allowed: Iterable[tuple[str, int | None]]) -> None:
        urls = tuple(resources)
        listed = frozenset(allowed)
        self._loopback = any(is_loopback(url.host) for url in urls)
        self.on = self._loopback or bool(listed)
        self._any_port = frozenset(host for host, port in listed if port is None)
        self._exact = frozenset(
            [(host, port) for host, port in listed if port is not None]
            + [(url.host, url.port or DEFAULT_PORTS[url.scheme]) for url in urls]
            + [(url.host, None) for url in urls if url.port is None]
        )
        written = [host if port is None else f"{host}:{port}" for host, port in {*self._exact, *listed}]
        # The listed authorities as most clients write them: accepted without a parser (benchmarks: in_process).
        self._spelled = frozenset(text.encode("latin-1") for text in written)

    def refuse(self, request: RequestInfo) -> Misdirected | None:
        """Return the refusal if the `Host` is missing, repeated or not listed; None if it is fine or not checked."""
        if not self.on:
            return None
        lines = request.fields.get(b"host", [])
        if len(lines) == 1 and lines[0] in self._spelled:
            return None
        host = parse_authority(lines[0].decode("latin-1")) if len(lines) == 1 else None
        if host is not None and (
            host in self._exact or host[0] in self._any_port or (self._loopback and is_loopback(host[0]))
        ):
            return None
        found = b", ".join(lines).decode("latin-1")
        return Misdirected(Reason.HOST_NOT_ALLOWED, expected=TEST_FIX if found == "testserver" else FIX, found=found)


class Cors(NamedTuple):
    """The CORS fields for an allowed origin."""

    allowed: Headers

    @property
    def response(self) -> Headers:
        """The fields of every response, so that browsers can read challenges (RFC 9449 section 8)."""
        return (*self.allowed, (b"access-control-expose-headers", EXPOSED_HEADERS))


class OriginCheck:
    """Compares `Origin` with the exact list of one resource: its own origin, loopback for loopback, and the configured.

    Args:
        resource: The protected resource.
        allowed: Configured origins in normal form; `"*"` admits any.
        methods: The methods that preflights allow, in addition to `PREFLIGHT_METHODS`; `"*"` allows any.
        headers: The header fields that preflights allow, in addition to `PREFLIGHT_HEADERS`, in lower case; `"*"`
            allows any. The token protects the resource, not the preflight: there are no cookies.
    """

    def __init__(
        self, resource: Url, allowed: Iterable[str], methods: Iterable[str] = (), headers: Iterable[str] = ()
    ) -> None:
        listed = frozenset(allowed)
        self._any = "*" in listed
        self._loopback = is_loopback(resource.host)
        self._allowed = listed | {resource.origin}
        self._methods = tuple(dict.fromkeys((*PREFLIGHT_METHODS, *methods)))
        self._headers = tuple(dict.fromkeys((*PREFLIGHT_HEADERS, *headers)))

    def _allows(self, origin: str) -> bool:
        normal = normal_origin(origin)
        if normal is None:
            return False
        if normal in self._allowed:
            return True
        url = parse_url(normal)
        return self._loopback and url is not None and url.scheme in ("http", "https") and is_loopback(url.host)

    def check(self, request: RequestInfo) -> Cors | OriginNotAllowed | None:
        """Return the CORS fields for an allowed `Origin`, a refusal for another; None without one (no browser)."""
        lines = request.fields.get(b"origin")
        if lines is None:
            return None
        if len(lines) == 1 and (self._any or self._allows(lines[0].decode("latin-1"))):
            if self._any:
                return Cors(((b"access-control-allow-origin", b"*"),))
            return Cors(((b"access-control-allow-origin", lines[0]), (b"vary", b"Origin")))
        return OriginNotAllowed(Reason.ORIGIN_NOT_ALLOWED, found=b", ".join(lines).decode("latin-1"))

    def preflight(self, request: RequestInfo, cors: Cors) -> Headers:
        """Return the fields of the answer to a preflight of an allowed origin.

        `Mcp-Param-*` fields are allowed as requested. `Access-Control-Allow-Private-Network` is the answer of a
        loopback resource to a browser that asks (https://wicg.github.io/private-network-access/).
        """
        methods = _allow(self._methods, _requested(request, b"access-control-request-method"), is_param=False)
        headers = _allow(self._headers, _requested(request, b"access-control-request-headers"), is_param=True)
        fields = (
            *cors.allowed,
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", headers),
            (b"access-control-max-age", b"600"),
        )
        if self._loopback and request.fields.get(b"access-control-request-private-network") == [b"true"]:
            return (*fields, (b"access-control-allow-private-network", b"true"))
        return fields


def _requested(request: RequestInfo, field: bytes) -> list[str]:
    """Return the tokens of a list field, without texts that are no tokens."""
    names = b",".join(request.fields.get(field, [])).decode("latin-1").split(",", MAX_ECHOED)[:MAX_ECHOED]
    return [name for name in map(str.strip, names) if is_field_name(name)]


def _allow(listed: tuple[str, ...], requested: list[str], *, is_param: bool) -> bytes:
    """Return what is listed, and of what is requested everything if `"*"` is listed, else `Mcp-Param-*` fields."""
    echoed = [name.lower() for name in requested] if is_param else requested
    if "*" not in listed:
        echoed = [name for name in echoed if is_param and name.startswith(_PARAM_FIELD) and name != _PARAM_FIELD]
    allowed = [name for name in listed if name != "*"]
    return ", ".join(dict.fromkeys((*allowed, *echoed))).encode("ascii")


def is_preflight(request: RequestInfo) -> bool:
    """Return whether a request is a CORS preflight (Fetch standard): it has no credentials, and needs none."""
    return request.method == "OPTIONS" and b"access-control-request-method" in request.fields
