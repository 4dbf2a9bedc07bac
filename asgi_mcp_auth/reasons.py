"""The closed list of reason codes: why a request was refused."""

from __future__ import annotations

from enum import StrEnum

__all__ = ("Reason",)


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
