"""For tests and demonstrations: an issuer with real keys, and reading challenges.

    issuer = Issuer("https://auth.example.com")
    app = MCPAuthMiddleware(app, resource=..., authorization_servers=[issuer.url], http_client=issuer.http_client)
    token = issuer.mint(audience="https://api.example.com/mcp", scope="notes:read")

The issuer is an ASGI app too (metadata, key set, a token endpoint that grants whatever is asked), so it can run
in process behind `http_client` or under a server. It is for loopback and tests only: it trusts everybody.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from asgi_mcp_auth._asgi.sending import send_response
from asgi_mcp_auth._protocol.challenge import Challenge, parse_challenges
from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth._protocol.responses import Response, json_response
from asgi_mcp_auth.config import ServerMetadataPaths

__all__ = ("Challenge", "Issuer", "SigningKey", "parse_challenges")

MAX_FORM = 64 * 1024


def _encode(part: bytes | Mapping[str, Any]) -> bytes:
    data = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode("utf-8")
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class SigningKey:
    """A fresh private key for one algorithm.

    Args:
        alg: A JWS algorithm: RS*, PS*, ES*, `Ed25519`, `Ed448` or `EdDSA` (an Ed25519 key).
        kid: Default: a random one.
        bits: For RSA keys.
    """

    def __init__(self, alg: str = "RS256", kid: str | None = None, *, bits: int = 2048) -> None:
        self.alg = alg
        self.kid = kid if kid is not None else f"{alg.lower()}-{secrets.token_hex(4)}"
        curves: dict[str, ec.EllipticCurve] = {
            "ES256": ec.SECP256R1(),
            "ES384": ec.SECP384R1(),
            "ES512": ec.SECP521R1(),
        }
        self.private: Any
        if alg in curves:
            self.private = ec.generate_private_key(curves[alg])
            public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        elif alg in ("Ed25519", "EdDSA", "Ed448"):
            self.private = (ed448.Ed448PrivateKey if alg == "Ed448" else ed25519.Ed25519PrivateKey).generate()
            public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
            public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        members = {name: value for name, value in public.items() if name != "key_ops"}
        self.jwk: dict[str, Any] = {**members, "kid": self.kid, "alg": alg, "use": "sig"}
        """The public JWK, as published."""

    def signature(self, signing_input: bytes) -> bytes:
        """Sign bytes."""
        name = "EdDSA" if self.alg.startswith("Ed") else self.alg
        return get_default_algorithms()[name].sign(signing_input, self.private)


class Issuer:
    """An authorization server reduced to its keys: it mints any token, good or bad, and publishes its metadata.

    Args:
        url: The issuer identifier.
        algorithms: One key for each; the first signs by default.
        clock: Seconds since the epoch.

    Attributes:
        keys: The published keys; change the list to rotate by hand.
        metadata: The published document; change it to misbehave.
        requests: How often each path was asked for.
    """

    def __init__(
        self,
        url: str = "https://auth.example.com",
        *,
        algorithms: tuple[str, ...] = ("RS256",),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self.clock = clock
        self.keys = [SigningKey(alg) for alg in algorithms]
        self.requests: Counter[str] = Counter()
        base = url.rstrip("/")
        self._path = urlsplit(base).path
        self.metadata: dict[str, Any] = {
            "issuer": url,
            "token_endpoint": f"{base}/token",
            "jwks_uri": f"{base}/jwks",
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
        }

    def jwks(self) -> dict[str, Any]:
        """The published key set."""
        return {"keys": [key.jwk for key in self.keys]}

    def rotate(self, *, keep: bool = True) -> SigningKey:
        """Sign with a new key of the same algorithm from now on; the old ones stay published if kept."""
        key = SigningKey(self.keys[0].alg)
        self.keys = [key, *(self.keys if keep else ())]
        return key

    def sign(
        self, header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], *, key: SigningKey | None = None
    ) -> str:
        """A compact JWS over exactly these parts, however wrong they are."""
        signing_input = _encode(header) + b"." + _encode(payload)
        signature = (key or self.keys[0]).signature(signing_input)
        return (signing_input + b"." + _encode(signature)).decode("ascii")

    def claims(self, audience: str | list[str] | None, **changes: Any) -> dict[str, Any]:
        """The claims of an ordinary access token (RFC 9068 section 2.2), with changes; `...` removes one."""
        now = int(self.clock())
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": "alice",
            "aud": audience,
            "client_id": "c1",
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_urlsafe(12),
        } | changes
        return {
            name: value for name, value in claims.items() if value is not ... and (name != "aud" or value is not None)
        }

    def mint(
        self,
        audience: str | list[str] | None,
        *,
        typ: str | None = "at+jwt",
        key: SigningKey | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A signed access token.

        Args:
            audience: The `aud`; None for a token without.
            typ: The header's `typ`; None for a header without.
            key: Another key than the first.
            header: Header members to add or replace.
            claims: Claims to add or replace, `scope="notes:read"` say; `...` removes one.
        """
        signer = key or self.keys[0]
        members: dict[str, Any] = {"alg": signer.alg, "kid": signer.kid}
        if typ is not None:
            members["typ"] = typ
        return self.sign(members | dict(header or {}), self.claims(audience, **claims), key=signer)

    def http_client(self) -> Any:
        """A client whose requests come here, without a network: for `MCPAuth(http_client=issuer.http_client)`."""
        import httpx  # noqa: PLC0415 - importing this module does not need it

        return httpx.AsyncClient(transport=httpx.ASGITransport(app=self))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve metadata at the RFC 8414 and OpenID Connect places, the key set at `/jwks`, tokens at `/token`."""
        if scope["type"] != "http":
            msg = f"an issuer serves http, not {scope['type']}"
            raise NotImplementedError(msg)
        request = Request(scope)
        path = request.path
        self.requests[path] += 1
        places = (ServerMetadataPaths.OAUTH + self._path, self._path + ServerMetadataPaths.OIDC)
        if path in places:
            answer = json_response(200, self.metadata)
        elif path == f"{self._path}/jwks":
            answer = json_response(200, self.jwks())
        elif path == f"{self._path}/token" and request.method == "POST":
            answer = self._token(await _read_form(receive))
        else:
            answer = json_response(404, {"error": "not_found"})
        await send_response(answer, request, receive, send)

    def _token(self, form: dict[str, str]) -> Response:
        """Client credentials (RFC 6749 section 4.4) with a resource indicator (RFC 8707)."""
        if form.get("grant_type") != "client_credentials":
            return json_response(400, {"error": "unsupported_grant_type"})
        if "resource" not in form:
            return json_response(400, {"error": "invalid_target"})
        client_id, scope = form.get("client_id", "demo"), form.get("scope", "")
        token = self.mint(form["resource"], sub=client_id, client_id=client_id, scope=scope)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": scope}
        return json_response(200, answer)


async def _read_form(receive: Any) -> dict[str, str]:
    body, more = b"", True
    while more and len(body) <= MAX_FORM:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return {name: values[0] for name, values in parse_qs(body[:MAX_FORM].decode("ascii", "replace")).items()}
