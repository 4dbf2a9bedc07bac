"""Every error this library raises or answers with.

    MCPAuthError
    ├── ConfigurationError (also ValueError)   what you wrote; all problems at once
    ├── DiscoveryError                         an upstream document could not be had
    │   └── InvalidServerMetadata              it was had, and cannot be used
    └── Refusal                                the answer to one request
        ├── BadRequest          400  invalid_request
        ├── MessageRefused      400  a JSON-RPC error, with its leaves in `asgi_mcp_auth.message_errors`
        ├── Unauthenticated     401
        │   ├── NoCredential         (no error code, RFC 6750 section 3.1)
        │   ├── InvalidToken         invalid_token
        │   └── InsufficientAuthentication  insufficient_user_authentication
        ├── Forbidden           403  access_denied
        │   ├── OriginNotAllowed
        │   └── InsufficientScope    insufficient_scope
        ├── NotFound            404
        ├── Misdirected         421
        └── Unavailable         503  temporarily_unavailable

A `Refusal` tells the caller one fixed sentence per class and the operator everything else: a stable
`Reason`, the issuer, the key, what was expected and what was found. A verifier may raise one or
return one. No message, repr or field of any of them ever holds a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from asgi_mcp_auth.reasons import Reason

__all__ = (
    "BadRequest",
    "ConfigurationError",
    "DiscoveryError",
    "Forbidden",
    "InsufficientAuthentication",
    "InsufficientScope",
    "InvalidServerMetadata",
    "InvalidToken",
    "MCPAuthError",
    "Misdirected",
    "NoCredential",
    "NotFound",
    "OriginNotAllowed",
    "Problem",
    "Reason",
    "Refusal",
    "Unauthenticated",
    "Unavailable",
    "printable",
)


def printable(value: object, limit: int = 128) -> str:
    """`value` for a log line: ASCII, escaped, at most `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = text[: limit + 1].encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else text[: limit - 3] + "..."


class MCPAuthError(Exception):
    """The root. `code` is stable; `message` is for people; `cause` is what lay underneath, if anything."""

    code: str = "mcp_auth_error"

    def __init__(self, message: str, *, cause: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause

    def to_json(self, show_cause: bool = False) -> dict[str, Any]:
        """`{"error", "error_description"}`, and the cause as text when asked for."""
        body = {"error": str(self.code), "error_description": self.message}
        if show_cause and self.cause is not None:
            body["cause"] = printable(str(self.cause))
        return body


class Problem(NamedTuple):
    """One thing wrong with a configuration: where, what, and how to mend it."""

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.fix}".strip()


class ConfigurationError(MCPAuthError, ValueError):
    """Every problem found in a configuration, reported together at construction."""

    code = "invalid_server_config"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} configuration problem{'' if count == 1 else 's'}"
        super().__init__("\n  - ".join([head, *map(str, self.problems)]))


class DiscoveryError(MCPAuthError):
    """An upstream document (authorization server metadata, key set) could not be had.

    `transient` is true when trying again may help: a timeout, a refused connection, a 5xx.
    """

    code = "fetch_server_config_error"

    def __init__(self, message: str, *, transient: bool, cause: object = None) -> None:
        super().__init__(message, cause=cause)
        self.transient = transient


class InvalidServerMetadata(DiscoveryError, ConfigurationError):  # noqa: N818 - said as it is
    """A document was fetched or written by hand, and its content cannot be used."""

    code = "invalid_server_metadata"

    def __init__(self, message: str, *, cause: object = None) -> None:
        MCPAuthError.__init__(self, message, cause=cause)
        self.transient = False
        self.problems = (Problem("metadata", message, ""),)


class Refusal(MCPAuthError):  # noqa: N818 - an answer, often returned and not raised
    r"""One request refused. Subclasses fix the status, the wire code and the sentence the caller reads.

    Args:
        reason: The stable code for the operator.
        expected: What would have been accepted (for the log).
        found: What came instead (for the log); never a token.
        issuer, kid, alg: What the token claimed, unverified, for the log.
        client_id: The client, of a verified token, for the log.
        description: Another fixed sentence for the caller; printable ASCII without `"`, `\` and `=`.
        retry_after: Seconds until another attempt makes sense (503 only).
        response_headers: Fields to add to the answer (a DPoP nonce, say).
    """

    status: ClassVar[int] = 400
    wire_code: ClassVar[str | None] = None
    default_description: ClassVar[str] = "The request is not acceptable"

    def __init__(
        self,
        reason: Reason,
        *,
        expected: object = None,
        found: object = None,
        issuer: str | None = None,
        kid: str | None = None,
        alg: str | None = None,
        client_id: str | None = None,
        description: str | None = None,
        retry_after: float | None = None,
        response_headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(description or self.default_description)
        self.code = str(reason)
        self.reason = reason
        self.description = self.message
        self.expected = expected
        self.found = found
        self.issuer = issuer
        self.kid = kid
        self.alg = alg
        self.client_id = client_id
        self.operation: str | None = None
        self.retry_after = retry_after
        self.response_headers = response_headers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.reason}>"

    def bare(self) -> Self:
        """Itself, without the traceback and the context it was raised in: their frames hold the token."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)

    def details(self) -> Mapping[str, str]:
        """What the operator may read: issuer, kid, alg, client id, operation, expected and found, escaped and cut."""
        names = ("issuer", "kid", "alg", "client_id", "operation", "expected", "found")
        pairs = ((name, getattr(self, name)) for name in names)
        return {name: printable(value) for name, value in pairs if value is not None}


