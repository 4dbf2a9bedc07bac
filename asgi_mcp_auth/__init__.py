"""Make any ASGI app an OAuth 2.1 protected resource for the Model Context Protocol (MCP)."""

from importlib import import_module
from typing import TYPE_CHECKING

from asgi_mcp_auth._version import __version__

if TYPE_CHECKING:  # what `_PUBLIC` says, for type checkers
    from asgi_mcp_auth._keys.discovery import (
        fetch_server_config,
        fetch_server_config_async,
        fetch_server_config_by_well_known_url,
        fetch_server_config_by_well_known_url_async,
    )
    from asgi_mcp_auth._oauth.credentials import Credential
    from asgi_mcp_auth._oauth.responses import in_band_denied
    from asgi_mcp_auth._oauth.security_event import SecurityEvent
    from asgi_mcp_auth._oauth.server_metadata import validate_server_config
    from asgi_mcp_auth._oauth.token_exchange import ExchangedToken
    from asgi_mcp_auth._request import RequestInfo
    from asgi_mcp_auth._upstream.exchange import Caller
    from asgi_mcp_auth._verify.verifier import Verified, Verifier
    from asgi_mcp_auth.auth import MCPAuth, MCPAuthMiddleware
    from asgi_mcp_auth.authorization import Allow, Deny, NeedScopes, Operation
    from asgi_mcp_auth.config import (
        ApiKeys,
        AuthorizationServerMetadata,
        AuthServerConfig,
        AuthServerType,
        Choose,
        ClientCertificates,
        DPoPSettings,
        EventTransmitter,
        Introspection,
        ResourceServerConfig,
        ResourceServerMetadata,
        ScopePolicy,
        ScopeRule,
        TokenExchange,
        TrustedTokenHeader,
    )
    from asgi_mcp_auth.context import Actor, ActorChain, AuthInfo, Principal, current_auth
    from asgi_mcp_auth.decisions import Decision
    from asgi_mcp_auth.errors import (
        ConfigurationError,
        DiscoveryError,
        ExchangeError,
        ExchangeReason,
        MCPAuthError,
        Reason,
        Refusal,
    )
    from asgi_mcp_auth.loading import load_app
    from asgi_mcp_auth.stores import MemoryStore, Store

__all__ = (
    "Actor",
    "ActorChain",
    "Allow",
    "ApiKeys",
    "AuthInfo",
    "AuthServerConfig",
    "AuthServerType",
    "AuthorizationServerMetadata",
    "Caller",
    "Choose",
    "ClientCertificates",
    "ConfigurationError",
    "Credential",
    "DPoPSettings",
    "Decision",
    "Deny",
    "DiscoveryError",
    "EventTransmitter",
    "ExchangeError",
    "ExchangeReason",
    "ExchangedToken",
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
    "ScopePolicy",
    "ScopeRule",
    "SecurityEvent",
    "Store",
    "TokenExchange",
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

_PUBLIC = {
    "_keys.discovery": (
        "fetch_server_config",
        "fetch_server_config_async",
        "fetch_server_config_by_well_known_url",
        "fetch_server_config_by_well_known_url_async",
    ),
    "_oauth.credentials": ("Credential",),
    "_oauth.responses": ("in_band_denied",),
    "_oauth.server_metadata": ("validate_server_config",),
    "_oauth.token_exchange": ("ExchangedToken",),
    "_oauth.security_event": ("SecurityEvent",),
    "_request": ("RequestInfo",),
    "_upstream.exchange": ("Caller",),
    "_verify.verifier": ("Verified", "Verifier"),
    "auth": ("MCPAuth", "MCPAuthMiddleware"),
    "authorization": ("Allow", "Deny", "NeedScopes", "Operation"),
    "config": (
        "ApiKeys",
        "AuthorizationServerMetadata",
        "AuthServerConfig",
        "AuthServerType",
        "Choose",
        "ClientCertificates",
        "DPoPSettings",
        "EventTransmitter",
        "Introspection",
        "ResourceServerConfig",
        "ResourceServerMetadata",
        "ScopePolicy",
        "ScopeRule",
        "TokenExchange",
        "TrustedTokenHeader",
    ),
    "context": ("Actor", "ActorChain", "AuthInfo", "Principal", "current_auth"),
    "decisions": ("Decision",),
    "errors": (
        "ConfigurationError",
        "DiscoveryError",
        "ExchangeError",
        "ExchangeReason",
        "MCPAuthError",
        "Reason",
        "Refusal",
    ),
    "loading": ("load_app",),
    "stores": ("MemoryStore", "Store"),
}
"""The public names by the module that has them, which is imported when a name is used: most programs need few."""

_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
