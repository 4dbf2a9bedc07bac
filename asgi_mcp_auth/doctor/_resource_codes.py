"""The codes of findings at a live protected resource, in its metadata, and in a configuration file."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor._findings import Code, Severity

__all__ = ("CONFIG", "METADATA", "RESOURCE")

ERROR, WARNING, INFO, OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK
MCP = "MCP authorization"
SECURITY = "MCP transports, security"

PROTECTED: Final = Code("protected", OK, "a request without a token gets 401 and a challenge", "", MCP)
NOT_PROTECTED: Final = Code(
    "not_protected",
    ERROR,
    "a request without a token is served",
    "Wrap the whole app in the middleware, and check public_paths.",
    MCP,
)
LOGIN_REDIRECT: Final = Code(
    "login_redirect",
    ERROR,
    "a redirect instead of 401: clients follow challenges, not login pages",
    "Answer 401 with WWW-Authenticate, and check the URL for a missing or an extra slash.",
    MCP,
)
WRONG_STATUS: Final = Code(
    "wrong_status",
    ERROR,
    "a status other than 401 for a request without a token",
    "Answer 401 with WWW-Authenticate before any other check.",
    "RFC 6750 3",
)
METHOD_OPEN: Final = Code(
    "method_not_protected",
    ERROR,
    "GET or DELETE is served without a token",
    "Require a token for every method.",
    MCP,
    "Wrap the whole app in the middleware, and check public_paths.",
)
BAD_TOKEN_ACCEPTED: Final = Code(
    "bad_token_accepted",
    ERROR,
    "an invalid token is accepted",
    "Verify signature, issuer, audience and expiry of every token.",
    MCP,
)
BAD_TOKEN_STATUS: Final = Code(
    "bad_token_wrong_status",
    ERROR,
    "a status other than 401 for an invalid token: clients do not get a new token",
    'Answer 401 with error="invalid_token"; answer 503 only while keys are unavailable.',
    "RFC 6750 3.1",
)
BAD_TOKEN_ERROR: Final = Code(
    "bad_token_without_error",
    WARNING,
    "the challenge for an invalid token has no error invalid_token",
    'Send error="invalid_token".',
    "RFC 6750 3.1",
)
BAD_TOKEN_REFUSED: Final = Code("bad_token_refused", OK, "an invalid token gets 401 invalid_token", "", "RFC 6750 3.1")
HOST_OPEN: Final = Code(
    "host_not_checked",
    WARNING,
    "a loopback server accepts any Host: web pages can reach the server by DNS rebinding",
    "Answer other hosts with 421.",
    SECURITY,
    "Set allowed_hosts= to the hosts that clients use.",
)
ORIGIN_OPEN: Final = Code(
    "any_origin_with_credentials",
    ERROR,
    "an unknown origin is allowed, with credentials",
    "Allow only a list of origins; never echo the request's origin.",
    SECURITY,
    "Set allowed_origins= to a list, and remove other CORS middleware in front.",
)
ORIGIN_LATE: Final = Code(
    "origin_not_refused",
    INFO,
    "an unknown origin gets 401, as every client: unclear whether the origin is rejected with a valid token",
    "Answer origins that are not allowed with 403.",
    SECURITY,
)
PREFLIGHT: Final = Code(
    "preflight_refused",
    WARNING,
    "the preflight of the resource's own origin is rejected: clients in a browser cannot call",
    "Answer preflights before requiring a token: preflights carry none.",
    "Fetch standard",
)
NOT_EXPOSED: Final = Code(
    "challenge_not_exposed",
    WARNING,
    "clients in a browser cannot read the challenge",
    "Send Access-Control-Expose-Headers: WWW-Authenticate with the 401.",
    "Fetch standard",
)
APP_REACHED: Final = Code("app_reached", OK, "the app answers the resource's URL with a valid token", "", MCP)
APP_REDIRECTS: Final = Code(
    "app_redirects_slash",
    ERROR,
    "the app redirects the resource's URL to the same URL with or without a trailing slash",
    "Mount the app at the exact path of the resource, or use the path that the app serves as the resource.",
    MCP,
)
APP_NOT_FOUND: Final = Code(
    "app_not_found",
    ERROR,
    "the app answers 404 at the resource's URL, with a valid token",
    "Mount the app at the path of the resource; check the path of the MCP endpoint and trailing slashes.",
    MCP,
    "Set resource= to the URL at which the app serves MCP, or mount the app at the path of the resource.",
)
APP_WRONG_STATUS: Final = Code(
    "app_wrong_status",
    WARNING,
    "the app answers a valid token with a status that MCP clients do not expect",
    "See the log of the app.",
    MCP,
)
TOKEN_REJECTED: Final = Code(
    "token_rejected",
    WARNING,
    "the token was rejected, so the app was not reached",
    "Pipe the token into: asgi-mcp-auth explain",
    MCP,
)
RESOURCE: Final = (
    *(PROTECTED, NOT_PROTECTED, LOGIN_REDIRECT, WRONG_STATUS, METHOD_OPEN),
    *(BAD_TOKEN_ACCEPTED, BAD_TOKEN_STATUS, BAD_TOKEN_ERROR, BAD_TOKEN_REFUSED),
    *(HOST_OPEN, ORIGIN_OPEN, ORIGIN_LATE, PREFLIGHT, NOT_EXPOSED),
    *(APP_REACHED, APP_REDIRECTS, APP_NOT_FOUND, APP_WRONG_STATUS, TOKEN_REJECTED),
)

METADATA_FOUND: Final = Code(
    "resource_metadata_found", OK, "the metadata is at a URL where clients look", "", "RFC 9728 3.1"
)
METADATA_NOT_FOUND: Final = Code(
    "resource_metadata_not_found",
    ERROR,
    "no well-known URL has the resource's metadata",
    "Serve the metadata below /.well-known/oauth-protected-resource.",
    "RFC 9728 3.1",
    "Route /.well-known/oauth-protected-resource/* to the middleware, or mount metadata_app() at the root of the host.",
)
PATH_MISSING: Final = Code(
    "resource_metadata_path_missing",
    WARNING,
    "no metadata at the well-known URL with the resource's path, the first or only URL that some clients try",
    "Serve the metadata at the URL with the path of the resource.",
    "RFC 9728 3.1",
)
MISMATCH: Final = Code(
    "resource_mismatch",
    ERROR,
    "the metadata names another resource than the URL that clients use: clients must not use the metadata",
    "Set the resource exactly to the URL that clients use: scheme, host, path and trailing slash.",
    "RFC 9728 3.3",
)
NO_SERVERS: Final = Code(
    "no_authorization_servers", ERROR, "no authorization server is named", "Name at least one issuer.", MCP
)
SERVER_INVALID: Final = Code(
    "authorization_server_invalid", ERROR, "not an issuer", "Use issuers: https URLs, as tokens carry them.", MCP
)
BEARER_METHOD: Final = Code(
    "header_not_supported",
    ERROR,
    'bearer_methods_supported does not list "header", the only method of MCP',
    'Publish ["header"], or remove the member.',
    "RFC 9728 2",
)
EMPTY_MEMBER: Final = Code(
    "empty_member", WARNING, "a member that is null or an empty list", "Remove the member.", "RFC 9728 3.2"
)
METADATA: Final = (
    *(METADATA_FOUND, METADATA_NOT_FOUND, PATH_MISSING, MISMATCH, NO_SERVERS, SERVER_INVALID, BEARER_METHOD),
    EMPTY_MEMBER,
)

CONFIG_GOOD: Final = Code(
    "config_good", OK, "the configuration is accepted", "", "asgi_mcp_auth/README.md, Configuration"
)
CONFIG_INVALID: Final = Code(
    "config_invalid",
    ERROR,
    "the configuration is rejected",
    "See the evidence.",
    "asgi_mcp_auth/README.md, Configuration",
)
CONFIG_WARNING: Final = Code(
    "config_warning",
    WARNING,
    "the configuration is accepted with a warning",
    "See the evidence.",
    "asgi_mcp_auth/README.md, Configuration",
)
NOT_DEPLOYED: Final = Code(
    "resource_not_reachable",
    INFO,
    "the configured resource does not answer from here: only the file and its issuers were checked",
    "Start the server, and run the doctor again.",
    "",
)
DIFFERS: Final = Code(
    "deployed_differs",
    WARNING,
    "the metadata that the resource serves differs from the file",
    "Deploy the file, or check the file that is deployed.",
    "asgi_mcp_auth/README.md, Configuration",
)
NOT_RECOGNISED: Final = Code(
    "not_recognised",
    ERROR,
    "neither an issuer nor a protected resource at this URL",
    "Check that the URL is exact. --as issuer or --as resource shows what is missing.",
    "",
)
STORE_GOOD: Final = Code(
    "store_good", OK, "the shared store answers from here", "", "asgi_mcp_auth/README.md, More than one process"
)
STORE_FAILS: Final = Code(
    "store_fails",
    ERROR,
    "the shared store does not answer from here",
    "Start the database, or fix the URL, the password or the network.",
    "asgi_mcp_auth/README.md, More than one process",
)
STORE_EVICTS: Final = Code(
    "store_evicts",
    WARNING,
    "the shared store may drop entries before their time",
    "Set maxmemory-policy noeviction in the database.",
    "asgi_mcp_auth/README.md, More than one process",
)
INTROSPECTION_GOOD: Final = Code(
    "introspection_good", OK, "the introspection endpoint calls an unknown token inactive", "", "RFC 7662 2.2"
)
INTROSPECTION_FAILS: Final = Code(
    "introspection_fails",
    ERROR,
    "the introspection endpoint gives no answer that can be used",
    "Fix client_id and the secret of Introspection(...), or the endpoint.",
    "RFC 7662 2.1",
)
INTROSPECTION_ACCEPTS: Final = Code(
    "introspection_accepts_unknown_token",
    ERROR,
    "the introspection endpoint calls a token active that was never issued",
    "Do not use this endpoint. Set endpoint= to the introspection endpoint of the issuer.",
    "RFC 7662 2.2",
)
CONFIG: Final = (
    *(CONFIG_GOOD, CONFIG_INVALID, CONFIG_WARNING, NOT_DEPLOYED, DIFFERS, NOT_RECOGNISED),
    *(STORE_GOOD, STORE_FAILS, STORE_EVICTS),
    *(INTROSPECTION_GOOD, INTROSPECTION_FAILS, INTROSPECTION_ACCEPTS),
)
