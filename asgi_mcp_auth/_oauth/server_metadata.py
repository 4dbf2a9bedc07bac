"""Authorization server metadata (RFC 8414, OpenID Connect Discovery): acceptance, and fitness for MCP clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.strict_json import is_valid
from asgi_mcp_auth._oauth.urls import discovery_urls, is_loopback, parse_url, redact_url
from asgi_mcp_auth.config import NEEDED_METADATA, AuthorizationServerMetadata, AuthServerConfig
from asgi_mcp_auth.errors import InvalidServerMetadata, printable

__all__ = (
    "ALLOW_HTTP",
    "AuthServerConfigError",
    "AuthServerConfigErrorCode",
    "AuthServerConfigValidationResult",
    "AuthServerConfigWarning",
    "AuthServerConfigWarningCode",
    "accept_metadata",
    "insecure_url",
    "split_faulty",
    "unfit_for_clients",
    "validate_server_config",
)

ALLOW_HTTP = "Use https; http is accepted on loopback, and in a private network with dangerously_allow_http=True."
MAX_NAMES = 8


def insecure_url(text: object, *, allow_http: bool) -> str | None:
    """Return why `text` must not be fetched, or None for https and for http on loopback (OAuth 2.1 section 1.5)."""
    url = parse_url(text) if isinstance(text, str) else None
    if url is None or url.fragment is not None:
        return "is not an absolute URL"
    if url.scheme == "https" or (url.scheme == "http" and (allow_http or is_loopback(url.host))):
        return None
    return "is not https"


def split_faulty(document: JSONObject) -> tuple[JSONObject, frozenset[str]]:
    """Split a document from `load_tolerant` into the members to use, and the names of faulty members to ignore.

    `issuer` and `jwks_uri` are kept in any case, so that a fault in one of them refuses the document.
    """
    faulty = frozenset(name for name, value in document.items() if not is_valid([name, value])) - NEEDED_METADATA
    return {name: value for name, value in document.items() if name not in faulty}, faulty


def accept_metadata(
    document: Mapping[str, object],
    *,
    issuer: str | None,
    url: str,
    allow_http: bool = False,
    ignored: Iterable[str] = (),
) -> AuthorizationServerMetadata:
    """Read fetched metadata and check that its issuer is exactly the expected one (RFC 8414 section 3.3).

    Args:
        document: The document.
        issuer: The expected issuer; None to accept any.
        url: The URL of the document, for messages.
        allow_http: Whether `jwks_uri` may be plain http beyond loopback.
        ignored: Names of members that the caller has left out.

    Raises:
        InvalidServerMetadata: The issuer is another one or empty, `issuer` or `jwks_uri` has the wrong JSON type, or
            `jwks_uri` is not https.
    """
    metadata = AuthorizationServerMetadata.from_dict(document, ignored=ignored)
    if issuer is not None and metadata.issuer != issuer:
        msg = f"The document at {url} has the issuer {printable(metadata.issuer)}, not {printable(issuer)}."
        raise InvalidServerMetadata(msg)
    if not metadata.issuer:
        raise InvalidServerMetadata(f"The document at {url} has an empty issuer.")
    if metadata.jwks_uri is not None and (why := insecure_url(metadata.jwks_uri, allow_http=allow_http)):
        raise InvalidServerMetadata(f"The jwks_uri {redact_url(metadata.jwks_uri)} in {url} {why}. {ALLOW_HTTP}")
    return metadata


class AuthServerConfigErrorCode(StrEnum):
    """Codes of errors: MCP clients cannot use the authorization server."""

    INVALID_SERVER_METADATA = "invalid_server_metadata"
    CODE_RESPONSE_TYPE_NOT_SUPPORTED = "code_response_type_not_supported"
    AUTHORIZATION_CODE_GRANT_NOT_SUPPORTED = "authorization_code_grant_not_supported"
    PKCE_NOT_SUPPORTED = "pkce_not_supported"
    S256_CODE_CHALLENGE_METHOD_NOT_SUPPORTED = "s256_code_challenge_method_not_supported"


class AuthServerConfigWarningCode(StrEnum):
    """Codes of warnings: some MCP clients cannot use the authorization server."""

    DYNAMIC_REGISTRATION_NOT_SUPPORTED = "dynamic_registration_not_supported"
    CLIENT_ID_METADATA_DOCUMENT_NOT_SUPPORTED = "client_id_metadata_document_not_supported"


_DESCRIPTIONS: Mapping[str, str] = {
    "invalid_server_metadata": "There is no metadata: pass `metadata`, or fetch the metadata with fetch_server_config.",
    "code_response_type_not_supported": 'The server does not list the response type "code".',
    "authorization_code_grant_not_supported": 'The server does not support the grant type "authorization_code".',
    "pkce_not_supported": "The metadata has no code_challenge_methods_supported: MCP clients must refuse the server.",
    "s256_code_challenge_method_not_supported": 'The server does not support the PKCE method "S256".',
    "dynamic_registration_not_supported": "There is no registration_endpoint: clients must be registered by hand.",
    "client_id_metadata_document_not_supported": "The server does not accept client id metadata documents.",
}


class AuthServerConfigError(NamedTuple):
    """An error in an authorization server's metadata.

    Attributes:
        code: The stable code.
        description: A sentence for people.
        cause: What raised the error, if anything.
    """

    code: AuthServerConfigErrorCode
    description: str
    cause: Exception | None = None


class AuthServerConfigWarning(NamedTuple):
    """A warning in an authorization server's metadata.

    Attributes:
        code: The stable code.
        description: A sentence for people.
    """

    code: AuthServerConfigWarningCode
    description: str


class AuthServerConfigValidationResult(NamedTuple):
    """The result of `validate_server_config`.

    Attributes:
        is_valid: Whether there are no errors.
        errors: What MCP clients fail at.
        warnings: What some MCP clients will miss.
    """

    is_valid: bool
    errors: list[AuthServerConfigError]
    warnings: list[AuthServerConfigWarning]


def validate_server_config(config: AuthServerConfig) -> AuthServerConfigValidationResult:
    """Check whether MCP clients can use an authorization server (MCP 2025-11-25 and later: PKCE must be published).

    The endpoints are not requested. A config without metadata has the error `invalid_server_metadata`.
    """
    errors: list[AuthServerConfigErrorCode] = []
    warnings: list[AuthServerConfigWarningCode] = []
    metadata = config.metadata
    if metadata is None:
        errors.append(AuthServerConfigErrorCode.INVALID_SERVER_METADATA)
    else:
        response_types = metadata.response_types_supported or ()
        if not any("code" in response_type.split() for response_type in response_types):
            errors.append(AuthServerConfigErrorCode.CODE_RESPONSE_TYPE_NOT_SUPPORTED)
        grants = metadata.grant_types_supported  # RFC 8414 section 2: the default when absent
        if grants is not None and "authorization_code" not in grants:
            errors.append(AuthServerConfigErrorCode.AUTHORIZATION_CODE_GRANT_NOT_SUPPORTED)
        if not metadata.code_challenge_methods_supported:
            errors.append(AuthServerConfigErrorCode.PKCE_NOT_SUPPORTED)
        elif "S256" not in metadata.code_challenge_methods_supported:
            errors.append(AuthServerConfigErrorCode.S256_CODE_CHALLENGE_METHOD_NOT_SUPPORTED)
        if not metadata.registration_endpoint:
            warnings.append(AuthServerConfigWarningCode.DYNAMIC_REGISTRATION_NOT_SUPPORTED)
        if metadata.client_id_metadata_document_supported is not True:
            warnings.append(AuthServerConfigWarningCode.CLIENT_ID_METADATA_DOCUMENT_NOT_SUPPORTED)
    return AuthServerConfigValidationResult(
        not errors,
        [AuthServerConfigError(code, _DESCRIPTIONS[code]) for code in errors],
        [AuthServerConfigWarning(code, _DESCRIPTIONS[code]) for code in warnings],
    )


def unfit_for_clients(
    metadata: AuthorizationServerMetadata, config: AuthServerConfig, resources: Iterable[str]
) -> list[str]:
    """Return faults of discovered metadata that stop no verification, but make MCP clients fail.

    What clients need for a login is not checked in metadata without an authorization endpoint, which serves machines.
    """
    found: list[str] = []
    if ignored := metadata.ignored_members:
        names = ", ".join(map(printable, ignored[:MAX_NAMES])) + (", …" if len(ignored) > MAX_NAMES else "")
        found.append(f"Members of a wrong type, or not valid JSON, are ignored: {names}.")
    listed = metadata.protected_resources  # RFC 9728 section 4
    lacking = [] if listed is None else [resource for resource in resources if resource not in listed]
    found += [f"protected_resources does not list {resource}." for resource in lacking]
    if metadata.authorization_endpoint is None:
        return found
    found += [error.description for error in validate_server_config(AuthServerConfig(metadata=metadata)).errors]
    if not (metadata.registration_endpoint or metadata.client_id_metadata_document_supported is True):
        found.append("It has neither registration_endpoint nor client id metadata documents: register clients by hand.")
    issuer = parse_url(metadata.issuer)
    urls = () if issuer is None else discovery_urls(issuer, None)
    if config.metadata_url is not None and config.metadata_url not in urls:
        found.append(f"MCP clients do not find the metadata: they request {' and '.join(urls)}.")
    return found
