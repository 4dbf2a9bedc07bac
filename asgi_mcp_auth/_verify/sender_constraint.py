"""Step 8 of a request: whether the sender of a token is the party that the token is bound to.

The token has been verified before. A token that is bound to a key or to a certificate is no bearer token (RFC 9449
section 7.2, RFC 8705 section 3), and a token that is bound to nothing is no DPoP token.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable
from typing import Protocol

from asgi_mcp_auth._oauth.confirmation import read_confirmation
from asgi_mcp_auth._policy.client_certificates import CertificateSource
from asgi_mcp_auth._request import RequestInfo, Scope
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal

__all__ = ("CertificateBinding", "Mechanism", "SenderConstraint")

DPOP = b"dpop "


class Mechanism(Protocol):
    """Verifies one kind of proof of possession."""

    def check(self, verified: Verified, request: RequestInfo) -> Verified | Refusal | Awaitable[Verified | Refusal]:
        """Return the identity, the refusal, or an awaitable of one of them."""
        ...


class CertificateBinding:
    """Compares the certificate of a request with the certificate that its token is bound to.

    The certificate's issuer and validity are not checked: the binding is to the certificate itself (section 6.2), and
    the TLS handshake has shown that the client holds its private key.
    """

    def __init__(self, source: CertificateSource) -> None:
        self._source = source

    def check(self, verified: Verified, request: RequestInfo) -> Verified | InvalidToken:
        """Return the identity if the request came with the certificate of the token, else the refusal."""
        info, bound = verified.auth_info, verified.confirmation
        fault = self._find_fault("" if bound is None else bound.x5t_s256 or "", request.scope)
        if fault is None:
            return verified
        reason, found = fault
        expected = "the client certificate of the token"
        return InvalidToken(reason, expected=expected, found=found, issuer=info.issuer, client_id=info.client_id)

    def _find_fault(self, expected: str, scope: Scope) -> tuple[Reason, str] | None:
        try:
            thumbprint = self._source.thumbprint(scope)
        except ValueError as error:
            return Reason.CLIENT_CERTIFICATE_MISSING, str(error)
        if thumbprint is None:
            return Reason.CLIENT_CERTIFICATE_MISSING, "no client certificate"
        if not hmac.compare_digest(thumbprint, expected):
            return Reason.CLIENT_CERTIFICATE_MISMATCH, "another certificate"
        return None


class SenderConstraint:
    """The proofs of possession that one resource verifies.

    Args:
        methods: The members of `cnf` that are verified.
        dpop: Verifies DPoP proofs; None if the resource does not accept the scheme DPoP.
        certificates: Verifies client certificates; None if the resource does not.
    """

    def __init__(
        self, methods: frozenset[str], *, dpop: Mechanism | None = None, certificates: Mechanism | None = None
    ) -> None:
        self._methods = methods
        self._dpop = dpop
        self._certificates = certificates

    def bind(self, verified: Verified) -> Verified | Refusal:
        """Return the answer of a verifier of the user's own, with what its claim `cnf` binds the credential to."""
        if verified.confirmation is not None:
            return verified
        try:
            bound = read_confirmation(verified.auth_info.claims.get("cnf"), self._methods)
        except InvalidToken as refusal:
            return refusal.without_traceback()
        return verified if bound is None else verified._replace(confirmation=bound)

    def check(self, verified: Verified, request: RequestInfo) -> Verified | Refusal | Awaitable[Verified | Refusal]:
        """Return the identity if its token is bound to nothing, or to what the request proves possession of.

        The scheme DPoP demands a proof. Under Bearer, a token that is bound to a DPoP key is refused: the proof would
        not be checked. The certificate of a token is checked under both schemes.
        """
        uses_dpop = _uses_dpop(request)
        bound = verified.confirmation
        if bound is None and not uses_dpop:
            return verified
        if bound is not None and bound.x5t_s256 is not None and self._certificates is not None:
            decided = self._certificates.check(verified, request)
            if not isinstance(decided, Verified) or (bound.jkt is None and not uses_dpop):
                return decided
        if uses_dpop and self._dpop is not None:
            return self._dpop.check(verified, request)
        info, expected = verified.auth_info, "no cnf" if self._dpop is None else "the scheme DPoP and a proof"
        return InvalidToken(
            Reason.SENDER_CONSTRAINED, expected=expected, found="cnf", issuer=info.issuer, client_id=info.client_id
        )


def _uses_dpop(request: RequestInfo) -> bool:
    """Return whether the credential has the scheme DPoP. It has been read: there is at most one, in the known form."""
    lines = request.fields.get(b"authorization")
    return lines is not None and lines[0].lstrip(b" \t")[:5].lower() == DPOP
