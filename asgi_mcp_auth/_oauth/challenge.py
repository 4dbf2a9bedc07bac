"""Building and parsing `WWW-Authenticate` (RFC 9110 section 11.6.1, RFC 6750 section 3).

Real clients extract parameters with unanchored regular expressions. The order is therefore fixed (`error, scope,
resource_metadata, error_description`), free text comes last and contains no `=`, and the Bearer challenge comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from asgi_mcp_auth._oauth.grammar import NQSCHAR, QUOTED_STRING, TOKEN

__all__ = (
    "BEARER",
    "Challenge",
    "CredentialScheme",
    "challenges",
    "parse_challenges",
)

# RFC 6750 section 3; and no "=", because the MCP SDKs search the whole field for `scope=` and the like.
_NOT_DESCRIPTION = re.compile(f"[^{NQSCHAR}]|=")


class CredentialScheme(NamedTuple):
    """A scheme that a resource accepts: its name, and the parameters that only its challenge has."""

    name: str
    params: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> bytes:
        """The name as `read_credential` reports it."""
        return self.name.lower().encode("ascii")


BEARER = CredentialScheme("Bearer")


def challenges(
    schemes: Sequence[CredentialScheme],
    *,
    resource_metadata: str,
    scope: Iterable[str] = (),
    params: Iterable[tuple[str, str]] = (),
    error: str | None = None,
    description: str | None = None,
    used: bytes | None = None,
) -> tuple[bytes, ...]:
    """Return one field value for each scheme, in their order.

    Only the challenge of the scheme that the client used has error parameters, or each if the scheme is unknown
    (RFC 9449 section 7.2). An empty scope is left out: clients read `scope=""` as a scope of two quotes.

    Args:
        schemes: The schemes that the resource accepts.
        resource_metadata: The URL of the resource's metadata.
        scope: The scopes to request.
        params: More parameters of an error, which follow `scope`.
        error: The error code.
        description: A sentence about the error; characters that the grammar excludes are removed.
        used: The scheme that the client used, in lower case; None if it is unknown.
    """
    scopes = " ".join(scope)
    lines: list[bytes] = []
    for scheme in schemes:
        blamed = error is not None and used in (None, scheme.key)
        fields = [
            ("error", error if blamed else None),
            ("scope", scopes or None),
            *(params if blamed else ()),
            *scheme.params,
            ("resource_metadata", resource_metadata),
            ("error_description", _NOT_DESCRIPTION.sub("", description) if blamed and description else None),
        ]
        text = ", ".join(f'{name}="{value}"' for name, value in fields if value is not None)
        lines.append(f"{scheme.name} {text}".encode("ascii"))
    return tuple(lines)


_PARAM = re.compile(rf"\s*({TOKEN})\s*=\s*(?:({QUOTED_STRING})|({TOKEN}))\s*")
_SEPARATOR = re.compile(r"[\s,]*")
_SCHEME = re.compile(rf"\s*({TOKEN})(?:\s++(?!=)|\s*(?=,|$))")


class Challenge(NamedTuple):
    """A challenge read from a response.

    Attributes:
        scheme: The scheme as sent.
        params: The parameters by lower-case name.
    """

    scheme: str
    params: dict[str, str]


def parse_challenges(value: str) -> list[Challenge]:
    """Parse a `WWW-Authenticate` field value: one challenge, or several that are joined by commas.

    For tests and tools: the challenges before the first syntax error are returned.
    """
    found: list[Challenge] = []
    at = 0
    while (at := _SEPARATOR.match(value, at).end()) < len(value):  # type: ignore[union-attr]  # matches "" too
        param = _PARAM.match(value, at)
        if param is not None and found:
            name, quoted, plain = param.groups()
            found[-1].params[name.lower()] = re.sub(r"\\(.)", r"\1", quoted[1:-1]) if plain is None else plain
            at = param.end()
        elif (scheme := _SCHEME.match(value, at)) is not None:
            found.append(Challenge(scheme.group(1), {}))
            at = scheme.end()
        else:
            break
    return found