class BadRequest(Refusal):
    """The request itself is malformed or ambiguous: 400 `invalid_request`."""

    status = 400
    wire_code = "invalid_request"
    default_description = "Malformed Authorization header"


class Unauthenticated(Refusal):
    """401, always with a challenge."""

    status = 401


class NoCredential(Unauthenticated):
    """No credential of a scheme we know: a challenge without any error (RFC 6750 section 3.1)."""

    default_description = "Authentication required"


class InvalidToken(Unauthenticated):
    """A credential was read and is not acceptable: 401 `invalid_token`."""

    wire_code = "invalid_token"
    default_description = "The access token is invalid"


class InsufficientAuthentication(Unauthenticated):
    """A good token whose authentication is too weak or too old (RFC 9470): 401 `insufficient_user_authentication`.

    Args:
        acr_values: Accepted `acr` values, in order of preference.
        max_age: Seconds since the user authenticated, at most.
        required: All scopes the operation needs, when one of them is missing as well.
        log: As for `Refusal`.
    """

    wire_code = "insufficient_user_authentication"
    default_description = "A different authentication level is required"

    def __init__(
        self, *, acr_values: tuple[str, ...], max_age: int | None, required: tuple[str, ...], **log: Any
    ) -> None:
        super().__init__(Reason.INSUFFICIENT_USER_AUTHENTICATION, **log)
        self.acr_values = acr_values
        self.max_age = max_age
        self.required = required


class Forbidden(Refusal):
    """A denial that no other scope would cure: 403 without a challenge."""

    status = 403
    wire_code = "access_denied"
    default_description = "Access denied"


class OriginNotAllowed(Forbidden):
    """The `Origin` of the request is not on the list."""

    default_description = "Origin not allowed"


class InsufficientScope(Forbidden):
    """A good token that lacks scopes: 403 `insufficient_scope`, naming all that are needed."""

    wire_code = "insufficient_scope"
    default_description = "Additional scope required"

    def __init__(self, *, required: tuple[str, ...], **log: Any) -> None:
        super().__init__(Reason.INSUFFICIENT_SCOPE, expected=" ".join(required), **log)
        self.required = required


class NotFound(Refusal):
    """No protected resource and no public path is here: 404."""

    status = 404
    default_description = "Not found"


class Misdirected(Refusal):
    """The `Host` is not one of ours: 421 (DNS rebinding)."""

    status = 421
    default_description = "Host not allowed"


class Unavailable(Refusal):
    """We cannot know whether the token is good: 503, so that clients keep it and try again."""

    status = 503
    wire_code = "temporarily_unavailable"
    default_description = "The token cannot be verified right now"
