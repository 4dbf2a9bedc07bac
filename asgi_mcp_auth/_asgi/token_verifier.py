"""A verifier for MCP servers that keep their own `auth=`: the MCP SDK's and fastmcp's `token_verifier=`."""

from __future__ import annotations

import functools
from typing import Any

from asgi_mcp_auth._asgi.identity import sdk_bridge
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.authenticator import Authenticator
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.decisions import Decision, RefusalLog
from asgi_mcp_auth.errors import Refusal, Unavailable

__all__ = ("TokenVerifier",)


class TokenVerifier:
    """What the MCP SDK and fastmcp ask about a token.

    Attributes:
        required_scopes: The baseline, which the server enforces itself, exactly.
        scopes_supported: The same, as clients must request them; what fastmcp publishes.
    """

    def __init__(self, resource: CompiledResource, authenticator: Authenticator, log: RefusalLog) -> None:
        self.required_scopes = list(resource.policy.baseline.needed)
        self.scopes_supported = list(resource.policy.baseline.named)
        self._resource = resource
        self._authenticator = authenticator
        self._log = log
        # The servers pass nothing of the request, so this is a request for the resource itself.
        self._scope = {"type": "http", "method": "POST", "path": resource.url.path or "/"}

    async def verify_token(self, token: str) -> Any:
        """The SDK's `AccessToken` with what was granted, or None for a token that is refused.

        Raises:
            Unavailable: Whether the token is good cannot be known now. The servers answer 400 to it, where None
                would be a 401 that makes clients throw a good token away.
        """
        found = await self.verify_line(b"Bearer " + token.encode("utf-8", "replace"))
        if isinstance(found, Verified):
            info = found.auth_info
            bridge = sdk_bridge()
            return None if bridge is None else bridge.make_user(info).access_token
        if self._log.wants(found):
            path, resource = self._scope["path"], self._resource.identifier
            self._log(Decision("refused", "POST", path, resource, status=found.status, auth_info=None, refusal=found))
        if isinstance(found, Unavailable):
            raise _not_now()(found.reason, retry_after=found.retry_after)
        return None

    async def verify_line(self, line: bytes) -> Verified | Refusal:
        """Verify an `Authorization` field value like the middleware, without required scopes; nothing is logged."""
        return await self._authenticator.verify(RequestInfo({**self._scope, "headers": [(b"authorization", line)]}))


@functools.cache
def _not_now() -> type[Unavailable]:
    """`Unavailable`, of the kind that Starlette's `AuthenticationMiddleware` answers without a traceback."""
    from starlette.authentication import AuthenticationError  # noqa: PLC0415 - an optional package

    return type("VerificationUnavailable", (Unavailable, AuthenticationError), {})
