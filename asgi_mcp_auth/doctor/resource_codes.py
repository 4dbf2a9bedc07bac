"""The codes of what is found at a live protected resource, in its metadata document, and in a configuration file."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor.findings import Code, Severity

__all__ = ("CHALLENGE", "CONFIG", "METADATA", "RESOURCE")

ERROR, WARNING, INFO, OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK
MCP = "MCP authorization"
CLIENTS = "what official clients do"

PROTECTED: Final = Code("protected", OK, "a request without a token gets 401 and a challenge", "", MCP)
NOT_PROTECTED: Final = Code(
    "not_protected",
    ERROR,
    "a request without a token is served",
    "Put the middleware around the whole app; check public_paths.",
    MCP,
)
LOGIN_REDIRECT: Final = Code(
    "login_redirect",
    ERROR,
    "a redirect instead of 401: clients follow challenges, not login pages",
    "Answer 401 with WWW-Authenticate; mind a missing or an added slash in the URL.",
    MCP,
)
WRONG_STATUS: Final = Code(
    "wrong_status",
    ERROR,
    "another status than 401 for a request without a token",
    "Answer 401 with WWW-Authenticate, before anything else is looked at.",
    "RFC 6750 3",
)
METHOD_OPEN: Final = Code(
    "method_not_protected",
    ERROR,
    "another method is served without a token",
    "Ask for a token whatever the method.",
    MCP,
)
BAD_TOKEN_ACCEPTED: Final = Code(
    "bad_token_accepted",
    ERROR,
    "a made-up token is accepted",
    "Verify signature, issuer, audience and expiry of every token.",
    MCP,
)
BAD_TOKEN_STATUS: Final = Code(
    "bad_token_wrong_status",
    ERROR,
    "another status than 401 for a made-up token: clients do not get a new one",
    'Answer 401 with error="invalid_token"; 503 only while keys cannot be had.',
    "RFC 6750 3.1",
)
BAD_TOKEN_ERROR: Final = Code(
    "bad_token_without_error",
    WARNING,
    "the challenge for a made-up token does not say invalid_token",
    'Send error="invalid_token".',
    "RFC 6750 3.1",
)
BAD_TOKEN_REFUSED: Final = Code("bad_token_refused", OK, "a made-up token gets 401 invalid_token", "", "RFC 6750 3.1")
HOST_OPEN: Final = Code(
    "host_not_checked",
    WARNING,
    "a loopback server answers to any Host: web pages can reach it by DNS rebinding",
    "Set allowed_hosts, or answer other hosts with 421.",
    "MCP transports, security",
)
ORIGIN_OPEN: Final = Code(
    "any_origin_with_credentials",
    ERROR,
    "a foreign origin is allowed, with credentials",
    "List the origins to allow; never echo any.",
    "MCP transports, security",
)
ORIGIN_LATE: Final = Code(
    "origin_not_refused",
    INFO,
    "a foreign origin gets 401 like everybody: whether it is refused with a token cannot be told",
    "Answer unlisted origins with 403.",
    "MCP transports, security",
)
PREFLIGHT: Final = Code(
    "preflight_refused",
    WARNING,
    "the preflight of the resource's own origin is refused: clients in a browser cannot call",
    "Answer preflights before asking for a token: they carry none.",
    "Fetch standard",
)
NOT_EXPOSED: Final = Code(
    "challenge_not_exposed",
    WARNING,
    "clients in a browser cannot read the challenge",
    "Send Access-Control-Expose-Headers: WWW-Authenticate with the 401.",
    "Fetch standard",
)
RESOURCE: Final = (
    *(PROTECTED, NOT_PROTECTED, LOGIN_REDIRECT, WRONG_STATUS, METHOD_OPEN),
    *(BAD_TOKEN_ACCEPTED, BAD_TOKEN_STATUS, BAD_TOKEN_ERROR, BAD_TOKEN_REFUSED),
    *(HOST_OPEN, ORIGIN_OPEN, ORIGIN_LATE, PREFLIGHT, NOT_EXPOSED),
)

NO_CHALLENGE: Final = Code(
    "no_challenge", ERROR, "401 without WWW-Authenticate", "Send a Bearer challenge.", "RFC 9110 15.5.2"
)
BARE_CHALLENGE: Final = Code(
    "bare_challenge", ERROR, "a challenge without parameters", "Send resource_metadata and scope.", "OAuth 2.1 5.3.1"
)
UNREADABLE: Final = Code(
    "challenge_unreadable", ERROR, "a challenge that cannot be parsed", "Quote every value.", "RFC 9110 11.6.1"
)
NO_BEARER: Final = Code("no_bearer_challenge", ERROR, "no Bearer challenge", "Send one.", "RFC 6750 3")
BEARER_LATE: Final = Code("bearer_not_first", WARNING, "Bearer is not the first challenge", "Send it first.", CLIENTS)
NO_METADATA_PARAMETER: Final = Code(
    "no_resource_metadata",
    ERROR,
    "the challenge does not say where the metadata is",
    "Send resource_metadata with the URL of the metadata.",
    "RFC 9728 5.1",
)
METADATA_PARAMETER: Final = Code(
    "resource_metadata_elsewhere",
    WARNING,
    "resource_metadata is not the well-known URL of this resource",
    "Send the URL with the path of the resource after /.well-known/oauth-protected-resource.",
    "RFC 9728 3.1",
)
ERROR_WITHOUT_TOKEN: Final = Code(
    "error_without_token",
    WARNING,
    "an error in the challenge, though no token was sent",
    "Leave error out when there is no token.",
    "RFC 6750 3.1",
)
NO_SCOPE: Final = Code(
    "no_scope",
    INFO,
    "the challenge does not say which scopes to ask for",
    "Send scope with the baseline, if there is one.",
    MCP,
)
EMPTY_SCOPE: Final = Code(
    "empty_scope", ERROR, 'scope="": clients ask for a scope of two quotes', "Leave it out.", CLIENTS
)
OFFLINE_ACCESS: Final = Code(
    "offline_access_asked",
    WARNING,
    "offline_access is the client's business, not the resource's",
    "Take it out of the scopes of challenges and of scopes_supported.",
    MCP,
)
UNQUOTED: Final = Code("unquoted_parameter", WARNING, "a value without quotes", "Quote every value.", "RFC 6750 3")
REPEATED: Final = Code("repeated_parameter", ERROR, "a parameter twice in a challenge", "Send it once.", "RFC 6750 3")
CHARACTERS: Final = Code(
    "forbidden_characters",
    WARNING,
    "characters that scope, error or error_description may not have",
    "Send printable ASCII without quotes and backslashes.",
    "RFC 6750 3",
)
MISREAD: Final = Code(
    "challenge_misread",
    ERROR,
    "clients that look for name= take another value than is meant",
    "Put scope and resource_metadata before error_description, and keep = out of it.",
    CLIENTS,
)
EQUALS: Final = Code(
    "equals_in_description",
    WARNING,
    "error_description has a =, which may be taken for a parameter",
    "Write it without.",
    CLIENTS,
)
STORED: Final = Code(
    "refusal_may_be_stored", INFO, "the 401 may be stored by caches", "Send Cache-Control: no-store.", "RFC 9111 3"
)
CHALLENGE: Final = (
    *(NO_CHALLENGE, BARE_CHALLENGE, UNREADABLE, NO_BEARER, BEARER_LATE, NO_METADATA_PARAMETER, METADATA_PARAMETER),
    *(ERROR_WITHOUT_TOKEN, NO_SCOPE, EMPTY_SCOPE, OFFLINE_ACCESS, UNQUOTED, REPEATED, CHARACTERS, MISREAD, EQUALS),
    STORED,
)

METADATA_FOUND: Final = Code("resource_metadata_found", OK, "the metadata is where clients look", "", "RFC 9728 3.1")
METADATA_NOT_FOUND: Final = Code(
    "resource_metadata_not_found",
    ERROR,
    "no well-known place has the resource's metadata",
    "Let /.well-known/oauth-protected-resource/* of the host reach the middleware (metadata_app() below a mount).",
    "RFC 9728 3.1",
)
PATH_PLACE: Final = Code(
    "resource_metadata_path_missing",
    WARNING,
    "the metadata is at the root place only; some clients look at the one with the path first, or only",
    "Serve it at the place with the path of the resource.",
    "RFC 9728 3.1",
)
MISMATCH: Final = Code(
    "resource_mismatch",
    ERROR,
    "the metadata is of another resource than the URL it was found by: clients must not use it",
    "Configure the resource exactly as clients write its URL: scheme, host, path, and no slash more or less.",
    "RFC 9728 3.3",
)
NO_SERVERS: Final = Code(
    "no_authorization_servers", ERROR, "no authorization server is named", "Name at least one issuer.", MCP
)
SERVER_INVALID: Final = Code(
    "authorization_server_invalid", ERROR, "not an issuer", "Name issuers: https URLs, as tokens carry them.", MCP
)
BEARER_METHOD: Final = Code(
    "header_not_supported",
    ERROR,
    "bearer_methods_supported lacks header, the only method of MCP",
    'Publish ["header"], or leave it out.',
    "RFC 9728 2",
)
EMPTY_MEMBER: Final = Code(
    "empty_member", WARNING, "a member that is null or an empty list", "Leave it out.", "RFC 9728 3.2"
)
METADATA: Final = (
    *(METADATA_FOUND, METADATA_NOT_FOUND, PATH_PLACE, MISMATCH, NO_SERVERS, SERVER_INVALID, BEARER_METHOD),
    EMPTY_MEMBER,
)

CONFIG_GOOD: Final = Code("config_good", OK, "the configuration is accepted", "", "README, Configuration")
CONFIG_INVALID: Final = Code(
    "config_invalid", ERROR, "the configuration is refused", "See the evidence.", "README, Configuration"
)
CONFIG_WARNING: Final = Code(
    "config_warning", WARNING, "works, and will surprise", "See the evidence.", "README, Configuration"
)
NOT_DEPLOYED: Final = Code(
    "resource_not_reachable",
    INFO,
    "the configured resource does not answer from here, so only the file and its issuers were checked",
    "Run it, and ask again.",
    "",
)
DIFFERS: Final = Code(
    "deployed_differs",
    WARNING,
    "the resource serves other metadata than the file says",
    "Deploy the file, or check the right one.",
    "README, Configuration",
)
NOT_RECOGNISED: Final = Code(
    "not_recognised",
    ERROR,
    "neither an issuer nor a protected resource answers at this URL",
    "Check the URL to the letter; say --as issuer or --as resource to see what is missing.",
    "",
)
CONFIG: Final = (CONFIG_GOOD, CONFIG_INVALID, CONFIG_WARNING, NOT_DEPLOYED, DIFFERS, NOT_RECOGNISED)
