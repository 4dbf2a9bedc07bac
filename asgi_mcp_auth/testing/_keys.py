"""Private keys for signing tokens, with their public JWKs."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from asgi_mcp_auth._oauth.dpop_proof import thumbprint
from asgi_mcp_auth._oauth.ml_dsa import ML_DSA

__all__ = ("SigningKey",)


def _encode(part: bytes | Mapping[str, Any]) -> bytes:
    data = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode("utf-8")
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _new_ml_dsa(alg: str) -> Any:
    load = ML_DSA[alg].load_private
    if load is None:
        raise NotImplementedError(f"{alg} needs cryptography 48 or later")
    return load(secrets.token_bytes(32))


class SigningKey:
    """A new private key for one algorithm.

    Args:
        alg: A JWS algorithm: RS*, PS*, ES*, `Ed25519`, `Ed448`, `EdDSA` (an Ed25519 key) or
            `ML-DSA-*`.
        kid: Default: a random one.
        bits: For RSA keys.
        private: An existing private key for `alg`, instead of a fresh one.
    """

    def __init__(
        self, alg: str = "RS256", kid: str | None = None, *, bits: int = 2048, private: Any | None = None
    ) -> None:
        self.alg = alg
        self.kid = kid if kid is not None else f"{alg.lower()}-{secrets.token_hex(4)}"
        curves: dict[str, ec.EllipticCurve] = {
            "ES256": ec.SECP256R1(),
            "ES384": ec.SECP384R1(),
            "ES512": ec.SECP521R1(),
        }
        self.private: Any
        if alg in curves:
            self.private = private or ec.generate_private_key(curves[alg])
            public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        elif alg in ("Ed25519", "EdDSA", "Ed448"):
            kind = ed448.Ed448PrivateKey if alg == "Ed448" else ed25519.Ed25519PrivateKey
            self.private = private or kind.generate()
            public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        elif alg in ML_DSA:
            self.private = private or _new_ml_dsa(alg)
            pub = _encode(self.private.public_key().public_bytes_raw()).decode("ascii")
            public = {"kty": "AKP", "pub": pub}
        else:
            self.private = private or rsa.generate_private_key(public_exponent=65537, key_size=bits)
            public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        members = {name: value for name, value in public.items() if name != "key_ops"}
        self.jwk: dict[str, Any] = {**members, "kid": self.kid, "alg": alg, "use": "sig"}
        """The public JWK, as published."""

    @property
    def thumbprint(self) -> str:
        """The SHA-256 thumbprint of the public key (RFC 7638), as `cnf.jkt` of a bound token contains it."""
        return thumbprint(self.public)

    @property
    def public(self) -> dict[str, str]:
        """The required members of the public JWK, as the header of a DPoP proof contains them."""
        left_out = ("kid", "use") if self.jwk["kty"] == "AKP" else ("kid", "alg", "use")
        return {name: value for name, value in self.jwk.items() if name not in left_out}

    def sign(self, header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any]) -> str:
        """Return a compact JWS over exactly these parts, without checking them."""
        signing_input = _encode(header) + b"." + _encode(payload)
        return (signing_input + b"." + _encode(self.signature(signing_input))).decode("ascii")

    def signature(self, signing_input: bytes) -> bytes:
        """Return the JWS signature of `signing_input`."""
        if self.alg in ML_DSA:
            return bytes(self.private.sign(signing_input))
        name = "EdDSA" if self.alg.startswith("Ed") else self.alg
        return get_default_algorithms()[name].sign(signing_input, self.private)
