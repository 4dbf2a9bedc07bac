"""Every exception that the library raises or answers with, and the reason codes of refusals.

    MCPAuthError
    ├── ConfigurationError (also ValueError)   every problem of a configuration that cannot be used
    ├── DiscoveryError                         a metadata document or key set that could not be fetched
    │   └── InvalidServerMetadata              a metadata document or key set whose content cannot be used
    ├── ExchangeError                          a token for an upstream API that could not be had, or sent
    └── Refusal                                the answer to one rejected request
        ├── BadRequest          400  invalid_request
        ├── Unauthenticated     401
        │   ├── NoCredential         (no error code, RFC 6750 section 3.1)
        │   ├── InvalidToken         invalid_token; its subclasses in `asgi_mcp_auth.exceptions` are those of `mcpauth`
        │   ├── InvalidProof         invalid_dpop_proof
        │   ├── NonceRequired        use_dpop_nonce
        │   └── InsufficientAuthentication  insufficient_user_authentication
        ├── Forbidden           403  access_denied
        │   ├── OriginNotAllowed
        │   └── InsufficientScope    insufficient_scope
        ├── NotFound            404
        ├── MethodNotAllowed    405
        ├── Misdirected         421
        ├── Unavailable         503  temporarily_unavailable
        └── MessageRefused      400  a JSON-RPC error: clients distinguish protocol eras by 4xx bodies
            ├── MessageTooLarge      413
            ├── UnsupportedContent   415
            └── SessionNotFound      404

A `Refusal` gives the caller one fixed sentence per class and gives the operator everything else: a stable `Reason`,
the issuer, the key, the expected value and the found value. A verifier may raise a `Refusal` or return one. No
message, repr or field of an exception in this module contains a token. A `MessageRefused` has no challenge, because
another token would not change the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, NamedTuple, Self

__all__ = (
    "BadRequest",
    "ConfigurationError",
    "DiscoveryError",
    "ExchangeError",
    "ExchangeReason",
    "Forbidden",
    "InsufficientAuthentication",
    "InsufficientScope",
    "InvalidProof",
    "InvalidServerMetadata",
    "InvalidToken",
    "MCPAuthError",
    "MessageRefused",
    "MessageTooLarge",
    "MethodNotAllowed",
    "Misdirected",
    "NoCredential",
    "NonceRequired",
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
    """A stable code for why a request was rejected: for logs, metrics and alerts, never sent to callers."""

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
    MULTIPLE_CREDENTIALS = "multiple_credentials"
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
    INVALID_DPOP_PROOF = "invalid_dpop_proof"
    DPOP_KEY_MISMATCH = "dpop_key_mismatch"
    DPOP_PROOF_REPLAYED = "dpop_proof_replayed"
    DPOP_NONCE_REQUIRED = "dpop_nonce_required"
    CLIENT_CERTIFICATE_MISSING = "client_certificate_missing"
    CLIENT_CERTIFICATE_MISMATCH = "client_certificate_mismatch"
    CLIENT_NOT_ALLOWED = "client_not_allowed"
    REVOKED = "revoked"
    TOKEN_LIFETIME_TOO_LONG = "token_lifetime_too_long"
    INACTIVE_TOKEN = "inactive_token"
    INVALID_API_KEY = "invalid_api_key"
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
    # the app could not call an upstream API for the caller
    EXCHANGE_REFUSED = "exchange_refused"
    EXCHANGE_UNAVAILABLE = "exchange_unavailable"
    # the token cannot be verified now
    KEYS_UNAVAILABLE = "keys_unavailable"
    INTROSPECTION_UNAVAILABLE = "introspection_unavailable"
    API_KEYS_UNAVAILABLE = "api_keys_unavailable"
    METADATA_UNAVAILABLE = "metadata_unavailable"
    KEY_NOT_YET_KNOWN = "key_not_yet_known"
    HOOK_FAILED = "hook_failed"
    STORE_UNAVAILABLE = "store_unavailable"
    DPOP_TOO_MANY_PROOFS = "dpop_too_many_proofs"


def printable(value: object, limit: int = 128) -> str:
    """Return `value` as text for a log line: ASCII, escaped, at most `limit` characters."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= limit and text.isascii() and text.isprintable() and "\\" not in text:
        return text  # nothing to escape (benchmarks: in_process, audited)
    text = text[: limit + 1].encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else text[: limit - 3] + "..."


class MCPAuthError(Exception):
    """The base class of all exceptions of this library.

    Attributes:
        code: A stable code for programs.
        message: The text for people.
        cause: The exception or value that caused this one; None if there is none.
    """

    code: str = "mcp_auth_error"

    def __init__(self, message: str, *, cause: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause

    def to_json(self, show_cause: bool = False) -> dict[str, Any]:
        """Return `{"error", "error_description"}`, and `cause` as escaped text if `show_cause` is set."""
        body = {"error": str(self.code), "error_description": self.message}
        if show_cause and self.cause is not None:
            body["cause"] = printable(str(self.cause))
        return body


class Problem(NamedTuple):
    """One problem of a configuration.

    Attributes:
        where: The option, with file and line if it comes from a file.
        what: What is wrong, with the value.
        fix: How to fix it.
    """

    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.fix}".strip()


