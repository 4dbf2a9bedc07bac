"""Client authentication at an endpoint of an authorization server (RFC 6749 section 2.3, RFC 7523 section 2.2)."""

from __future__ import annotations

import base64
from collections.abc import Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus

import jwt

from asgi_mcp_auth.config import AssertionAudience, IntrospectionMethod

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPrivateKeys

__all__ = ("ClientAuthentication",)

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthentication:
    """The credentials of a client, and the method that sends them. A repr contains no secret.

    Attributes:
        method: The method; None for `client_secret_basic` or `client_secret_post`, as the metadata says.
        client_id: The client id; an empty string for the method `bearer` without one.
        secret: The client secret, or the bearer token.
        private_key: The key that PyJWT loaded, for `private_key_jwt`.
        key_id: The `kid` of the private key.
        algorithm: The algorithm of the private key.
        audience: The audience of an assertion: the issuer identifier, or the URL of the endpoint that receives it.
    """

    method: IntrospectionMethod | None
    client_id: str
    secret: str = field(default="", repr=False)
    private_key: AllowedPrivateKeys | str = field(default="", repr=False)
    key_id: str | None = None
    algorithm: str = "RS256"
    audience: AssertionAudience = "issuer"

    def fields(
        self, *, supported: Container[str] | None, issuer: str, endpoint: str, now: float, token_id: str
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the header fields and the form parameters that authenticate one request.

        Args:
            supported: The methods that the metadata lists; None if it lists none.
            issuer: The issuer identifier.
            endpoint: The URL of the endpoint.
            now: Seconds since the epoch.
            token_id: A random text, for the `jti` of an assertion.
        """
        method = self.method
        if method is None:
            only_post = supported is not None and "client_secret_basic" not in supported
            method = "client_secret_post" if only_post and "client_secret_post" in (supported or ()) else None
        if method == "bearer":
            return {"authorization": f"Bearer {self.secret}"}, {}
        if method == "client_secret_post":
            return {}, {"client_id": self.client_id, "client_secret": self.secret}
        if method == "private_key_jwt":
            return {}, self._assertion(endpoint if self.audience == "endpoint" else issuer, now, token_id)
        # RFC 6749 section 2.3.1: the id and the secret are form-encoded before they are joined.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret)}"
        return {"authorization": "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")}, {}

    def _assertion(self, audience: str, now: float, token_id: str) -> dict[str, str]:
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audience,
            "jti": token_id,
            "iat": int(now),
            "exp": int(now) + ASSERTION_SECONDS,
        }
        headers = {} if self.key_id is None else {"kid": self.key_id}
        signed = jwt.encode(claims, self.private_key, algorithm=self.algorithm, headers=headers)
        return {"client_id": self.client_id, "client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
