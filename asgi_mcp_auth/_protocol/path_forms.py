"""The forms of one path: how routers may read it, and the form in which it is judged and configured.

Frameworks route the decoded path, and many also serve other spellings of it (`%2F`, `//`, dot segments, a trailing
slash).
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple
from urllib.parse import unquote

from asgi_mcp_auth.errors import BadRequest, Reason

__all__ = ("PathRule", "ambiguous", "canonical_path", "full_path", "is_canonical", "parse_rule", "readings")

MAX_DECODINGS = 3
MAX_UNUSUAL = 4096  # a longer path that is not canonical is refused unread
# Routers written with regular expressions let `$` match before a final newline.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SLASHES = re.compile(r"/{2,}")
# A mistyped method would be a rule that never applies.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))


def ambiguous(path: str) -> BadRequest:
    return BadRequest(Reason.AMBIGUOUS_PATH, found=path, description="Ambiguous request path")


def _decodings(path: str) -> list[str]:
    r"""The path and its repeated decodings until they are stable, `\\` as `/`.

    Raises:
        BadRequest: No path, a control character, too long, or still changing.
    """
    if path[:1] != "/" or len(path) > MAX_UNUSUAL:
        raise ambiguous(path)
    found = [path]
    while (decoded := unquote(found[-1]).replace("\\", "/")) != found[-1]:
        if len(found) > MAX_DECODINGS:
            raise ambiguous(path)
        found.append(decoded)
    if _CONTROL.search(found[-1]) is not None:
        raise ambiguous(path)
    return found


def _without_dots(path: str) -> str:
    """Dot segments resolved and nothing else: empty segments stay."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def readings(path: str) -> set[str]:
    """Every path that a router may take an unusual one for: decoded, slashes merged, dots resolved, in any combination.

    Raises:
        BadRequest: It cannot be read at all.
    """
    found: set[str] = set()
    for decoded in _decodings(path):
        merged = _SLASHES.sub("/", decoded)
        found |= {decoded, merged, _without_dots(decoded), _without_dots(merged), posixpath.normpath(merged)}
    return found | {reading.rstrip("/") or "/" for reading in found}


def canonical_path(path: str) -> str:
    r"""Decoded until stable, `\` as `/`, slashes merged, dot segments resolved, no trailing slash.

    Raises:
        BadRequest: It does not begin with `/` (absolute form), has a control character, or does not become stable.
    """
    return posixpath.normpath(_SLASHES.sub("/", _decodings(path)[-1]))


def is_canonical(path: str) -> bool:
    """Whether `path` is its own canonical form, told quickly."""
    return (
        path[:1] == "/"
        and path.isprintable()
        and "//" not in path
        and "/." not in path
        and "%" not in path
        and "\\" not in path
        and (path[-1] != "/" or len(path) == 1)
    )


def full_path(path: str, root_path: str) -> str:
    """The public path: servers and frameworks disagree on whether `path` has the `root_path` in front of it.

    Raises:
        BadRequest: The root path stands somewhere else in the path, where some routers cut it off.
    """
    root = root_path.rstrip("/")
    if not root or path == root or path.startswith(root + "/"):
        return path
    if root in path:
        raise ambiguous(path)
    return root + path


class PathRule(NamedTuple):
    """`"/x"` (exact) or `"/x/*"` (`/x` and everything below), perhaps for one method only."""

    method: str | None
    path: str
    below: bool


def parse_rule(text: str) -> PathRule | None:
    """Read `[METHOD ]/path[/*]`, or None when it is not one or the path is not canonical."""
    method, space, path = text.rpartition(" ")
    below = path.endswith("/*")
    if below:
        path = path[:-2] or "/"
    if path[:1] != "/" or "*" in path or (space and method.upper() not in METHODS):
        return None
    try:
        if canonical_path(path) != path:
            return None
    except BadRequest:
        return None
    return PathRule(method.upper() or None, path, below)