class ConfigurationError(MCPAuthError, ValueError):
    """A configuration that cannot be used.

    Args:
        problems: Everything that is wrong with the configuration; also an attribute.
    """

    code = "invalid_server_config"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} configuration problem{'' if count == 1 else 's'}"
        super().__init__("\n  - ".join([head, *map(str, self.problems)]))


class DiscoveryError(MCPAuthError):
    """Authorization server metadata or a key set that could not be fetched.

    Attributes:
        transient: Whether another attempt may succeed: after a timeout, a refused connection or a 5xx.
    """

    code = "fetch_server_config_error"

    def __init__(self, message: str, *, transient: bool, cause: object = None) -> None:
        super().__init__(message, cause=cause)
        self.transient = transient


class InvalidServerMetadata(DiscoveryError, ConfigurationError):  # noqa: N818 - the name states the fact
    """Authorization server metadata or a key set, fetched or written by hand, whose content cannot be used."""

    code = "invalid_server_metadata"

    def __init__(self, message: str, *, cause: object = None) -> None:
        MCPAuthError.__init__(self, message, cause=cause)
        self.transient = False
        self.problems = (Problem("metadata", message, ""),)


DETAILS: Final = ("issuer", "kid", "alg", "client_id", "operation", "expected", "found")
"""The attributes of a `Refusal` that `Refusal.details` returns."""


class Refusal(MCPAuthError):  # noqa: N818 - an answer, often returned and not raised
    r"""The answer to one rejected request. Each subclass sets the status, the wire code and the description.

    Args:
        reason: The stable code for the operator.
        expected: The value that would have been accepted, for the log.
        found: The value that was received, for the log; never a token.
        issuer, kid, alg: The unverified values from the token, for the log.
        client_id: The client of a verified token, for the log.
        description: The sentence for the caller, instead of the class's own: printable ASCII without `"`, `\` and `=`.
        retry_after: Seconds until the client should try again (503 only).
        response_headers: Header fields to add to the response, for example a DPoP nonce.

    Attributes:
        operation: The operation that was refused, for the log.
        tool_call_id: The id of the `tools/call` whose result contains the challenge (`challenge_style`); None for an
            answer with an HTTP status.
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
        self.tool_call_id: str | int | None = None
        # `Named` of `_mcp.operations`, for the decision
        self.operations: tuple[tuple[str, Any, str | None, str | int | None], ...] = ()
        self.retry_after = retry_after
        self.response_headers = response_headers

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.reason}>"

    def without_traceback(self) -> Self:
        """Return this exception without traceback and context, because their frames contain the token."""
        self.__context__ = self.__cause__ = None
        return self.with_traceback(None)

    def details(self) -> Mapping[str, str]:
        """Return issuer, kid, alg, client id, operation, expected and found for the operator, escaped and cut."""
        pairs = ((name, getattr(self, name)) for name in DETAILS)
        return {name: printable(value, self.max_detail) for name, value in pairs if value is not None}


class BadRequest(Refusal):
    """A malformed or ambiguous request: 400 `invalid_request`."""

    status = 400
    wire_code = "invalid_request"
    default_description = "Malformed Authorization header"


class Unauthenticated(Refusal):
    """A request without an acceptable credential: 401, always with a challenge."""

    status = 401


class NoCredential(Unauthenticated):
    """A request without a credential of a known scheme: a challenge without `error` (RFC 6750 section 3.1)."""

    default_description = "Authentication required"
    required: tuple[str, ...] | None = None
    """The scopes that the challenge names; None for those of the resource."""


class InvalidToken(Unauthenticated):
    """A credential that is not acceptable: 401 `invalid_token`."""

    wire_code = "invalid_token"
    default_description = "The access token is invalid"


class InvalidProof(Unauthenticated):
    """A DPoP proof that is missing or not acceptable: 401 `invalid_dpop_proof` (RFC 9449 section 7.1)."""

    wire_code = "invalid_dpop_proof"
    default_description = "Invalid DPoP proof"


class NonceRequired(Unauthenticated):
    """A DPoP proof that is acceptable but for its nonce: 401 `use_dpop_nonce` (RFC 9449 section 9)."""

    wire_code = "use_dpop_nonce"
    default_description = "Resource server requires nonce in DPoP proof"


class InsufficientAuthentication(Unauthenticated):
    """A valid token whose user authentication is too weak or too old (RFC 9470).

    The answer is 401 `insufficient_user_authentication`.

    Args:
        acr_values: Accepted `acr` values, in order of preference.
        max_age: The largest accepted age of the authentication, in seconds; None for no limit.
        required: All scopes that the operation needs if the token lacks one of them; empty otherwise.
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
    """A denial that another scope would not change: 403 without a challenge."""

    status = 403
    wire_code = "access_denied"
    default_description = "Access denied"


