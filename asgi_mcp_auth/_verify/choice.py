"""The choice of one verifier for each credential, by its shape alone. No second verifier is tried after a refusal."""

from __future__ import annotations

from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._oauth.jws import OPAQUE, is_compact
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.api_keys import ApiKeyVerifier
from asgi_mcp_auth._verify.introspection_verifier import IntrospectionVerifier
from asgi_mcp_auth._verify.jwt import JWTVerifier
from asgi_mcp_auth._verify.verifier import Verified, Verifier
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal

__all__ = ("Choice", "RejectingVerifier")


class RejectingVerifier:
    """The verifier of a shape for which none is configured."""

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Reject the token, without any call."""
        del credential, request
        return InvalidToken(Reason.MALFORMED_TOKEN, expected=OPAQUE, found="an opaque token")


class Choice:
    """The verifiers of one resource by the shape of the credential.

    Args:
        jwt: The verifier of compact JWS tokens; None if they count as opaque.
        opaque: The verifier of other tokens; None rejects them.
        keys: The verifier of API keys, if there are any.
        asks_always: Whether the introspection confirms JWTs of its issuer too.
    """

    def __init__(
        self,
        jwt: Verifier | None,
        opaque: Verifier | None,
        keys: ApiKeyVerifier | None = None,
        *,
        asks_always: bool = False,
    ) -> None:
        self.keys = keys
        """The verifier of API keys, if there are any."""
        self._opaque = opaque or RejectingVerifier()
        self._jwt = jwt or self._opaque
        self.built_in = jwt if isinstance(jwt, JWTVerifier) else None
        """The verification of JWTs; None with a verifier of the user's own."""
        self.introspection = opaque if isinstance(opaque, IntrospectionVerifier) else None
        """The introspection of opaque tokens, if there is one."""
        built_in = (JWTVerifier, IntrospectionVerifier, RejectingVerifier)
        self.is_built_in = isinstance(self._jwt, built_in) and isinstance(self._opaque, built_in)
        """Whether there is no verifier of the user's own."""
        self.confirms = self.introspection if asks_always else None
        """The introspection that confirms JWTs, if there is one."""

    def select(self, token: bytes) -> Verifier:
        """Return the one verifier for a token."""
        if self.keys is not None and self.keys.has_prefix(token):
            return self.keys
        return self._jwt if is_compact(token) else self._opaque

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Return the decision of the one verifier for the credential; see `Verifier`."""
        return await self.select(credential.token).verify(credential, request)
