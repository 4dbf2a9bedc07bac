"""The keyword options that a configuration and the shorthand share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

from asgi_mcp_auth._keys.http import ClientFactory
from asgi_mcp_auth._policy.compile import MetadataSigner
from asgi_mcp_auth._verify.hooks import Authorize
from asgi_mcp_auth._verify.verifier import IsRevoked, Verifier
from asgi_mcp_auth.decisions import Observer
from asgi_mcp_auth.stores import Store

__all__ = ("MCPAuthOptions",)


class MCPAuthOptions(TypedDict, total=False):
    """The keyword options of `MCPAuth`, which `MCPAuthMiddleware` takes too."""

    public_paths: Sequence[str]
    allowed_origins: Sequence[str]
    allowed_hosts: Sequence[str]
    websockets: bool
    expose_token: bool
    reject_query_token: bool
    republish_server_metadata: bool
    metadata_signer: MetadataSigner | None
    verifier: Verifier | None
    is_revoked: IsRevoked | None
    authorize: Authorize | None
    max_body_size: int
    session_store: Store | None
    on_decision: Sequence[Observer]
    http_client: ClientFactory | None
    token_cache_size: int
    token_cache_bytes: int
    issuer_pool_size: int
    unproven_fetches_per_minute: int
    require_warm_up: bool
    warm_up_timeout: float
    dangerously_exit_when_cold: bool
    clock: Callable[[], float]
    dangerously_allow_http: bool
    dangerously_allow_private_addresses: bool