class OriginNotAllowed(Forbidden):
    """A request whose `Origin` is not allowed: 403."""

    default_description = "Origin not allowed"


class InsufficientScope(Forbidden):
    """A valid token that lacks scopes: 403 `insufficient_scope`, which names all required scopes.

    Args:
        required: All scopes that the operation needs.
        log: As for `Refusal`.
    """

    wire_code = "insufficient_scope"
    default_description = "Additional scope required"

    def __init__(self, *, required: tuple[str, ...], **log: Any) -> None:
        super().__init__(Reason.INSUFFICIENT_SCOPE, expected=" ".join(required), **log)
        self.required = required


class NotFound(Refusal):
    """A path that is neither in a protected resource nor public: 404."""

    status = 404
    default_description = "Not found"


class MethodNotAllowed(Refusal):
    """A GET or DELETE without a token where POST may need none: 405, as of a server without GET streams."""

    status = 405
    default_description = "Method not allowed"


class Misdirected(Refusal):
    """A request whose `Host` is not allowed, for example after DNS rebinding: 421."""

    status = 421
    default_description = "Host not allowed"


class Unavailable(Refusal):
    """A token that cannot be verified now: 503, so that clients keep the token and try again."""

    status = 503
    wire_code = "temporarily_unavailable"
    default_description = "The token cannot be verified right now"
    max_detail = 1024  # the failures of three fetches, whose causes come last


class ExchangeReason(StrEnum):
    """Why there is no token for an upstream API, or why it was not sent."""

    NO_CALLER = "no_caller"
    REQUEST_ENDED = "request_ended"
    NOT_EXCHANGEABLE = "not_exchangeable"
    REVOKED = "revoked"
    SUBJECT_REFUSED = "subject_refused"
    INTERACTION_REQUIRED = "interaction_required"
    INVALID_TARGET = "invalid_target"
    INVALID_SCOPE = "invalid_scope"
    DENIED = "denied"
    UNAVAILABLE = "unavailable"
    INVALID_ANSWER = "invalid_answer"
    NOT_BEARER = "not_bearer"
    DESTINATION = "destination"


class ExchangeError(MCPAuthError):
    """A failure to get a token for an upstream API, or to send the token to a destination that is not allowed.

    If the app lets the exception pass before it has responded, the middleware answers with `refusal()`.

    Args:
        reason: What happened.
        message: The text for the operator; it contains no token.
        error: The error code of the authorization server.
        claims: The claims that a new sign-in has to request, as JSON text (Entra ID).
        suberror: The `suberror` of Entra ID.
        retry_after: Seconds until another attempt may succeed.
    """

    code = "exchange_error"

    def __init__(
        self,
        reason: ExchangeReason,
        message: str,
        *,
        error: str | None = None,
        claims: str | None = None,
        suberror: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.error = error
        self.claims = claims
        self.suberror = suberror
        self.retry_after = retry_after

    def refusal(self) -> Refusal | None:
        """Return the answer that the failure means for the caller; None if only the app can decide.

        401 if the authorization server refuses the caller's token, or there is no caller; 503 if it does not answer.
        """
        if self.reason is ExchangeReason.NO_CALLER:
            return NoCredential(Reason.NO_CREDENTIAL)
        if self.reason in (ExchangeReason.SUBJECT_REFUSED, ExchangeReason.REVOKED):
            return InvalidToken(Reason.EXCHANGE_REFUSED, found=self.message)
        if self.reason in (ExchangeReason.UNAVAILABLE, ExchangeReason.INVALID_ANSWER):
            description = "An upstream API cannot be called right now"
            wait, found = self.retry_after, self.message
            return Unavailable(Reason.EXCHANGE_UNAVAILABLE, found=found, retry_after=wait, description=description)
        return None


class MessageRefused(Refusal):
    """A JSON-RPC message that cannot be evaluated or contradicts its header fields: 400 with a JSON-RPC error.

    Args:
        reason: As for `Refusal`.
        code: The JSON-RPC error code: -32700 for invalid JSON, -32600 for an invalid message, -32602 for invalid
            parameters, -32020 for header fields that contradict the body.
        message_id: The id of the message; None if the id could not be read.
        log: As for `Refusal`; `description` becomes the message of the JSON-RPC error.
    """

    default_description = "Invalid request"

    def __init__(self, reason: Reason, *, code: int = -32600, message_id: str | int | None = None, **log: Any) -> None:
        super().__init__(reason, **log)
        self.rpc_code = code
        self.message_id = message_id


class MessageTooLarge(MessageRefused):
    """A body that is longer than `max_body_size`: 413."""

    status = 413
    default_description = "Request body too large"


class UnsupportedContent(MessageRefused):
    """A body that is not `application/json`, or is compressed: 415."""

    status = 415
    default_description = "Unsupported media type"


class SessionNotFound(MessageRefused):
    """An unknown session, or a session of another caller: 404 in both cases."""

    status = 404
    default_description = "Session not found"
