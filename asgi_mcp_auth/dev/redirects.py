"""Redirect URIs: which may be registered, which requested, and how an answer is put into one.

Text in, a verdict out (OAuth 2.1 section 4.1.2.1 and 8.4, MCP authorization: open redirection).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from asgi_mcp_auth._oauth.urls import REST, Url, is_loopback, parse_url

__all__ = ("find_redirect", "is_loopback_redirect", "redirect_host", "why_not_redirect", "with_params")

MAX_LENGTH = 2048
# RFC 8252 section 7.3 and 8.3 name the addresses; real clients send the name, with a port that they just opened.
ANY_PORT: Final = ("127.0.0.1", "[::1]", "localhost")
# Schemes that a browser runs, shows or sends itself: no app of its own stands behind them.
NOT_PRIVATE: Final = frozenset(
    {
        *("about", "blob", "cid", "data", "file", "filesystem", "ftp", "ftps", "intent", "jar", "javascript"),
        *("mailto", "mid", "res", "resource", "sms", "tel", "urn", "vbscript", "view-source", "ws", "wss"),
        *("chrome", "chrome-extension", "devtools", "edge", "livescript", "mocha", "moz-extension", "wyciwyg"),
        *("search", "search-ms", "shell", "steam"),
    }
)
NOT_PRIVATE_PREFIX: Final = "ms-"  # Windows' own programs
RESERVED: Final = frozenset({"code", "state", "iss", "error", "error_description"})  # each is there exactly once
_PRIVATE: Final = re.compile(rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):{REST}")


def why_not_redirect(uri: str, *, private_schemes: bool = True) -> str | None:
    """Why `uri` cannot be a redirect URI, or None.

    Accepted: https, http to this machine, and, unless `private_schemes` is off, schemes of apps (`cursor://…`).
    """
    if len(uri) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if "#" in uri:
        return "has a fragment"
    if not RESERVED.isdisjoint(name for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)):
        return "has a parameter of the answer in its query"
    scheme = uri.partition(":")[0].lower()
    if scheme in ("http", "https"):
        url = parse_url(uri)
        if url is None:
            return "is not an absolute URL without user information"
        if scheme == "http" and not is_loopback(url.host):
            return "is http, and not to this machine"
        return None
    if _PRIVATE.fullmatch(uri) is None:
        return "is not an absolute URI"
    if scheme in NOT_PRIVATE or scheme.startswith(NOT_PRIVATE_PREFIX):
        return f"has the scheme {scheme}, which is no app's own"
    return None if private_schemes else "has a private-use scheme"


def _without_port(uri: str) -> Url | None:
    """A loopback URI whose port does not matter, without it."""
    url = parse_url(uri)
    return url._replace(port=None) if url is not None and url.scheme == "http" and url.host in ANY_PORT else None


def find_redirect(registered: Iterable[str], requested: str) -> bool:
    """Whether `requested` was registered: to the letter, but for the port of a loopback URI (RFC 8252 section 7.3)."""
    anywhere = _without_port(requested)
    for uri in registered:
        if uri == requested:
            return True
        if anywhere is not None and _without_port(uri) == anywhere:
            return why_not_redirect(requested) is None
    return False


def is_loopback_redirect(uri: str) -> bool:
    """Whether an answer goes to a program on this machine over http or https."""
    url = parse_url(uri)
    return url is not None and url.scheme in ("http", "https") and is_loopback(url.host)


def redirect_host(uri: str) -> str:
    """Where an answer goes, for people: host and port, or the scheme of an app."""
    url = parse_url(uri)
    if url is not None and url.scheme in ("http", "https"):
        return url.authority
    return uri.partition(":")[0].lower() + ":"


def with_params(uri: str, params: Mapping[str, str]) -> str:
    """The URI with parameters added to its query, which stays (OAuth 2.1 section 4.1.2)."""
    added = urlencode(params, quote_via=quote, safe="", errors="surrogateescape")
    if "?" not in uri:
        return f"{uri}?{added}"
    return f"{uri}{added}" if uri[-1] in "?&" else f"{uri}&{added}"
