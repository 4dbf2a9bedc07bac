"""Redirect URIs: registration rules, matching, and response parameters (OAuth 2.1 sections 4.1.2.1 and 8.4)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from asgi_mcp_auth._oauth.urls import REST, Url, is_loopback, parse_url

__all__ = (
    "is_loopback_redirect",
    "is_registered",
    "redirect_host",
    "redirect_uri_error",
    "scheme_error",
    "with_params",
)

MAX_LENGTH = 2048
# RFC 8252 sections 7.3 and 8.3 name the addresses. Real clients use the name too, with a port that was just opened.
ANY_PORT: Final = ("127.0.0.1", "[::1]", "localhost")
# Schemes that a browser executes or displays itself, and schemes with rules of their own here.
NEVER_PRIVATE: Final = frozenset(
    {"about", "blob", "data", "file", "filesystem", "http", "https", "javascript", "vbscript", "view-source"}
)
RESERVED: Final = frozenset({"code", "state", "iss", "error", "error_description"})  # each occurs exactly once
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.\-]*")
_REVERSE_DOMAIN: Final = re.compile(r"[a-z][a-z0-9\-]*(\.[a-z0-9\-]+)+")  # RFC 8252 section 7.1
_PRIVATE: Final = re.compile(rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):{REST}")


def scheme_error(scheme: str) -> str | None:
    """Return why an operator cannot list `scheme` for redirect URIs, or None."""
    if _SCHEME.fullmatch(scheme) is None:
        return "is not a URI scheme in lower case"
    return "is executed or displayed by browsers" if scheme in NEVER_PRIVATE else None


def redirect_uri_error(uri: str, *, private_schemes: bool = True, listed: Collection[str] = ()) -> str | None:
    """Return why `uri` cannot be a redirect URI, or None.

    https and loopback http are always accepted. A private-use scheme has to contain a dot (RFC 8252 section 7.1) or to
    be listed: other schemes start programs of the system (`ssh:`, `smb:`, `itms-services:`).

    Args:
        uri: The URI.
        private_schemes: Whether private-use schemes are accepted at all.
        listed: Accepted schemes without a dot.
    """
    if len(uri) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    if "#" in uri:
        return "has a fragment"
    if not RESERVED.isdisjoint(name for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)):
        return "has a response parameter in its query"
    scheme = uri.partition(":")[0].lower()
    if scheme in ("http", "https"):
        url = parse_url(uri)
        if url is None:
            return "is not an absolute URL without user information"
        if scheme == "http" and not is_loopback(url.host):
            return "is http, but not on loopback"
        return None
    if _PRIVATE.fullmatch(uri) is None:
        return "is not an absolute URI"
    if not private_schemes:
        return "has a private-use scheme"
    if _REVERSE_DOMAIN.fullmatch(scheme) is None and scheme not in listed:
        return f"has the scheme {scheme}, which is neither a reverse domain name (RFC 8252) nor in redirect_schemes"
    return None


def _without_port(uri: str) -> Url | None:
    """Return a loopback URI without its port, or None if the port of the URI matters."""
    url = parse_url(uri)
    return url._replace(port=None) if url is not None and url.scheme == "http" and url.host in ANY_PORT else None


def is_registered(registered: Iterable[str], requested: str) -> bool:
    """Return whether `requested` equals a registered URI; the port of a loopback URI may differ (RFC 8252 7.3)."""
    portless = _without_port(requested)
    for uri in registered:
        if uri == requested:
            return True
        if portless is not None and _without_port(uri) == portless:
            return redirect_uri_error(requested) is None
    return False


def is_loopback_redirect(uri: str) -> bool:
    """Return whether a redirect reaches a program on this machine over http or https."""
    url = parse_url(uri)
    return url is not None and url.scheme in ("http", "https") and is_loopback(url.host)


def redirect_host(uri: str) -> str:
    """Return the target of a redirect for people: host and port, or the private-use scheme."""
    url = parse_url(uri)
    if url is not None and url.scheme in ("http", "https"):
        return url.authority
    return uri.partition(":")[0].lower() + ":"


def with_params(uri: str, params: Mapping[str, str]) -> str:
    """Return the URI with parameters added to its query (OAuth 2.1 section 4.1.2)."""
    added = urlencode(params, quote_via=quote, safe="", errors="surrogateescape")
    if "?" not in uri:
        return f"{uri}?{added}"
    return f"{uri}{added}" if uri[-1] in "?&" else f"{uri}&{added}"
