"""Import path of the exceptions that `mcpauth` documents: re-exports from `asgi_mcp_auth.errors`, nothing else.

A verify function raises `MCPAuthTokenVerificationException` or `MCPAuthBearerAuthException`. New code can raise any
`asgi_mcp_auth.errors.Refusal` instead. `MCPAuthJwtVerificationException` is the name from an earlier release of the
`mcpauth` documentation.
"""

from asgi_mcp_auth.errors import (
    AuthServerExceptionCode,
    BearerAuthExceptionCode,
    MCPAuthBearerAuthException,
    MCPAuthBearerAuthExceptionDetails,
    MCPAuthTokenVerificationException,
    MCPAuthTokenVerificationExceptionCode,
)
from asgi_mcp_auth.errors import ConfigurationError as MCPAuthAuthServerException
from asgi_mcp_auth.errors import DiscoveryError as MCPAuthConfigException
from asgi_mcp_auth.errors import MCPAuthError as MCPAuthException
from asgi_mcp_auth.errors import MCPAuthTokenVerificationException as MCPAuthJwtVerificationException
from asgi_mcp_auth.errors import MCPAuthTokenVerificationExceptionCode as MCPAuthJwtVerificationExceptionCode

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
