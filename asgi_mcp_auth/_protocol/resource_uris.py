"""The URIs that a server may take a resource's URI for.

A rule is found by the URI as it stands in the message. Servers that parse it before they look it up (pydantic's
`AnyUrl` in MCP SDK 1.x and fastmcp, by the WHATWG's URL standard) resolve dot segments, decode and encode
percent-encoding, lower the host's case, drop default ports, and find a host in `https:host` and a path in `file:path`.
So an unusual URI is judged in every such reading, and refused when their rules differ.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from urllib.parse import quote, unquote

__all__ = ("LONGEST_URI", "is_usual", "readings")

LONGEST_URI = 8192
MAX_DECODINGS = 3

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(//[^/?#]*)?([^?#]*)(.*)", re.DOTALL)
_SPECIAL = re.compile(r"(https?|wss?|ftp|file):(.*)", re.DOTALL | re.IGNORECASE)  # the WHATWG's "special schemes"
# RFC 3986, but no percent-encoding, no upper case in scheme or host, no port or user information, no empty path
# after a host, no empty or dot segment; in special schemes there is a host, and it does not end in a number.
_SCHEME_AND_HOST = (
    r"(?:(?!(?:https?|wss?|ftp|file):)[a-z][a-z0-9+.\-]*:(?://(?!localhost/)[a-z0-9.\-_]*(?=/))?"
    r"|(?:https?|wss?|ftp|file)://(?!localhost/)(?:[a-z0-9_\-]++\.)*+[a-z_][a-z0-9_\-]*+(?=/)"
    r"|file://(?=/))"
)
_REST = r"(?:(?!//|/\.{1,2}(?:[/?#]|\Z))[!#-$&-;=?-Z_a-z~])*+"
_USUAL = re.compile(_SCHEME_AND_HOST + _REST)
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_RESERVED = "!#$%&'()*+,/:;=?@[]{}"


def is_usual(uri: str) -> bool:
    """Whether there is one way to read `uri`, told quickly."""
    return _USUAL.fullmatch(uri) is not None


def readings(uri: str) -> set[str] | None:
    """Every URI that an unusual one may be taken for.

    None when it is not to be read: control characters, spaces, a host that is another one spelled oddly.
    """
    found = {uri}
    decoded = uri
    for _ in range(MAX_DECODINGS):
        decoded = unquote(decoded, errors="replace")
        found.add(decoded)
    if _CONTROL.search(decoded) is not None or unquote(decoded, errors="replace") != decoded:
        return None
    found |= {reading.replace("\\", "/") for reading in found}
    found |= {_with_host(reading) for reading in found}
    if any(map(_has_odd_host, found)):
        return None
    found |= {form for reading in found for form in _forms(reading)}
    return found | {quote(reading, safe=_RESERVED) for reading in found}


def _with_host(uri: str) -> str:
    """A URI of a special scheme with `//` and a host before its path, as the URL standard finds them."""
    special = _SPECIAL.fullmatch(uri)
    if special is None:
        return uri
    scheme, rest = special[1].lower(), special[2]
    if scheme != "file":
        return f"{scheme}://{rest.lstrip('/')}"
    return f"file:{rest}" if rest.startswith("//") else f"file:///{rest.removeprefix('/')}"


def _has_odd_host(uri: str) -> bool:
    """Whether the host of a special scheme has another canonical form: a number, not ASCII, in brackets."""
    parts = None if _SPECIAL.fullmatch(uri) is None else _URI.fullmatch(uri)
    if parts is None or not parts[2]:
        return False
    host = re.sub(r":\d*\Z", "", parts[2].removeprefix("//").rpartition("@")[2]).removesuffix(".")
    if not host.isascii():
        return True  # a look-alike of an ASCII one, or to be encoded (IDNA)
    if host.startswith("["):
        return not _is_canonical(host[1:-1])
    return re.search(r"(?:\A|\.)(?:\d+|0[xX][0-9a-fA-F]*)\Z", host) is not None and not _is_canonical(host)


def _is_canonical(address: str) -> bool:
    try:
        return str(ipaddress.ip_address(address)) == address
    except ValueError:
        return False


def _forms(uri: str) -> set[str]:
    parts = _URI.fullmatch(uri)
    if parts is None:
        return {uri}
    scheme, authority, path, rest = parts[1].lower(), parts[2] or "", parts[3], parts[4]
    user, at, place = authority.removeprefix("//").rpartition("@")
    host, _, port = place.lower().partition(":") if not place.startswith("[") else (place.lower(), "", "")
    starts = {authority, authority.lower(), f"//{host}" if authority else ""}
    starts |= {f"//{user}{at}{place.lower()}", f"//{user}{at}{host}"} if at else set[str]()
    if port.isdecimal() and port.isascii():
        starts.add(f"//{user}{at}{host}:{port.lstrip('0') or '0'}")
    if host == "localhost":  # of a file: no host at all
        starts.add("//")
    merged = re.sub(r"/{2,}", "/", path)
    paths = {path, merged, _resolved(path), _resolved(merged)} | ({"/"} if not path else set[str]())
    drive = re.match(r"/*[A-Za-z][:|]", path) if scheme == "file" else None
    if drive is not None:  # which dots do not leave
        paths.add(drive[0] + _resolved(path[drive.end() :]))
    return {f"{scheme}:{start}{own}{rest}" for start in starts for own in paths}


def _resolved(path: str) -> str:
    """Dot segments resolved; a slash at the end stays."""
    if not path:
        return path
    whole = posixpath.normpath(path)
    return whole + "/" if path.endswith(("/", "/.", "/..")) and not whole.endswith("/") else whole
