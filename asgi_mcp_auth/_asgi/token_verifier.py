"""The value of `token_verifier=` for MCP servers that do their own authorization: the MCP SDK and fastmcp."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from asgi_mcp_auth._asgi.identity import sdk_bridge
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.routes import Route
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._telemetry.reporting import Findings, Reporter
from asgi_mcp_auth._verify.authenticator import Authenticator
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.errors import Refusal, Unavailable

__all__ = ("TokenVerifier",)


class TokenVerifier:
    """A token verifier for one resource with the interface of the MCP SDK and fastmcp.

    Each token is reported as one decision, to observers, telemetry and the audit log too. What the server decides
    afterwards, about scopes and operations, is not known here.

    Attributes:
        required_scopes: The baseline of the policy. The server enforces these scopes itself and compares them exactly.
        scopes_supported: The same scopes as clients must request them; fastmcp publishes these names.
    """

    def __init__(self, resource: CompiledResource, authenticator: Authenticator, report: Reporter) -> None:
        self.required_scopes = list(resource.policy.baseline.needed)
        self.scopes_supported = list(resource.policy.baseline.named)
        self._resource = resource
        self._authenticator = authenticator
        self._report = report
        self._route = Route(resource=0, requirement=resource.policy.baseline)
        # The servers do not pass the request, so the verifier checks a request for the resource itself.
        self._scope = {"type": "http", "method": "POST", "path": resource.url.path or "/"}

    async def verify_token(self, token: str) -> Any:
        """Return the SDK's `AccessToken` with the granted scopes; None for a rejected token.

        Raises:
            Unavailable: The token cannot be verified now, or a required audit log cannot record the decision. The
                servers answer 400 then; None would cause a 401, on which clients discard a valid token.
        """
        request = self._request([(b"authorization", b"Bearer " + token.encode("utf-8", "replace"))])
        started = perf_counter()
        found = await self._authenticator.verify(request)
        verified = found if isinstance(found, Verified) else None
        findings = Findings(self._resource, self._route, verified, perf_counter() - started)
        if isinstance(found, Refusal):
            self._report("refused", request, findings, refusal=found, status=found.status)
        else:
            found = self._report("allowed", request, findings) or found
        if isinstance(found, Verified):
            info = found.auth_info
            bridge = sdk_bridge()
            return None if bridge is None else bridge.make_user(info).access_token
        if isinstance(found, Unavailable):
            raise _not_now()(found.reason, retry_after=found.retry_after)
        return None

    async def verify_fields(
        self, fields: list[tuple[bytes, bytes]], method: str = "POST", extensions: Mapping[str, Any] | None = None
    ) -> Verified | Refusal:
        """Return the decision about a request for the resource with these header fields.

        The decision is the middleware's, but without required scopes. Nothing is reported.
        """
        return await self._authenticator.verify(self._request(fields, method, extensions))

    def _request(
        self, fields: list[tuple[bytes, bytes]], method: str = "POST", extensions: Mapping[str, Any] | None = None
    ) -> RequestInfo:
        return RequestInfo({**self._scope, "method": method, "headers": fields, "extensions": extensions or {}})


@functools.cache
def _not_now() -> type[Unavailable]:
    """Return a subclass of `Unavailable` that Starlette's `AuthenticationMiddleware` answers without a traceback."""
    from starlette.authentication import AuthenticationError  # noqa: PLC0415 - an optional package

    return type("VerificationUnavailable", (Unavailable, AuthenticationError), {})
