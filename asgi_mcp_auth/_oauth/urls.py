"""URLs that identify resources, issuers and origins, and the well-known URLs of their metadata documents.

The parser refuses malformed URLs and repairs none (RFC 3986, RFC 8707 section 2, RFC 9728 section 3.1, RFC 8414
section 3.1).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from asgi_mcp_auth.config import AuthServerType, ServerMetadataPaths
from asgi_mcp_auth.errors import printable

__all__ = (
    "PROTECTED_RESOURCE",
    "Url",
    "discovery_urls",
    "insert_well_known",
    "is_loopback",
    "mask_userinfo",
    "parse_url",
    "redact_url",
    "same_place",
    "same_resource",
)

PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"

MAX_PORT = 65535
DEFAULT_PORTS = {"https": 443, "http": 80, "wss": 443, "ws": 80}

SCHEME = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)"
HOST = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~\-]+)"
PORT = r"(?::(?P<port>[0-9]{1,5}))?"
# RFC 3986 section 3.3: pchar and "/". Userinfo is not accepted (RFC 9110 section 4.2.4).
PATH = r"(?P<path>(?:/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)*)"
REST = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*"
_URL = re.compile(rf"{SCHEME}://{HOST}{PORT}{PATH}(?:\?(?P<query>{REST}))?(?:#(?P<fragment>{REST}))?")

_USERINFO = re.compile(r"(//|:/*).*@", re.DOTALL)
_QUERY_OR_FRAGMENT = re.compile(r"[?#].*", re.DOTALL)


class Url(NamedTuple):
    """A hierarchical URL: scheme and host in lower case, without a default port, the other parts as written."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str | None
    fragment: str | None

    @property
    def authority(self) -> str:
        """Return `host` or `host:port`."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Return the serialised origin (RFC 6454 section 6.2)."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        query = "" if self.query is None else f"?{self.query}"
        fragment = "" if self.fragment is None else f"#{self.fragment}"
        return f"{self.origin}{self.path}{query}{fragment}"


def _valid_host(host: str) -> bool:
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
        elif host.rsplit(".", 1)[-1].isdigit():  # RFC 3986 section 7.4: other numeric forms of addresses
            IPv4Address(host)
    except ValueError:
        return False
    return True


def parse_url(text: str) -> Url | None:
    """Parse an absolute URL with an authority.

    Return None for anything else: also for userinfo, spaces, characters outside ASCII and invalid hosts and ports.
    """
    match = _URL.fullmatch(text)
    if match is None or not _valid_host(match["host"]):
        return None
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port <= MAX_PORT:
        return None
    if port == DEFAULT_PORTS.get(scheme):
        port = None
    return Url(scheme, match["host"].lower(), port, match["path"], match["query"], match["fragment"])


def mask_userinfo(text: str) -> str:
    """Return `text` without user information, which ends at the last `@`: passwords may contain `/` and `@`."""
    return _USERINFO.sub(r"\1...@", text, count=1)


def redact_url(text: str) -> str:
    """Return a URL for a message or a log record: without user information, query and fragment, which may be secret."""
    return printable(_QUERY_OR_FRAGMENT.sub("?...", mask_userinfo(text)), 256)


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost`, in 127.0.0.0/8 or `[::1]`. Names that resolve to them are not."""
    if host == "localhost":
        return True
    try:
        address = IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        return False
    return address.is_loopback


def same_resource(audience: str, resource: Url) -> bool:
    """Return whether an `aud` value names `resource`.

    The case of scheme and host, a default port and an empty path are normalised (RFC 3986 sections 6.2.2.1 and 6.2.3).
    A parent, a child, a trailing slash on a path, a query or a fragment names another resource.
    """
    url = parse_url(audience)
    return url is not None and url._replace(path=url.path or "/") == resource._replace(path=resource.path or "/")


def same_place(url: str, other: str) -> bool:
    """Return whether two URLs have the same host, or both have a loopback host."""
    hosts = [parsed.host for parsed in map(parse_url, (url, other)) if parsed is not None]
    return len(hosts) == 2 and (hosts[0] == hosts[1] or all(map(is_loopback, hosts)))  # noqa: PLR2004 - both are URLs


def insert_well_known(url: Url, well_known: str) -> str:
    """Insert the well-known path between authority and path. A path of only `/` is left out (RFC 9728 section 3.1)."""
    return str(url._replace(path=well_known + ("" if url.path == "/" else url.path)))


def discovery_urls(issuer: Url, kind: AuthServerType | None) -> tuple[str, ...]:
    """Return the possible URLs of an issuer's metadata, in the order of MCP (revision 2025-11-25, discovery).

    A trailing slash of the issuer is left out (RFC 8414 section 3.1, OpenID Connect Discovery section 4.1).
    """
    base = issuer._replace(path=issuer.path.rstrip("/"))
    inserted = insert_well_known(base, ServerMetadataPaths.OAUTH)
    appended = str(base._replace(path=base.path + ServerMetadataPaths.OIDC))
    if kind is AuthServerType.OAUTH:
        return (inserted,)
    if kind is AuthServerType.OIDC:
        return (appended,)
    return tuple(dict.fromkeys((inserted, insert_well_known(base, ServerMetadataPaths.OIDC), appended)))
