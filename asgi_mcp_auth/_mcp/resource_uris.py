"""The forms in which an MCP server may read a resource's URI.

Rules are found by URI, and servers do not look a URI up as it stands in the message. MCP SDK 1.x and fastmcp 2 and 3
parse it by the WHATWG's URL standard (pydantic's `AnyUrl`), templates decode what they capture, and fastmcp ignores
query and fragment when it matches a template (`_compat/servers.py`). `canonical` removes the differences that no server
uses to tell two resources apart; rules and requests are both compared in that form. `forms` lists the canonical form of
every other reading, so that a request whose readings have different rules can be refused.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from urllib.parse import unquote

__all__ = ("MAX_UNUSUAL_LENGTH", "as_read", "canonical", "forms", "is_usual", "with_path", "without_query")

MAX_DECODINGS = 3
MAX_UNUSUAL_LENGTH = 512
MAX_FORMS = 64
MAX_TEMPLATE_FORMS = 8  # each is compared with every rule

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):(//[^/?#]*)?([^?#]*)(.*)", re.DOTALL)
_SPECIAL = re.compile(r"(https?|wss?|ftp|file):(.*)", re.DOTALL | re.IGNORECASE)  # the WHATWG's "special schemes"
_DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21", "file": ""}
_WITHOUT_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*(?=[?#]|\Z)")
# RFC 3986, but no percent-encoding, no upper case in the scheme or in a special scheme's host, no port in a special
# scheme, no zero before a port, no user information, no apostrophe, no empty or dot segment; in special schemes a host
# that does not end in a number, and a path.
_SCHEME_AND_HOST = (
    r"(?:(?!(?:https?|wss?|ftp|file):)[a-z][a-z0-9+.\-]*:(?://[A-Za-z0-9.\-_]*(?::[1-9][0-9]*)?(?=[/?#]|\Z))?"
    r"|(?:https?|wss?|ftp|file)://(?!localhost/)(?:[a-z0-9_\-]++\.)*+[a-z_][a-z0-9_\-]*+(?=/)"
    r"|file://(?=/))"
)
_REST = r"(?:(?!//|/\.{1,2}(?:[/?#]|\Z))[!#-$&(-)+-;=?-Z_a-z~])*+"
_USUAL = re.compile(_SCHEME_AND_HOST + _REST)
_NO_URI = re.compile(r'["<>\\^`|]')  # RFC 3986 has no place for them, and parsers encode them here but not there
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DOTS = re.compile(r"(?:\A|/)\.{1,2}(?:/|\Z)")
_PORT = re.compile(r":[0-9]*\Z")
_USER = re.compile(r"[A-Za-z0-9._~\-]+")
_NUMBER = re.compile(r"(?:\A|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?\Z")  # the URL standard takes such a host for IPv4
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+|%")
_KEPT = re.compile(r"[\x00-\x1f\x7f/?#%\\*{}]")  # delimiters, and the wildcards of rules
_WILDCARDS = re.compile(r"[*{}]")


def is_usual(uri: str) -> bool:
    """Return whether every server reads `uri` in the same way, apart from its query and fragment."""
    return _USUAL.fullmatch(uri) is not None


def with_path(uri: str) -> str:
    """Return `uri` with `/` for an empty path after a host: `scheme://host` and `scheme://host/` are one resource."""
    found = _WITHOUT_PATH.match(uri)
    return uri if found is None else f"{found[0]}/{uri[found.end() :]}"


def without_query(uri: str) -> tuple[str, ...]:
    """Return `uri` without its fragment, and without query and fragment, as far as `uri` has them."""
    if "#" not in uri and "?" not in uri:
        return ()
    no_fragment = uri.partition("#")[0]
    return tuple({no_fragment, no_fragment.partition("?")[0]} - {uri})


def canonical(uri: str, *, wildcards: bool = False) -> str:
    """Return the form in which rules and requests are compared.

    Percent-encoding is removed except for delimiters. A special scheme's host is in lower case and has no default port.

    Args:
        uri: The URI, or a rule or a template.
        wildcards: Whether `*`, `{` and `}` are wildcards, not characters. An empty path is left alone then.
    """
    text = _ENCODED.sub(_decode, uri)
    if not wildcards:
        text = with_path(_WILDCARDS.sub(_encode, text))
    parts = _URI.fullmatch(text)
    if parts is None or not parts[2]:
        return text
    scheme, authority = parts[1], parts[2]
    user, at, place = authority[2:].rpartition("@")
    host = _PORT.sub("", place)
    port = place[len(host) + 1 :]
    port = port and (port.lstrip("0") or "0")
    default = _DEFAULT_PORTS.get(scheme.lower())
    if default is not None:
        host, port = host.lower(), "" if port == default else port
    return f"{scheme}://{user}{at}{host}{port and ':' + port}{parts[3]}{parts[4]}"


def as_read(uri: str) -> str:
    """Return a URI with one reading as a function of the server gets it: decoded, in special schemes with a path."""
    text = canonical(uri, wildcards=True)
    return text if _SPECIAL.match(text) is None else with_path(text)


def _decode(encoded: re.Match[str]) -> str:
    run = encoded[0]
    if run == "%":
        return "%25"
    try:
        return _KEPT.sub(_encode, bytes.fromhex(run.replace("%", "")).decode("utf-8"))
    except UnicodeDecodeError:
        return run.upper()


def _encode(char: re.Match[str]) -> str:
    return f"%{ord(char[0]):02X}"


def forms(uri: str, *, wildcards: bool = False) -> frozenset[str] | None:
    """Return the canonical form of every reading of an unusual URI.

    Return None if the URI is too long or has too many forms, contains control characters or characters that no URI has,
    or if parsers disagree about it.

    Args:
        uri: The URI, or a template.
        wildcards: As for `canonical`; forms with an empty path come with and without `/` then.
    """
    if len(uri) > MAX_UNUSUAL_LENGTH or _NO_URI.search(uri) is not None:
        return None
    texts = {uri}
    decoded = uri
    for _ in range(MAX_DECODINGS):
        decoded = unquote(decoded, errors="replace")
        texts.add(decoded)
    if _CONTROL.search(decoded) is not None or unquote(decoded, errors="replace") != decoded:
        return None
    if decoded != decoded.strip():
        return None
    texts |= {text.replace("\\", "/") for text in texts}
    texts |= {_with_host(text) for text in texts}
    if any(map(_is_unreadable, texts)):
        return None
    found: set[str] = set()
    for text in {canonical(text, wildcards=wildcards) for text in texts}:
        found |= _variants(text)
        if len(found) > (MAX_TEMPLATE_FORMS if wildcards else MAX_FORMS):
            return None
    return frozenset(found | set(map(with_path, found)) if wildcards else found)


def _with_host(uri: str) -> str:
    """Return a URI of a special scheme with `//` and a host before its path, as the URL standard finds them."""
    special = _SPECIAL.fullmatch(uri)
    if special is None:
        return uri
    scheme, rest = special[1].lower(), special[2]
    if scheme != "file":
        return f"{scheme}://{rest.lstrip('/')}"
    return f"file:{rest}" if rest.startswith("//") else f"file:///{rest.removeprefix('/')}"


def _is_unreadable(uri: str) -> bool:
    """Return whether parsers disagree: dots beside empty segments, a password, a host not in its canonical form."""
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


def _variants(uri: str) -> set[str]:
    """Return the readings of a canonical form: the scheme's case, dot segments, doubled slashes, special schemes."""
    parts = _URI.fullmatch(uri)
    if parts is None:
        return {uri}
    scheme, authority, path, rest = parts[1], parts[2] or "", parts[3], parts[4]
    lower = scheme.lower()
    starts = {authority}
    if authority and lower in _DEFAULT_PORTS:
        starts.add("//" + authority[2:].rpartition("@")[2])
    merged = re.sub(r"/{2,}", "/", path)
    paths = {path, merged, _resolved(path), _resolved(merged)}
    if lower == "file":
        if authority == "//localhost":
            starts.add("//")
        one = "/" + path.lstrip("/")  # the URL standard merges the slashes at the beginning of a file's path
        paths |= {one, _resolved(one)}
        drive = re.match(r"/*[A-Za-z][:|]", path)
        if drive is not None:  # which dots do not leave
            rest_of_path = path[drive.end() :]
            paths |= {drive[0][:-1] + ":" + own for own in (rest_of_path, _resolved(rest_of_path))}
    return {f"{case}:{start}{own}{rest}" for case in {scheme, lower} for start in starts for own in paths}


def _resolved(path: str) -> str:
    """Return `path` with its dot segments resolved; a slash at the end stays."""
    if not path:
        return path
    whole = posixpath.normpath(path)
    return whole + "/" if path.endswith(("/", "/.", "/..")) and not whole.endswith("/") else whole
