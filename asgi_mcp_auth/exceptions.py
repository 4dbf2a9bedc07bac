"""Import path of the exceptions that `mcpauth` documents: re-exports, nothing else.

A verify function raises `MCPAuthTokenVerificationException` or `MCPAuthBearerAuthException`. New code can raise any
`asgi_mcp_auth.errors.Refusal` instead. `MCPAuthJwtVerificationException` is the name from an earlier release of the
`mcpauth` documentation.
"""

from asgi_mcp_auth._compat.mcpauth_exceptions import (
    AuthServerExceptionCode,
    BearerAuthExceptionCode,
    MCPAuthBearerAuthException,
    MCPAuthBearerAuthExceptionDetails,
    MCPAuthTokenVerificationException,
    MCPAuthTokenVerificationExceptionCode,
)
from asgi_mcp_auth._compat.mcpauth_exceptions import (
    MCPAuthTokenVerificationException as MCPAuthJwtVerificationException,
)
from asgi_mcp_auth._compat.mcpauth_exceptions import (
    MCPAuthTokenVerificationExceptionCode as MCPAuthJwtVerificationExceptionCode,
)
from asgi_mcp_auth.errors import ConfigurationError as MCPAuthAuthServerException
from asgi_mcp_auth.errors import DiscoveryError as MCPAuthConfigException
from asgi_mcp_auth.errors import MCPAuthError as MCPAuthException

__all__ = (
    "AuthServerExceptionCode",
    "BearerAuthExceptionCode",
    "MCPAuthAuthServerException",
    "MCPAuthBearerAuthException",
    "MCPAuthBearerAuthExceptionDetails",
    "MCPAuthConfigException",
    "MCPAuthException",
    "MCPAuthJwtVerificationException",
    "MCPAuthJwtVerificationExceptionCode",
    "MCPAuthTokenVerificationException",
    "MCPAuthTokenVerificationExceptionCode",
)
