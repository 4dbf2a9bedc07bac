"""The codes of what is found at any URL, and at an authorization server."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor.findings import Code, Severity

__all__ = ("ANYWHERE", "ISSUER")

ERROR, WARNING, INFO, OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK
MCP = "MCP authorization"

UNREACHABLE: Final = Code(
    "unreachable", ERROR, "no answer: name, connection, TLS or time", "Start it, or mend the URL.", "OAuth 2.1 1.5"
)
NOT_HTTPS: Final = Code("not_https", ERROR, "not an https URL", "Serve it over https; http only on loopback.", MCP)
NOT_ASKED: Final = Code(
    "not_asked",
    WARNING,
    "another host named this URL, and its address is not public, so it was not asked",
    "Name the URL on the command line to have it checked.",
    "RFC 9728 7.7",
)
REDIRECTED: Final = Code(
    "redirected",
    ERROR,
    "a redirect, which is not followed",
    "Answer at this place itself: clients and servers do not follow redirects of metadata and keys.",
    "RFC 8414 3.2",
)
ERROR_STATUS: Final = Code(
    "error_status",
    ERROR,
    "another status than 200",
    "Answer 200 with the document, or 404 where there is none.",
    "RFC 8414 3.2",
)
HTML: Final = Code(
    "html_instead_of_json",
    ERROR,
    "a web page with status 200, as single-page apps serve for any path",
    "Answer 404 with JSON for unknown paths below /.well-known/.",
    "RFC 8414 3.2",
)
NOT_JSON: Final = Code("not_json", ERROR, "not one JSON object", "Answer with a JSON object.", "RFC 8414 3.2")
TOO_LARGE: Final = Code("too_large", ERROR, "more than 512 KiB", "Make it smaller.", "RFC 9728 7.7")
CONTENT_TYPE: Final = Code(
    "wrong_content_type", WARNING, "JSON that says it is something else", "Say application/json.", "RFC 8414 3.2"
)
NO_CORS: Final = Code(
    "no_cors",
    WARNING,
    "clients in a browser cannot use it",
    "Allow any origin (Access-Control-Allow-Origin: *), and the header MCP-Protocol-Version in preflights.",
    "Fetch standard",
)
ANYWHERE: Final = (
    *(UNREACHABLE, NOT_HTTPS, NOT_ASKED, REDIRECTED, ERROR_STATUS, HTML, NOT_JSON, TOO_LARGE, CONTENT_TYPE, NO_CORS),
)

METADATA_FOUND: Final = Code("metadata_found", OK, "the metadata is where clients look", "", "RFC 8414 3")
METADATA_NOT_FOUND: Final = Code(
    "metadata_not_found",
    ERROR,
    "no well-known place has the metadata",
    "Publish it at one of the places; check the issuer to the letter.",
    "RFC 8414 3",
)
METADATA_INVALID: Final = Code(
    "metadata_invalid", ERROR, "the document cannot be used", "Mend the members named.", "RFC 8414 2"
)
OAUTH_PLACE: Final = Code(
    "oauth_place_missing",
    INFO,
    "there is nothing at the RFC 8414 place, where clients of MCP 2025-06-18 look only",
    "Publish it there too.",
    "RFC 8414 3.1",
)
ELSEWHERE: Final = Code(
    "metadata_elsewhere",
    ERROR,
    "clients will not find the metadata: it is not at a well-known place of the issuer",
    "Publish it at a well-known place too.",
    MCP,
)
TYPE_PLACE: Final = Code(
    "type_place_missing",
    ERROR,
    "the metadata is not where the `type` of the configuration says",
    "Leave `type` out, or set the other one.",
    "README, Authorization servers",
)
ISSUER_MISMATCH: Final = Code(
    "issuer_mismatch",
    ERROR,
    "the document is of another issuer",
    "Use the issuer of the document everywhere, or mend the document.",
    "RFC 8414 3.3",
)
TRAILING_SLASH: Final = Code(
    "issuer_trailing_slash",
    ERROR,
    "the document's issuer differs by a slash at the end",
    "Write the issuer exactly as the document has it, in the configuration and in the resource metadata.",
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
    'the response type "code" is not listed',
    'Publish "response_types_supported": ["code"].',
    "RFC 8414 2",
)
NO_CODE_GRANT: Final = Code(
    "authorization_code_grant_not_supported",
    ERROR,
    'the grant type "authorization_code" is not listed',
    'Add "authorization_code" to grant_types_supported.',
    "RFC 8414 2",
)
MACHINES_ONLY: Final = Code(
    "machines_only",
    INFO,
    "no authorization endpoint: nobody can log in, only clients with credentials of their own can get tokens",
    "Publish authorization_endpoint, if people are to use it.",
    "RFC 8414 2",
)
NO_TOKEN_ENDPOINT: Final = Code(
    "no_token_endpoint", ERROR, "no token endpoint", "Publish token_endpoint.", "RFC 8414 2"
)
REGISTRATION: Final = Code("registration_supported", OK, "clients can make themselves known", "", MCP)
NO_REGISTRATION: Final = Code(
    "no_registration",
    WARNING,
    "neither registration nor client id metadata documents: unknown clients cannot connect",
    "Switch one of them on, or register clients by hand and give people their client ids.",
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
    "client id metadata documents only: older clients register",
    "Support dynamic registration too, or register older clients by hand.",
    "RFC 7591",
)
CIMD_WITHOUT_NONE: Final = Code(
    "public_clients_not_supported",
    WARNING,
    'client id metadata documents, but not the authentication method "none": claude.ai registers instead',
    'Add "none" to token_endpoint_auth_methods_supported.',
    MCP,
)
RESOURCE_UNKNOWN: Final = Code(
    "resource_parameter_unknown",
    INFO,
    "metadata does not tell whether it supports `resource`, which decides the audience of tokens",
    "Get a token with the client you will use, and pipe it into: asgi-mcp-auth explain",
    "RFC 8707",
)
RESOURCE_SUPPORTED: Final = Code(
    "resource_parameter_supported", OK, "it binds tokens to the `resource`", "", "RFC 8707"
)
RESOURCE_SETTING: Final = Code(
    "resource_parameter_setting",
    INFO,
    "it binds tokens to the `resource` once that is switched on",
    "See the advice for the provider.",
    "RFC 8707",
)
RESOURCE_NOT_SUPPORTED: Final = Code(
    "resource_parameter_not_supported",
    WARNING,
    "it does not bind tokens to the `resource`: their audience is a setting of the provider",
    "See the advice for the provider.",
    "RFC 8707",
)
NOT_LISTED: Final = Code(
    "resource_not_listed",
    WARNING,
    "protected_resources does not list the resource",
    "Add it there.",
    "RFC 9728 4",
)
NO_ISS: Final = Code(
    "iss_parameter_not_supported",
    INFO,
    "authorization responses do not name their issuer",
    "Send `iss`, and publish authorization_response_iss_parameter_supported.",
    "RFC 9207",
)
PROVIDER: Final = Code("provider_recognised", INFO, "the issuer looks like that of a known provider", "", "")
UNUSABLE_PROVIDER: Final = Code(
    "provider_unusable",
    ERROR,
    "its access tokens cannot protect an MCP server",
    "Use another authorization server.",
    MCP,
)
ISSUER: Final = (
    *(
        METADATA_FOUND,
        METADATA_NOT_FOUND,
        METADATA_INVALID,
        OAUTH_PLACE,
        ELSEWHERE,
        TYPE_PLACE,
        ISSUER_MISMATCH,
        TRAILING_SLASH,
    ),
    *(PKCE, NO_PKCE, NO_S256, NO_CODE, NO_CODE_GRANT, MACHINES_ONLY, NO_TOKEN_ENDPOINT),
    *(REGISTRATION, NO_REGISTRATION, NO_CIMD, NO_DCR, CIMD_WITHOUT_NONE),
    *(RESOURCE_UNKNOWN, RESOURCE_SUPPORTED, RESOURCE_SETTING, RESOURCE_NOT_SUPPORTED, NOT_LISTED, NO_ISS),
    *(PROVIDER, UNUSABLE_PROVIDER),
)
