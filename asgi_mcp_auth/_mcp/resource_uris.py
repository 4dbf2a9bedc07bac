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

__all__ = ("is_usual", "readings")

MAX_DECODINGS = 3

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(//[^/?#]*)?([^?#]*)(.*)", re.DOTALL)
_SPECIAL = re.compile(r"(https?|wss?|ftp|file):(.*)", re.DOTALL | re.IGNORECASE)  # the WHATWG's "special schemes"
# RFC 3986, but no percent-encoding, no upper case in scheme or host, no port or user information, no apostrophe,
# no empty path after a host, no empty or dot segment; in special schemes a host, which does not end in a number.
_SCHEME_AND_HOST = (
    r"(?:(?!(?:https?|wss?|ftp|file):)[a-z][a-z0-9+.\-]*:(?://(?!localhost/)[a-z0-9.\-_]*(?=/))?"
    r"|(?:https?|wss?|ftp|file)://(?!localhost/)(?:[a-z0-9_\-]++\.)*+[a-z_][a-z0-9_\-]*+(?=/)"
    r"|file://(?=/))"
)
_REST = r"(?:(?!//|/\.{1,2}(?:[/?#]|\Z))[!#-$&(-;=?-Z_a-z~])*+"
_USUAL = re.compile(_SCHEME_AND_HOST + _REST)
_NO_URI = re.compile(r'["<>\\^`|]')  # RFC 3986 has no place for them, and parsers encode them here but not there
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_DOTS = re.compile(r"(?:\A|/)\.{1,2}(?:/|\Z)")
_ENCODED_DOTS = re.compile(r"(?:(?<=/)|\A)(?:\.|%2[eE]){1,2}(?=/|\Z)")
_PORT = re.compile(r":[0-9]*\Z")
_USER = re.compile(r"[A-Za-z0-9._~\-]+")
_NUMBER = re.compile(r"(?:\A|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?\Z")  # the URL standard takes such a host for IPv4
_RESERVED = "!#$%&'()*+,/:;=?@[]{}"


def is_usual(uri: str) -> bool:
    """Whether there is one way to read `uri`, told quickly."""
    return _USUAL.fullmatch(uri) is not None


def readings(uri: str) -> set[str] | None:
    """Every URI that an unusual one may be taken for.

    None when it is not to be read: control characters, spaces, what no URI has, and what
    parsers disagree about.
    """
    if _NO_URI.search(uri) is not None:
        return None
    found = {uri}
    decoded = uri
    for _ in range(MAX_DECODINGS):
        decoded = unquote(decoded, errors="replace")
        found.add(decoded)
    if _CONTROL.search(decoded) is not None or unquote(decoded, errors="replace") != decoded:
        return None
    found |= {reading.replace("\\", "/") for reading in found}
    found |= {_with_host(reading) for reading in found}
    if any(map(_is_unreadable, found)):
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


def _is_unreadable(uri: str) -> bool:
    """Whether parsers disagree about it: dots beside empty segments, a password, a host not in its canonical form."""
    parts = _URI.fullmatch(uri)
    if parts is None:
        return False
    if "//" in parts[3] and _DOTS.search(parts[3]) is not None:
        return True
    if not parts[2]:
        return False
    user, at, place = parts[2].removeprefix("//").rpartition("@")
    if at and _USER.fullmatch(user) is None:
        return True
    host = _PORT.sub("", place)
    if _SPECIAL.fullmatch(uri) is None:
        return host.startswith("[") and not _is_canonical(host[1:-1])
    if not host.isascii() or "%" in host:
        return True  # to be decoded, or to be encoded (IDNA); perhaps a look-alike
    if parts[1].lower() == "file" and ":" in place:
        return True  # a drive
    number = host.startswith("[") or _NUMBER.search(host) is not None
    return number and not _is_canonical(host.strip("[]"))


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
    starts = {authority}
    host = ""
    if authority:
        user, at, place = authority[2:].rpartition("@")
        name = _PORT.sub("", place)
        port = place[len(name) :]
        host = name.lower()
        ports = {port, "", f":{port[1:].lstrip('0') or '0'}"} if port[1:] else {port, ""}
        starts |= {f"//{u}{h}{p}" for u in {user + at, ""} for h in (name, host) for p in ports}
    if host == "localhost":  # of a file: no host at all
        starts.add("//")
    path = _ENCODED_DOTS.sub(lambda segment: unquote(segment[0]), path)
    merged = re.sub(r"/{2,}", "/", path)
    one = "/" + path.lstrip("/")  # the URL standard merges the slashes at the beginning of a file's path
    paths = {parts[3], path, merged, _resolved(path), _resolved(merged), one, _resolved(one)}
    drive = re.match(r"/*[A-Za-z][:|]", path) if scheme == "file" else None
    if drive is not None:  # which dots do not leave
        rest_of_path = path[drive.end() :]
        paths |= {drive[0][:-1] + ":" + own for own in (rest_of_path, _resolved(rest_of_path))}
    ends = {rest, rest.replace("'", "%27")}  # encoded in queries only
    return {f"{scheme}:{start}{own}{end}" for start in starts for own in paths for end in ends}


def _resolved(path: str) -> str:
    """Dot segments resolved; a slash at the end stays."""
    if not path:
        return path
    whole = posixpath.normpath(path)
    return whole + "/" if path.endswith(("/", "/.", "/..")) and not whole.endswith("/") else whole
