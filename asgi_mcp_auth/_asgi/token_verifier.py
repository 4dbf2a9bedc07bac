"""The value of `token_verifier=` for MCP servers that do their own authorization: the MCP SDK and fastmcp."""

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
    """A token verifier for one resource with the interface of the MCP SDK and fastmcp.

    Attributes:
        required_scopes: The baseline of the policy. The server enforces these scopes itself and compares them exactly.
        scopes_supported: The same scopes as clients must request them; fastmcp publishes these names.
    """

    def __init__(self, resource: CompiledResource, authenticator: Authenticator, log: RefusalLog) -> None:
        self.required_scopes = list(resource.policy.baseline.needed)
        self.scopes_supported = list(resource.policy.baseline.named)
        self._resource = resource
        self._authenticator = authenticator
        self._log = log
        # The servers do not pass the request, so the verifier checks a request for the resource itself.
        self._scope = {"type": "http", "method": "POST", "path": resource.url.path or "/"}

    async def verify_token(self, token: str) -> Any:
        """Return the SDK's `AccessToken` with the granted scopes; None for a rejected token.

        Raises:
            Unavailable: The token cannot be verified now. The servers answer 400 then; None would cause a 401, on
                which clients discard a valid token.
        """
        found = await self.verify_fields([(b"authorization", b"Bearer " + token.encode("utf-8", "replace"))])
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

    async def verify_fields(self, fields: list[tuple[bytes, bytes]], method: str = "POST") -> Verified | Refusal:
        """Return the decision about a request for the resource with these header fields.

        The decision is the middleware's, but without required scopes. Nothing is logged.
        """
        return await self._authenticator.verify(RequestInfo({**self._scope, "method": method, "headers": fields}))


@functools.cache
def _not_now() -> type[Unavailable]:
    """Return a subclass of `Unavailable` that Starlette's `AuthenticationMiddleware` answers without a traceback."""
    from starlette.authentication import AuthenticationError  # noqa: PLC0415 - an optional package

    return type("VerificationUnavailable", (Unavailable, AuthenticationError), {})
