"""The exceptions that users of `mcpauth` know, under the names and the constructors they know.

A verify function raises `MCPAuthTokenVerificationException` or `MCPAuthBearerAuthException`; both are refusals
(`asgi_mcp_auth.errors.Refusal`), and new code may raise those instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asgi_mcp_auth.errors import ConfigurationError as MCPAuthAuthServerException
from asgi_mcp_auth.errors import DiscoveryError as MCPAuthConfigException
from asgi_mcp_auth.errors import InvalidToken, Reason
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


class AuthServerExceptionCode(StrEnum):
    """The `code` of an `MCPAuthAuthServerException`."""

    INVALID_SERVER_METADATA = "invalid_server_metadata"
    INVALID_SERVER_CONFIG = "invalid_server_config"
    MISSING_JWKS_URI = "missing_jwks_uri"


class BearerAuthExceptionCode(StrEnum):
    """The `code` of an `MCPAuthBearerAuthException`."""

    MISSING_AUTH_HEADER = "missing_auth_header"
    INVALID_AUTH_HEADER_FORMAT = "invalid_auth_header_format"
    MISSING_BEARER_TOKEN = "missing_bearer_token"
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    MISSING_REQUIRED_SCOPES = "missing_required_scopes"
    INVALID_TOKEN = "invalid_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class MCPAuthBearerAuthExceptionDetails:
    """More about a bearer error.

    Args:
        cause: What raised the error.
        uri: A page about the error.
        missing_scopes: The scopes that the challenge of the 403 names.
        expected: The expected value.
        actual: The value of the token.
    """

    cause: Any = None
    uri: str | None = None
    missing_scopes: list[str] | None = None
    expected: Any = None
    actual: Any = None


_MESSAGES = {
    BearerAuthExceptionCode.MISSING_AUTH_HEADER: "The Authorization header is missing.",
    BearerAuthExceptionCode.INVALID_AUTH_HEADER_FORMAT: 'The Authorization header is not "Bearer <token>".',
    BearerAuthExceptionCode.MISSING_BEARER_TOKEN: "The bearer token is missing.",
    BearerAuthExceptionCode.INVALID_ISSUER: "The token is not of an accepted issuer.",
    BearerAuthExceptionCode.INVALID_AUDIENCE: "The token is not for this resource.",
    BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES: "The token lacks required scopes.",
    BearerAuthExceptionCode.INVALID_TOKEN: "The token is not valid.",
}


class MCPAuthBearerAuthException(InvalidToken):
    """Raised by a verify function: 401, or 403 with the code MISSING_REQUIRED_SCOPES.

    Its text says what the code means, for an app that shows it; the wire has the fixed sentences of a refusal.
    """

    def __init__(self, code: BearerAuthExceptionCode, cause: MCPAuthBearerAuthExceptionDetails | None = None) -> None:
        super().__init__(Reason.REJECTED_BY_VERIFIER, found=str(code))
        self.code = code
        self.cause = cause
        self.message = _MESSAGES.get(code, self.description)
        self.args = (self.message,)


class MCPAuthTokenVerificationExceptionCode(StrEnum):
    """The `code` of an `MCPAuthTokenVerificationException`."""

    INVALID_TOKEN = "invalid_token"
    TOKEN_VERIFICATION_FAILED = "token_verification_failed"
    JWT_VERIFICATION_FAILED = "jwt_verification_failed"


class MCPAuthTokenVerificationException(InvalidToken):
    """Raised by a verify function: 401."""

    def __init__(self, code: MCPAuthTokenVerificationExceptionCode, cause: object = None) -> None:
        super().__init__(Reason.REJECTED_BY_VERIFIER, found=str(code))
        self.code = code
        self.cause = cause


# The documentation's names of an earlier release.
MCPAuthJwtVerificationException = MCPAuthTokenVerificationException
MCPAuthJwtVerificationExceptionCode = MCPAuthTokenVerificationExceptionCode
