"""DPoP at the token endpoint (RFC 9449 section 5): the key that a client proves possession of, and the faults in it.

A proof may be sent again here: this server is for development, and keeps no proofs.
"""

from __future__ import annotations

import hmac
from typing import Final

from asgi_mcp_auth._oauth.dpop_proof import Expected, ProofSettings, check_proof, make_nonce
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._core import Core
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._metadata import PROOF_ALGORITHMS
from asgi_mcp_auth.dev._switches import Switch
from asgi_mcp_auth.errors import InvalidProof, InvalidToken
from asgi_mcp_auth.testing import SigningKey

__all__ = ("confirmation_of", "proven_key")

SETTINGS: Final = ProofSettings(frozenset(PROOF_ALGORITHMS), 300.0)


def proven_key(core: Core, request: RequestInfo) -> str | None:
    """Return the thumbprint of the client's key, or None for a request without a proof.

    Raises:
        OAuthError: `invalid_dpop_proof`; `use_dpop_nonce` with the fault of that name.
    """
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


def confirmation_of(core: Core, jkt: str | None) -> dict[str, str]:
    """Return the members of `cnf` in a token for a client with this key. The active faults apply."""
    if jkt is None or Switch.DPOP_NO_CNF in core.switches:
        return {}
    return {"jkt": SigningKey("ES256").thumbprint if Switch.DPOP_WRONG_KEY in core.switches else jkt}
