"""Senders at the token endpoint: the key or certificate that a client proves possession of, and the faults in it.

The key is that of a DPoP proof (RFC 9449 section 5), the certificate that of the field `Client-Cert` (RFC 9440), which
every client can send: a proxy of yours in front of this server sets the field, or the client itself.

A proof may be sent again here: this server is for development, and keeps no proofs.
"""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from asgi_mcp_auth._oauth.certificates import read_client_cert
from asgi_mcp_auth._oauth.dpop_proof import Expected, ProofSettings, check_proof, make_nonce
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._core import Core
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._metadata import PROOF_ALGORITHMS
from asgi_mcp_auth.dev._switches import Switch
from asgi_mcp_auth.errors import InvalidProof, InvalidToken
from asgi_mcp_auth.testing import ClientCertificate, SigningKey

__all__ = ("Sender", "confirmation_of", "read_sender")

CERTIFICATE_FIELD: Final = b"client-cert"
SETTINGS: Final = ProofSettings(frozenset(PROOF_ALGORITHMS), 300.0)


class Sender(NamedTuple):
    """What a client proves possession of: the thumbprints of its DPoP key and of its certificate."""

    jkt: str | None
    certificate: str | None

    @property
    def thumbprint(self) -> str | None:
        """What the refresh token of a client without a secret is bound to."""
        return self.jkt or self.certificate

    @property
    def token_type(self) -> str:
        """The type of the client's access tokens."""
        return "Bearer" if self.jkt is None else "DPoP"


def read_sender(core: Core, request: RequestInfo) -> Sender:
    """Return what the client of a token request proves possession of.

    Raises:
        OAuthError: `invalid_dpop_proof`; `use_dpop_nonce` with the fault of that name; `invalid_request`.
    """
    lines = [value for name, value in request.scope["headers"] if name.lower() == CERTIFICATE_FIELD]
    try:
        certificate = read_client_cert(b", ".join(lines)) if lines else None
    except ValueError as error:
        raise OAuthError("invalid_request", f"The field Client-Cert is malformed: {error}.") from None
    return Sender(_proven_key(core, request), certificate)


def _proven_key(core: Core, request: RequestInfo) -> str | None:
    lines = request.fields.get(b"dpop")
    if lines is None:
        return None
    expected = Expected("POST", f"{core.base}/token", None, None)
    try:
        proof = check_proof(lines, expected, SETTINGS, core.now, lambda _: None)
    except (InvalidProof, InvalidToken) as refused:
        raise OAuthError("invalid_dpop_proof", f"The DPoP proof is refused: expected {refused.expected}.") from None
    if Switch.DPOP_NONCE in core.switches:
        nonce = make_nonce(core.nonce_key, core.now)
        if not hmac.compare_digest((proof.nonce or "").encode("utf-8", "replace"), nonce.encode("ascii")):
            headers = ((b"dpop-nonce", nonce.encode("ascii")),)
            raise OAuthError("use_dpop_nonce", "This server requires a nonce in the DPoP proof.", headers=headers)
    return proof.key.thumbprint


def confirmation_of(core: Core, sender: Sender) -> dict[str, str]:
    """Return the members of `cnf` in a token for this sender. The active faults apply."""
    cnf: dict[str, str] = {}
    if sender.jkt is not None and Switch.DPOP_NO_CNF not in core.switches:
        cnf["jkt"] = SigningKey("ES256").thumbprint if Switch.DPOP_WRONG_KEY in core.switches else sender.jkt
    if sender.certificate is not None and Switch.MTLS_NO_CNF not in core.switches:
        is_wrong = Switch.MTLS_WRONG_CERTIFICATE in core.switches
        cnf["x5t#S256"] = ClientCertificate().thumbprint if is_wrong else sender.certificate
    return cnf
