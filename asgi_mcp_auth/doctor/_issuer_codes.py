"""The codes of findings at any URL, and at an authorization server."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor._findings import Code, Severity

__all__ = ("ANY_URL", "ISSUER")

ERROR, WARNING, INFO, OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK
MCP = "MCP authorization"

UNREACHABLE: Final = Code(
    "unreachable",
    ERROR,
    "no response: DNS, connection, TLS or timeout",
    "Start the server, or fix the URL.",
    "OAuth 2.1 1.5",
)
NOT_HTTPS: Final = Code(
    "not_https", ERROR, "not an https URL", "Serve the URL over https; http is only for loopback.", MCP
)
NOT_ASKED: Final = Code(
    "not_asked",
    WARNING,
    "not requested: another server named this URL, and its address is not public",
    "Pass the URL on the command line to have it checked.",
    "RFC 9728 7.7",
)
REDIRECTED: Final = Code(
    "redirected",
    ERROR,
    "a redirect, which is not followed",
    "Serve the document at this URL: clients and servers do not follow redirects of metadata and key sets.",
    "RFC 8414 3.2",
)
ERROR_STATUS: Final = Code(
    "error_status",
    ERROR,
    "a status other than 200",
    "Answer 200 with the document.",
    "RFC 8414 3.2",
)
HTML: Final = Code(
    "html_instead_of_json",
    ERROR,
    "an HTML page with status 200, as single-page apps answer for any path",
    "Answer 404 for unknown paths below /.well-known/.",
    "RFC 8414 3.2",
)
NOT_JSON: Final = Code("not_json", ERROR, "not one JSON object", "Answer with a JSON object.", "RFC 8414 3.2")
NOT_STRICT_JSON: Final = Code(
    "json_not_strict",
    WARNING,
    "JSON that strict parsers reject: a byte order mark, a repeated member, or a number that is not JSON",
    "Serve JSON that follows RFC 8259.",
    "RFC 8259 4",
)
NOT_DECODED: Final = Code(
    "content_not_decoded",
    ERROR,
    "a content coding that cannot be decoded",
    "Send the document without Content-Encoding to clients that send Accept-Encoding: identity.",
    "RFC 9110 12.5.3",
)
TOO_LARGE: Final = Code("too_large", ERROR, "more than 512 KiB", "Make the document smaller.", "RFC 9728 7.7")
CONTENT_TYPE: Final = Code(
    "wrong_content_type",
    WARNING,
    "JSON with the media type of something else",
    "Send Content-Type: application/json.",
    "RFC 8414 3.2",
)
NO_CORS: Final = Code(
    "no_cors",
    WARNING,
    "clients in a browser cannot use the URL",
    "Send Access-Control-Allow-Origin: *, and allow the header MCP-Protocol-Version in preflights.",
    "Fetch standard",
)
ANY_URL: Final = (
    *(UNREACHABLE, NOT_HTTPS, NOT_ASKED, REDIRECTED, ERROR_STATUS, HTML, NOT_JSON, NOT_STRICT_JSON, NOT_DECODED),
    *(TOO_LARGE, CONTENT_TYPE, NO_CORS),
)

METADATA_FOUND: Final = Code(
    "metadata_found", OK, "the metadata is at a well-known URL of the issuer", "", "RFC 8414 3"
)
METADATA_NOT_FOUND: Final = Code(
    "metadata_not_found",
    ERROR,
    "none of the issuer's well-known URLs has metadata",
    "Serve the metadata at one of the URLs, and check that the issuer is written exactly as in its tokens.",
    "RFC 8414 3",
    "Set authorization_servers= to the issuer exactly as its tokens carry it in `iss`; for another URL, metadata_url=.",
)
METADATA_INVALID: Final = Code(
    "metadata_invalid",
    ERROR,
    "members of the wrong JSON type in the metadata",
    "Fix the type of the listed members.",
    "RFC 8414 2",
)
NO_RFC8414_URL: Final = Code(
    "oauth_place_missing",
    INFO,
    "no metadata at the RFC 8414 URL, the only URL that clients of MCP 2025-06-18 try",
    "Serve the metadata at this URL too.",
    "RFC 8414 3.1",
)
ELSEWHERE: Final = Code(
    "metadata_elsewhere",
    ERROR,
    "clients will not find the metadata: its URL is not a well-known URL of the issuer",
    "Serve the metadata at a well-known URL too.",
    MCP,
)
NOT_AT_TYPE: Final = Code(
    "type_place_missing",
    ERROR,
    "no metadata at the URL that the configuration's `type` selects",
    "Remove `type`, or set the other type.",
    "asgi_mcp_auth/README.md, Authorization servers",
)
ISSUER_MISMATCH: Final = Code(
    "issuer_mismatch",
    ERROR,
    "the metadata names another issuer",
    "Use the issuer in the metadata everywhere, or fix the metadata.",
    "RFC 8414 3.3",
)
TRAILING_SLASH: Final = Code(
    "issuer_trailing_slash",
    ERROR,
    "the issuer in the metadata differs by a trailing slash",
    "Write the issuer exactly as in the metadata, in the configuration and in the resource metadata.",
    "RFC 8414 3.3",
)
PKCE: Final = Code("pkce_supported", OK, "PKCE with S256", "", MCP)
NO_PKCE: Final = Code(
    "pkce_not_supported",
    ERROR,
    "no code_challenge_methods_supported: clients must refuse the server",
    'Publish "code_challenge_methods_supported": ["S256"].',
    MCP,
)
NO_S256: Final = Code(
    "s256_code_challenge_method_not_supported",
    ERROR,
    "PKCE without S256",
    'Support S256, and publish "code_challenge_methods_supported": ["S256"].',
    MCP,
)
NO_CODE: Final = Code(
    "code_response_type_not_supported",
    ERROR,
    'response_types_supported does not list "code"',
    'Publish "response_types_supported": ["code"].',
    "RFC 8414 2",
)
NO_CODE_GRANT: Final = Code(
    "authorization_code_grant_not_supported",
    ERROR,
    'grant_types_supported does not list "authorization_code"',
    'Add "authorization_code" to grant_types_supported.',
    "RFC 8414 2",
)
MACHINES_ONLY: Final = Code(
    "machines_only",
    INFO,
    "no authorization endpoint: people cannot sign in; only clients with credentials of their own get tokens",
    "Publish authorization_endpoint if people should sign in.",
    "RFC 8414 2",
)
NO_TOKEN_ENDPOINT: Final = Code(
    "no_token_endpoint", ERROR, "no token endpoint", "Publish token_endpoint.", "RFC 8414 2"
)
REGISTRATION: Final = Code("registration_supported", OK, "unknown clients can register", "", MCP)
NO_REGISTRATION: Final = Code(
    "no_registration",
    WARNING,
    "neither dynamic registration nor client id metadata documents: unknown clients cannot connect",
    "Enable one of the two, or register clients by hand and give their client ids to users.",
    MCP,
)
NO_CIMD: Final = Code(
    "client_id_metadata_document_not_supported",
    INFO,
    "dynamic registration only, which MCP 2026-07-28 deprecates",
    "Support client id metadata documents.",
    MCP,
)
NO_DCR: Final = Code(
    "dynamic_registration_not_supported",
    INFO,
    "client id metadata documents only: older clients need dynamic registration",
    "Support dynamic registration too, or register older clients by hand.",
    "RFC 7591",
)
CIMD_WITHOUT_NONE: Final = Code(
    "public_clients_not_supported",
    WARNING,
    'client id metadata documents without the authentication method "none": claude.ai registers instead',
    'Add "none" to token_endpoint_auth_methods_supported.',
    MCP,
)
RESOURCE_UNKNOWN: Final = Code(
    "resource_parameter_unknown",
    INFO,
    "unknown provider: metadata does not say whether `resource` sets the audience of tokens",
    "Get a token with the client you will use, and pipe the token into: asgi-mcp-auth explain",
    "RFC 8707",
)
RESOURCE_SUPPORTED: Final = Code(
    "resource_parameter_supported", OK, "the provider binds tokens to the `resource`", "", "RFC 8707"
)
RESOURCE_SETTING: Final = Code(
    "resource_parameter_setting",
    INFO,
    "the provider binds tokens to the `resource` once a setting is enabled",
    "See the advice for the provider.",
    "RFC 8707",
)
RESOURCE_NOT_SUPPORTED: Final = Code(
    "resource_parameter_not_supported",
    WARNING,
    "the provider does not bind tokens to the `resource`; their audience is a setting of the provider",
    "See the advice for the provider.",
    "RFC 8707",
)
NOT_LISTED: Final = Code(
    "resource_not_listed",
    WARNING,
    "protected_resources does not list the resource",
    "Add the resource to protected_resources.",
    "RFC 9728 4",
)
SCOPES_NOT_LISTED: Final = Code(
    "scopes_not_listed",
    WARNING,
    "scopes_supported does not list scopes that the resource advertises",
    "Define the scopes at the authorization server, or remove them from the resource.",
    "RFC 8414 2",
    "Define the scopes at the authorization server, or fix required_scopes= and the scopes of the policy.",
)
NO_DPOP: Final = Code(
    "issuer_without_dpop",
    WARNING,
    "the metadata lists no DPoP algorithm that the resource accepts",
    "Enable DPoP at the authorization server, or have the resource accept one of its algorithms.",
    "RFC 9449 5.1",
    "Enable DPoP at the authorization server, or list its algorithms in DPoPSettings(algorithms=...).",
)
NO_CERTIFICATES: Final = Code(
    "issuer_without_mtls",
    WARNING,
    "the metadata does not announce certificate-bound tokens, which the resource accepts",
    "Enable certificate-bound access tokens (mutual TLS) at the authorization server.",
    "RFC 8705 3.3",
    "Enable certificate-bound access tokens at the authorization server, or remove client_certificates=.",
)
NO_ISS: Final = Code(
    "iss_parameter_not_supported",
    INFO,
    "authorization responses do not name their issuer",
    "Send `iss`, and publish authorization_response_iss_parameter_supported.",
    "RFC 9207",
)
PROVIDER: Final = Code("provider_recognised", INFO, "the issuer looks like one of a known provider", "", "")
UNUSABLE_PROVIDER: Final = Code(
    "provider_unusable",
    ERROR,
    "the provider's access tokens cannot protect an MCP server",
    "Use another authorization server.",
    MCP,
)
ISSUER: Final = (
    *(METADATA_FOUND, METADATA_NOT_FOUND, METADATA_INVALID, NO_RFC8414_URL, ELSEWHERE, NOT_AT_TYPE),
    *(ISSUER_MISMATCH, TRAILING_SLASH, PKCE, NO_PKCE, NO_S256, NO_CODE, NO_CODE_GRANT, MACHINES_ONLY),
    *(NO_TOKEN_ENDPOINT, REGISTRATION, NO_REGISTRATION, NO_CIMD, NO_DCR, CIMD_WITHOUT_NONE),
    *(RESOURCE_UNKNOWN, RESOURCE_SUPPORTED, RESOURCE_SETTING, RESOURCE_NOT_SUPPORTED, NOT_LISTED),
    *(SCOPES_NOT_LISTED, NO_DPOP, NO_CERTIFICATES, NO_ISS, PROVIDER, UNUSABLE_PROVIDER),
)
