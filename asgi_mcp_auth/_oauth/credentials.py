"""Reading the `Authorization` field (RFC 6750 section 2.1, RFC 9110 section 11.4, OAuth 2.1 section 5.1.1).

Only that field: never the query, the body, a cookie or another header. A scheme we do not know is no
credential; a scheme we know in any other shape than `scheme 1*SP token68` is a malformed request.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from asgi_mcp_auth.errors import BadRequest, NoCredential, Reason

__all__ = ("Credential", "has_query_token", "is_token", "read_credential")

MAX_LENGTH = 16 * 1024

REGISTERED_SCHEMES = frozenset(
    (b"basic", b"bearer", b"digest", b"dpop", b"gnap", b"hoba", b"mutual", b"negotiate", b"oauth", b"token", b"vapid")
)

_SCHEME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")
_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/"
_PAIRS = re.compile(rb"[&;]")

_MISSING = NoCredential(Reason.NO_CREDENTIAL)


class Credential(NamedTuple):
    """What was presented: the scheme in lower case and the token, syntactically sound and nothing more."""

    scheme: bytes
    token: bytes

    def __repr__(self) -> str:
        return f"<Credential {self.scheme.decode('ascii')}>"


def _malformed(found: str) -> BadRequest:
    return BadRequest(Reason.MALFORMED_AUTHORIZATION, expected="scheme 1*SP token68", found=found)


def read_credential(lines: list[bytes] | None, schemes: Container[bytes]) -> Credential | NoCredential | BadRequest:
    """The one credential of a request, from its `Authorization` field lines.

    Returns, not raises, the refusal: a request without credentials is the most ordinary one.
    """
    if not lines:
        return _MISSING
    if len(lines) > 1:  # identical or not: RFC 6750 section 3.1, more than one method
        return BadRequest(
            Reason.MULTIPLE_AUTHORIZATION, found=f"{len(lines)} lines", description="Multiple Authorization headers"
        )
    name, _, rest = lines[0].strip(b" \t").partition(b" ")
    scheme = name.lower()
    if scheme not in schemes:
        return _no_credential(scheme, schemes)
    token = rest.lstrip(b" ")
    if is_token(token):
        return Credential(scheme, token)
    right = 0 < len(token) <= MAX_LENGTH
    return _malformed("characters outside token68" if right else f"{len(token)} bytes after the scheme")


def is_token(token: bytes) -> bool:
    """Whether this is token68 (RFC 9110 section 11.2) of a length we read."""
    if len(token) > MAX_LENGTH:
        return False
    body = token.rstrip(b"=")  # padding stands only at the end
    return body != b"" and not body.translate(None, _TOKEN68)


def _no_credential(word: bytes, schemes: Container[bytes]) -> NoCredential | BadRequest:
    """What a first word that is none of our schemes means: another scheme, or one of ours run into something else."""
    scheme = _SCHEME.match(word).group()  # type: ignore[union-attr]  # matches the empty string too
    if scheme in schemes:
        return _malformed("no space after the scheme")
    if not scheme:
        return _MISSING
    # A token without its scheme would stand here, so only names that are known to be schemes are told.
    found = scheme.decode("ascii") if scheme in REGISTERED_SCHEMES else "unknown"
    return NoCredential(Reason.UNSUPPORTED_SCHEME, found=found)


def has_query_token(query_string: bytes) -> bool:
    """Whether a token was put into the URI, where it leaks into logs and referrers (OAuth 2.1 section 5.1)."""
    names = (pair.partition(b"=")[0] for pair in _PAIRS.split(query_string) if b"=" in pair)
    return any(unquote_to_bytes(name) == b"access_token" for name in names)
