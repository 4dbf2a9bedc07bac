"""Reading `WWW-Authenticate` back, for tests and tools (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ("Challenge", "parse_challenges")

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAM = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_SEPARATOR = re.compile(r"[\s,]*")
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s++(?!=)|\s*(?=,|$))")


class Challenge(NamedTuple):
    """A challenge read from a response: the scheme as sent, parameters by lower-case name."""

    scheme: str
    params: dict[str, str]


def parse_challenges(value: str) -> list[Challenge]:
    """Read a `WWW-Authenticate` field value, of one challenge or several joined by commas.

    For tests and tools. Stops at the first thing it cannot read and returns what came before.
    """
    found: list[Challenge] = []
    at = 0
    while (at := _SEPARATOR.match(value, at).end()) < len(value):  # type: ignore[union-attr]  # matches "" too
        param = _PARAM.match(value, at)
        if param is not None and found:
            name, quoted, plain = param.groups()
            found[-1].params[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if plain is None else plain
            at = param.end()
        elif (scheme := _SCHEME.match(value, at)) is not None:
            found.append(Challenge(scheme.group(1), {}))
            at = scheme.end()
        else:
            break
    return found
