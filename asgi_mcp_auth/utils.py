"""Import path of the functions that `mcpauth` documents for authorization server metadata: re-exports, nothing else."""

from asgi_mcp_auth._keys.discovery import (
    fetch_server_config,
    fetch_server_config_async,
    fetch_server_config_by_well_known_url,
    fetch_server_config_by_well_known_url_async,
)
from asgi_mcp_auth._oauth.server_metadata import (
    AuthServerConfigError,
    AuthServerConfigErrorCode,
    AuthServerConfigValidationResult,
    AuthServerConfigWarning,
    AuthServerConfigWarningCode,
    validate_server_config,
)
from asgi_mcp_auth.config import AuthServerType, ServerMetadataPaths

__all__ = (
    "AuthServerConfigError",
    "AuthServerConfigErrorCode",
    "AuthServerConfigValidationResult",
    "AuthServerConfigWarning",
    "AuthServerConfigWarningCode",
    "AuthServerType",
    "ServerMetadataPaths",
    "fetch_server_config",
    "fetch_server_config_async",
    "fetch_server_config_by_well_known_url",
    "fetch_server_config_by_well_known_url_async",
    "validate_server_config",
)
