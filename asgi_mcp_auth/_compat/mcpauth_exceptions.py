"""The exceptions of mcpauth's verify functions: names, codes and constructors as its documentation has them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asgi_mcp_auth.errors import InvalidToken, Reason

__all__ = (
    "AuthServerExceptionCode",
    "BearerAuthExceptionCode",
    "MCPAuthBearerAuthException",
    "MCPAuthBearerAuthExceptionDetails",
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
    """Details of an `MCPAuthBearerAuthException`.

    Args:
        cause: The exception or value that caused the rejection.
        uri: The URL of a page about the rejection.
        missing_scopes: The scopes that the challenge of the 403 names.
        expected: The value that would have been accepted.
        actual: The value that was received.
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
    BearerAuthExceptionCode.INVALID_ISSUER: "The issuer of the token is not accepted.",
    BearerAuthExceptionCode.INVALID_AUDIENCE: "The token is not for this resource.",
    BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES: "The token lacks required scopes.",
    BearerAuthExceptionCode.INVALID_TOKEN: "The token is not valid.",
}


class MCPAuthBearerAuthException(InvalidToken):
    """A rejection by a verify function: 401, or 403 for the code MISSING_REQUIRED_SCOPES.

    `message` explains the code, for an app that shows it. The response contains the description of a `Refusal`.

    Args:
        code: The code of the rejection.
        cause: The details of the rejection.
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
    """A rejection by a verify function: 401.

    Args:
        code: The code of the rejection.
        cause: The exception or value that caused the rejection.
    """

    def __init__(self, code: MCPAuthTokenVerificationExceptionCode, cause: object = None) -> None:
        super().__init__(Reason.REJECTED_BY_VERIFIER, found=str(code))
        self.code = code
        self.cause = cause
