"""Reading the `Authorization` field (RFC 6750 section 2.1, RFC 9110 section 11.4, OAuth 2.1 section 5.1.1).

Only that field carries a credential: the query, the body, cookies and other fields never do. A scheme that the
resource does not accept is no credential. An accepted scheme in any other form than `scheme 1*SP token68` is a
malformed request.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from asgi_mcp_auth._oauth.grammar import TCHAR, is_token68
from asgi_mcp_auth.errors import BadRequest, NoCredential, Reason

__all__ = ("MAX_LENGTH", "Credential", "has_query_token", "is_token", "read_credential", "scheme_of", "used_scheme")

# 16 KiB is what h11 and Node.js accept for all header fields of a request; gunicorn and Apache accept 8,190 bytes for a
# field line. So no usual server in front of the app passes on a longer token.
MAX_LENGTH = 16 * 1024

REGISTERED_SCHEMES = frozenset(
    (b"basic", b"bearer", b"digest", b"dpop", b"gnap", b"hoba", b"mutual", b"negotiate", b"oauth", b"token", b"vapid")
)

MAX_SCHEME_LENGTH = max(map(len, REGISTERED_SCHEMES))
_SCHEME = re.compile(f"[{TCHAR}]*".encode("ascii"))
_PAIRS = re.compile(rb"[&;]")

_MISSING = NoCredential(Reason.NO_CREDENTIAL)


class Credential(NamedTuple):
    """A scheme in lower case and a token68. Only their syntax has been checked."""

    scheme: bytes
    token: bytes

    def __repr__(self) -> str:
        return f"<Credential {self.scheme.decode('ascii')}>"


def _malformed(found: str, expected: str = "scheme 1*SP token68") -> BadRequest:
    return BadRequest(Reason.MALFORMED_AUTHORIZATION, expected=expected, found=found)


def read_credential(lines: list[bytes] | None, schemes: Container[bytes]) -> Credential | NoCredential | BadRequest:
    """Return the one credential in the `Authorization` field lines of a request, or the refusal.

    The refusal is returned and not raised: requests without credentials are frequent.
    """
    if not lines:
        return _MISSING
    if len(lines) > 1:  # RFC 6750 section 3.1: more than one method, also if the lines are identical
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
    if len(token) > MAX_LENGTH:
        return _malformed(f"{len(token)} bytes after the scheme", f"at most {MAX_LENGTH} bytes after the scheme")
    return _malformed("characters outside token68" if token else "nothing after the scheme")


def is_token(token: bytes) -> bool:
    """Return whether `token` is token68 and not longer than `MAX_LENGTH`."""
    return len(token) <= MAX_LENGTH and is_token68(token)


def _no_credential(word: bytes, schemes: Container[bytes]) -> NoCredential | BadRequest:
    """Return the refusal of a field whose first word is no accepted scheme."""
    scheme = _SCHEME.match(word).group()  # type: ignore[union-attr]  # matches the empty string too
    if scheme in schemes:
        return _malformed("no space after the scheme")
    if not scheme:
        return _MISSING
    # Clients that forget the scheme send their token as the first word, so only registered schemes are logged.
    found = scheme.decode("ascii") if scheme in REGISTERED_SCHEMES else "unknown"
    return NoCredential(Reason.UNSUPPORTED_SCHEME, found=found)


def scheme_of(lines: list[bytes] | None) -> str | None:
    """Return the scheme in lower case for logs; None if there is no registered scheme. The word may be a token."""
    if not lines:
        return None
    word = lines[0].lstrip(b" \t")[: MAX_SCHEME_LENGTH + 1].partition(b" ")[0].lower()
    return word.decode("ascii") if word in REGISTERED_SCHEMES else None


def used_scheme(lines: list[bytes] | None, schemes: Container[bytes]) -> bytes | None:
    """Return the accepted scheme that the client used, also of a malformed credential; None for none or several."""
    if not lines or len(lines) > 1:
        return None
    scheme = _SCHEME.match(lines[0].lstrip(b" \t")[: MAX_SCHEME_LENGTH + 1]).group().lower()  # type: ignore[union-attr]
    return scheme if scheme in schemes else None


def has_query_token(query_string: bytes) -> bool:
    """Return whether the query has an `access_token`, which leaks into logs and referrers (OAuth 2.1 section 5.1)."""
    names = (pair.partition(b"=")[0] for pair in _PAIRS.split(query_string) if b"=" in pair)
    return any(unquote_to_bytes(name) == b"access_token" for name in names)
