"""The URIs that a server may take a resource's URI for.

A rule is found by the URI as it stands in the message. Servers that parse it before they look it up (pydantic's
`AnyUrl` in MCP SDK 1.x and fastmcp) resolve dot segments, decode and encode percent-encoding, lower the host's case
and drop default ports. So an unusual URI is judged in every such reading, and refused when their rules differ.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote, unquote

__all__ = ("LONGEST_URI", "is_usual", "readings")

LONGEST_URI = 8192
MAX_DECODINGS = 3

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(//[^/?#]*)?([^?#]*)(.*)", re.DOTALL)
# RFC 3986, but no percent-encoding, no upper case in scheme or host, no port or user information, no empty path
# after a host, no empty or dot segment.
_SCHEME_AND_HOST = r"[a-z][a-z0-9+.\-]*:(?://(?!localhost/)[a-z0-9.\-_]*(?=/))?"
_REST = r"(?:(?!//|/\.{1,2}(?:[/?#]|\Z))[!#-$&-;=?-Z_a-z~])*+"
_USUAL = re.compile(_SCHEME_AND_HOST + _REST)
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_RESERVED = "!#$%&'()*+,/:;=?@[]{}"


def is_usual(uri: str) -> bool:
    """Whether there is one way to read `uri`, told quickly."""
    return _USUAL.fullmatch(uri) is not None


def readings(uri: str) -> set[str] | None:
    """Every URI that an unusual one may be taken for; None when it is not to be read: control characters, spaces."""
    found = {uri}
    decoded = uri
    for _ in range(MAX_DECODINGS):
        decoded = unquote(decoded, errors="replace")
        found.add(decoded)
    if _CONTROL.search(decoded) is not None or unquote(decoded, errors="replace") != decoded:
        return None
    found |= {reading.replace("\\", "/") for reading in found}
    found |= {form for reading in found for form in _forms(reading)}
    return found | {quote(reading, safe=_RESERVED) for reading in found}


def _forms(uri: str) -> set[str]:
    parts = _URI.fullmatch(uri)
    if parts is None:
        return {uri}
    scheme, authority, path, rest = parts[1].lower(), parts[2] or "", parts[3], parts[4]
    host = re.sub(r":\d*\Z", "", authority.removeprefix("//").rpartition("@")[2].lower())
    starts = {authority, authority.lower(), f"//{host}" if authority else ""}
    if host == "localhost":  # of a file: no host at all
        starts.add("//")
    merged = re.sub(r"/{2,}", "/", path)
    paths = {path, merged, _resolved(path), _resolved(merged)} | ({"/"} if not path else set[str]())
    return {f"{scheme}:{start}{own}{rest}" for start in starts for own in paths}


def _resolved(path: str) -> str:
    """Dot segments resolved; a slash at the end stays."""
    if not path:
        return path
    whole = posixpath.normpath(path)
    return whole + "/" if path.endswith(("/", "/.", "/..")) and not whole.endswith("/") else whole
