"""A verifier for MCP servers that keep their own `auth=`: the MCP SDK's and fastmcp's `token_verifier=`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from asgi_mcp_auth._asgi.identity import sdk_bridge
from asgi_mcp_auth._oauth.credentials import read_credential
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import show
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.verifier import Verified, Verifier
from asgi_mcp_auth.decisions import Decision, RefusalLog
from asgi_mcp_auth.errors import ConfigurationError, Problem, Refusal, Unavailable

if TYPE_CHECKING:
    from asgi_mcp_auth.auth import MCPAuth

__all__ = ("TokenVerifier", "token_verifier")


def token_verifier(auth: MCPAuth, resource: str | None) -> TokenVerifier:
    """See `MCPAuth.token_verifier`."""
    known = {compiled.identifier: index for index, compiled in enumerate(auth.site.resources)}
    index = 0 if resource is None and len(known) == 1 else known.get(resource or "")
    if index is None:
        fix = f"Give one of {', '.join(map(show, known))}, to the letter."
        raise ConfigurationError([Problem("resource", f"{show(resource)} is not a configured resource.", fix)])
    return TokenVerifier(auth.site.resources[index], auth.verifiers[index], auth.refusal_log, auth.hooks)


class TokenVerifier:
    """What the MCP SDK and fastmcp ask about a token.

    Attributes:
        required_scopes: The baseline, which the server enforces itself, to the letter.
        scopes_supported: The same, as clients must request them; what fastmcp publishes.
    """

    def __init__(self, resource: CompiledResource, verifier: Verifier, log: RefusalLog, hooks: HookCaller) -> None:
        self.required_scopes = list(resource.policy.baseline.needed)
        self.scopes_supported = list(resource.policy.baseline.named)
        self._resource = resource
        self._verifier = verifier
        self._log = log
        self._hooks = hooks
        # The servers tell a verifier nothing of the request, so it is a request for the resource and no more.
        path = resource.url.path or "/"
        self._request = RequestInfo({"type": "http", "method": "POST", "path": path, "headers": ()})

    async def verify_token(self, token: str) -> Any:
        """The SDK's `AccessToken` with what was granted, or None for a token that is refused.

        Raises:
            Unavailable: Whether the token is good cannot be known now. The servers answer 400 to it, where None
                would be a 401 that makes clients throw a good token away.
        """
        found = await self.judge(b"Bearer " + token.encode("utf-8", "replace"))
        if isinstance(found, Verified):
            info = found.auth_info
            bridge = sdk_bridge()
            return None if bridge is None else bridge.make_user(info).access_token
        if self._log.wants(found):
            url = self._resource.identifier
            self._log(Decision("refused", "POST", url, url, status=found.status, auth_info=None, refusal=found))
        if isinstance(found, Unavailable):
            raise _not_now()(found.reason, retry_after=found.retry_after)
        return None

    async def judge(self, line: bytes) -> Verified | Refusal:
        """What the middleware would find of an `Authorization` line, required scopes aside; nothing is logged."""
        credential = read_credential([line], self._resource.schemes)
        if isinstance(credential, Refusal):
            return credential
        try:
            return await self._verifier.verify(credential, self._request)
        except Refusal as refusal:
            return refusal.without_traceback()
        except Exception as error:  # noqa: BLE001 - as in the middleware: a verifier's mistake is no pass
            return self._hooks.failed("The verifier", error, credential.token)


@functools.cache
def _not_now() -> type[Unavailable]:
    """`Unavailable`, of the kind that Starlette's `AuthenticationMiddleware` answers without a traceback."""
    from starlette.authentication import AuthenticationError  # noqa: PLC0415 - an optional package

    return type("VerificationUnavailable", (Unavailable, AuthenticationError), {})
