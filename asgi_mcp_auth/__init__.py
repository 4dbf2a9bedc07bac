"""Make any ASGI app an OAuth 2.1 protected resource for the Model Context Protocol (MCP)."""

from asgi_mcp_auth._keys.discovery import (
    fetch_server_config,
    fetch_server_config_async,
    fetch_server_config_by_well_known_url,
    fetch_server_config_by_well_known_url_async,
)
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._oauth.responses import in_band_denied
from asgi_mcp_auth._oauth.server_metadata import validate_server_config
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.verifier import Verified, Verifier
from asgi_mcp_auth._version import __version__
from asgi_mcp_auth.auth import MCPAuth, MCPAuthMiddleware
from asgi_mcp_auth.authorization import Allow, Deny, NeedScopes, Operation
from asgi_mcp_auth.config import (
    ApiKeys,
    AuthorizationServerMetadata,
    AuthServerConfig,
    AuthServerType,
    Choose,
    DPoPSettings,
    Introspection,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    ScopeRule,
    TrustedTokenHeader,
)
from asgi_mcp_auth.context import Actor, ActorChain, AuthInfo, Principal, current_auth
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.errors import ConfigurationError, DiscoveryError, MCPAuthError, Reason, Refusal
from asgi_mcp_auth.loading import load_app
from asgi_mcp_auth.stores import MemoryStore, RevocationList, Store

__all__ = (
    "Actor",
    "ActorChain",
    "Allow",
    "ApiKeys",
    "AuthInfo",
    "AuthServerConfig",
    "AuthServerType",
    "AuthorizationServerMetadata",
    "Choose",
    "ConfigurationError",
    "Credential",
    "DPoPSettings",
    "Decision",
    "Deny",
    "DiscoveryError",
    "Introspection",
    "MCPAuth",
    "MCPAuthError",
    "MCPAuthMiddleware",
    "MemoryStore",
    "NeedScopes",
    "Operation",
    "Principal",
    "Reason",
    "Refusal",
    "RequestInfo",
    "ResourceServerConfig",
    "ResourceServerMetadata",
    "RevocationList",
    "ScopePolicy",
    "ScopeRule",
    "Store",
    "TrustedTokenHeader",
    "Verified",
    "Verifier",
    "__version__",
    "current_auth",
    "fetch_server_config",
    "fetch_server_config_async",
    "fetch_server_config_by_well_known_url",
    "fetch_server_config_by_well_known_url_async",
    "in_band_denied",
    "load_app",
    "validate_server_config",
)
