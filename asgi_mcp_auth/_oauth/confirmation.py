"""The `cnf` claim of an access token (RFC 7800): the key that the sender of the token has to prove possession of."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from asgi_mcp_auth._oauth.json_types import is_object
from asgi_mcp_auth.errors import InvalidToken, Reason

__all__ = ("CERTIFICATE", "DPOP_KEY", "Confirmation", "read_confirmation")

DPOP_KEY: Final = "jkt"
"""The member with the thumbprint of a DPoP key (RFC 9449 section 6.1)."""

CERTIFICATE: Final = "x5t#S256"
"""The member with the thumbprint of a client certificate (RFC 8705 section 3.1)."""

_SHA256 = re.compile("[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The members of a `cnf` claim that a resource can verify; at least one is set.

    Attributes:
        jkt: The SHA-256 thumbprint of the DPoP key (RFC 7638).
        x5t_s256: The SHA-256 thumbprint of the client certificate.
    """

    jkt: str | None = None
    x5t_s256: str | None = None


def read_confirmation(cnf: object, methods: Collection[str]) -> Confirmation | None:
    """Return the members of `cnf` that the resource verifies, or None if the token is not bound to its sender.

    A token is refused unless one member can be verified (RFC 7800 section 3.1 leaves this to the application), and if
    it has the other mechanism's member: the token would be accepted without that proof. Other members are ignored.

    Args:
        cnf: The value of the claim; `null` is absent.
        methods: The members that the resource verifies, `DPOP_KEY` or `CERTIFICATE`.

    Raises:
        InvalidToken: `sender_constrained` or `malformed_claim`.
    """
    if cnf is None:
        return None
    members = cnf if is_object(cnf) else {}
    known = {method: members[method] for method in methods if members.get(method) is not None}
    if not known or any(members.get(name) is not None for name in {DPOP_KEY, CERTIFICATE}.difference(methods)):
        expected = f"cnf with {' or '.join(sorted(methods))}" if methods else "no cnf"
        raise InvalidToken(Reason.SENDER_CONSTRAINED, expected=expected, found="cnf")
    jkt, certificate = known.get(DPOP_KEY), known.get(CERTIFICATE)
    if not isinstance(jkt, str | None) or not isinstance(certificate, str | None):
        raise InvalidToken(Reason.MALFORMED_CLAIM, expected="a well-formed cnf", found="a thumbprint that is no string")
    if not all(_SHA256.fullmatch(thumbprint) for thumbprint in (jkt, certificate) if thumbprint is not None):
        raise InvalidToken(Reason.MALFORMED_CLAIM, expected="a well-formed cnf", found="no SHA-256 thumbprint")
    return Confirmation(jkt, certificate)
