"""Every exception that the library raises or answers with, and the reason codes of refusals.

    MCPAuthError
    ├── ConfigurationError (also ValueError)   a configuration that cannot be used; all problems at once
    ├── DiscoveryError                         an upstream document that could not be fetched
    │   └── InvalidServerMetadata              a document that was fetched and cannot be used
    └── Refusal                                the answer to one request
        ├── BadRequest          400  invalid_request
        ├── Unauthenticated     401
        │   ├── NoCredential         (no error code, RFC 6750 section 3.1)
        │   ├── InvalidToken         invalid_token
        │   └── InsufficientAuthentication  insufficient_user_authentication
        ├── Forbidden           403  access_denied
        │   ├── OriginNotAllowed
        │   └── InsufficientScope    insufficient_scope
        ├── NotFound            404
        ├── Misdirected         421
        ├── Unavailable         503  temporarily_unavailable
        └── MessageRefused      400  a JSON-RPC error: clients distinguish protocol eras by 4xx bodies
            ├── MessageTooLarge      413
            ├── UnsupportedContent   415
            └── SessionNotFound      404

A `Refusal` gives the caller one fixed sentence per class and gives the operator everything else: a stable `Reason`,
the issuer, the key, the expected value and the found value. A verifier may raise a `Refusal` or return one. No
message, repr or field of any of these exceptions holds a token. A `MessageRefused` carries no challenge, because no
other token would change the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Self

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
    "MessageRefused",
    "MessageTooLarge",
    "Misdirected",
    "NoCredential",
    "NotFound",
    "OriginNotAllowed",
    "Problem",
    "Reason",
    "Refusal",
    "SessionNotFound",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedContent",
    "printable",
)


class Reason(StrEnum):
    """Why a request was refused: stable codes for logs, metrics and alerts, never sent to callers."""

    # the request
    HOST_NOT_ALLOWED = "host_not_allowed"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    AMBIGUOUS_PATH = "ambiguous_path"
    NO_SUCH_RESOURCE = "no_such_resource"
    WEBSOCKETS_DISABLED = "websockets_disabled"
    # the credential
    NO_CREDENTIAL = "no_credential"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    MALFORMED_AUTHORIZATION = "malformed_authorization"
    MULTIPLE_AUTHORIZATION = "multiple_authorization"
    TOKEN_IN_URI = "token_in_uri"
    # the token
    MALFORMED_TOKEN = "malformed_token"
    UNSUPPORTED_HEADER = "unsupported_header"
    ALGORITHM_NOT_ALLOWED = "algorithm_not_allowed"
    TYP_NOT_ACCEPTED = "typ_not_accepted"
    UNKNOWN_ISSUER = "unknown_issuer"
    UNKNOWN_KID = "unknown_kid"
    KEY_MISMATCH = "key_mismatch"
    AMBIGUOUS_KEY = "ambiguous_key"
    BAD_SIGNATURE = "bad_signature"
    MISSING_CLAIM = "missing_claim"
    MALFORMED_CLAIM = "malformed_claim"
    TOKEN_EXPIRED = "token_expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_TOKEN_KIND = "wrong_token_kind"
    SENDER_CONSTRAINED = "sender_constrained"
    CLIENT_NOT_ALLOWED = "client_not_allowed"
    REVOKED = "revoked"
    REJECTED_BY_VERIFIER = "rejected_by_verifier"
    # the JSON-RPC message
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_CONTENT = "unsupported_content"
    MALFORMED_MESSAGE = "malformed_message"
    HEADER_MISMATCH = "header_mismatch"
    SESSION_NOT_FOUND = "session_not_found"
    # what the token may do
    INSUFFICIENT_SCOPE = "insufficient_scope"
    INSUFFICIENT_USER_AUTHENTICATION = "insufficient_user_authentication"
    OPERATION_NOT_LISTED = "operation_not_listed"
    DENIED_BY_HOOK = "denied_by_hook"
    # we cannot know
    KEYS_UNAVAILABLE = "keys_unavailable"
    METADATA_UNAVAILABLE = "metadata_unavailable"
    KEY_NOT_YET_KNOWN = "key_not_yet_known"
    HOOK_FAILED = "hook_failed"


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
    max_detail: ClassVar[int] = 128

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

    def without_traceback(self) -> Self:
        """Itself, without the traceback and the context it was raised in: their frames hold the token."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)

    def details(self) -> Mapping[str, str]:
        """What the operator may read: issuer, kid, alg, client id, operation, expected and found, escaped and cut."""
        names = ("issuer", "kid", "alg", "client_id", "operation", "expected", "found")
        pairs = ((name, getattr(self, name)) for name in names)
        return {name: printable(value, self.max_detail) for name, value in pairs if value is not None}


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
    max_detail = 1024  # the failures of three fetches, whose causes come last


class MessageRefused(Refusal):
    """A JSON-RPC message that cannot be judged, or contradicts its header fields: 400 with a JSON-RPC error.

    Args:
        reason: As for `Refusal`.
        code: The JSON-RPC error code: -32700 unreadable, -32600 no message, -32602 parameters, -32020 header fields.
        message_id: The message's id, where it could be read.
        log: As for `Refusal`; `description` is the error's message.
    """

    default_description = "Invalid request"

    def __init__(self, reason: Reason, *, code: int = -32600, message_id: str | int | None = None, **log: Any) -> None:
        super().__init__(reason, **log)
        self.rpc_code = code
        self.message_id = message_id


class MessageTooLarge(MessageRefused):
    """The body is longer than `max_body_size`: 413."""

    status = 413
    default_description = "Request body too large"


class UnsupportedContent(MessageRefused):
    """Not `application/json`, or compressed: 415."""

    status = 415
    default_description = "Unsupported media type"


class SessionNotFound(MessageRefused):
    """No such session, or not this caller's: 404, one answer for both."""

    status = 404
    default_description = "Session not found"
