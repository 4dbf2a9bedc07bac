"""The codes of findings in the challenges of a 401."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor._findings import Code, Severity

__all__ = ("CHALLENGE",)

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
MCP = "MCP authorization"
CLIENTS = "behavior of official clients"

NO_CHALLENGE: Final = Code(
    "no_challenge", ERROR, "401 without WWW-Authenticate", "Send a Bearer challenge.", "RFC 9110 15.5.2"
)
BARE_CHALLENGE: Final = Code(
    "bare_challenge", ERROR, "a challenge without parameters", "Send resource_metadata and scope.", "OAuth 2.1 5.3.1"
)
UNREADABLE: Final = Code(
    "challenge_unreadable", ERROR, "a challenge that cannot be parsed", "Quote every value.", "RFC 9110 11.6.1"
)
NO_BEARER: Final = Code("no_bearer_challenge", ERROR, "no Bearer challenge", "Send a Bearer challenge.", "RFC 6750 3")
DPOP_ONLY: Final = Code(
    "dpop_only",
    INFO,
    "only a DPoP challenge: clients without DPoP cannot connect",
    "Accept Bearer too.",
    "RFC 9449 7.2",
)
DPOP_INCONSISTENT: Final = Code(
    "dpop_inconsistent",
    WARNING,
    "challenges and metadata say different things about DPoP",
    "Send a DPoP challenge with algs exactly if the metadata has dpop_signing_alg_values_supported, and no Bearer "
    "challenge if it has dpop_bound_access_tokens_required.",
    "RFC 9728 2, RFC 9449 7.1",
)
BEARER_LATE: Final = Code(
    "bearer_not_first", WARNING, "Bearer is not the first challenge", "Send the Bearer challenge first.", CLIENTS
)
NO_METADATA_PARAMETER: Final = Code(
    "no_resource_metadata",
    WARNING,
    "no resource_metadata in the challenge; MCP requires the parameter or metadata at a well-known URL",
    "Send resource_metadata with the URL of the metadata.",
    MCP,
)
METADATA_PARAMETER: Final = Code(
    "resource_metadata_elsewhere",
    WARNING,
    "resource_metadata is not the well-known URL of this resource",
    "Send the well-known URL with the path of the resource after /.well-known/oauth-protected-resource.",
    "RFC 9728 3.1",
)
ERROR_WITHOUT_TOKEN: Final = Code(
    "error_without_token",
    WARNING,
    "an error in the challenge, though the request had no token",
    "Send no error if the request has no token.",
    "RFC 6750 3.1",
)
NO_SCOPE: Final = Code(
    "no_scope",
    INFO,
    "no scope in the challenge: clients do not know which scopes to request",
    "Send scope with the scopes that every request needs, if any.",
    MCP,
    "Set required_scopes= to the scopes that every request needs, if any.",
)
EMPTY_SCOPE: Final = Code(
    "empty_scope", ERROR, 'scope="": clients request a scope of two quotes', "Send no scope parameter.", CLIENTS
)
OFFLINE_ACCESS: Final = Code(
    "offline_access_asked",
    WARNING,
    "offline_access is a scope for clients to choose, not for the resource to require",
    "Remove offline_access from the scopes of challenges and from scopes_supported.",
    MCP,
    "Remove offline_access from required_scopes= and from scopes_supported=.",
)
UNQUOTED: Final = Code("unquoted_parameter", WARNING, "a value without quotes", "Quote every value.", "RFC 6750 3")
REPEATED: Final = Code(
    "repeated_parameter", ERROR, "a parameter twice in a challenge", "Send each parameter once.", "RFC 6750 3"
)
CHARACTERS: Final = Code(
    "forbidden_characters",
    WARNING,
    "characters that scope, error or error_description must not have",
    "Send printable ASCII without quotes and backslashes.",
    "RFC 6750 3",
)
MISREAD: Final = Code(
    "challenge_misread",
    ERROR,
    "clients that search for name= read another value",
    "Put scope and resource_metadata before error_description, and write error_description without =.",
    CLIENTS,
)
EQUALS: Final = Code(
    "equals_in_description",
    WARNING,
    "an = in error_description, which clients may read as a parameter",
    "Write error_description without =.",
    CLIENTS,
)
STORED: Final = Code(
    "refusal_may_be_stored", INFO, "caches may store the 401", "Send Cache-Control: no-store.", "RFC 9111 3"
)
CHALLENGE: Final = (
    *(NO_CHALLENGE, BARE_CHALLENGE, UNREADABLE, NO_BEARER, DPOP_ONLY, DPOP_INCONSISTENT),
    *(BEARER_LATE, NO_METADATA_PARAMETER, METADATA_PARAMETER),
    *(ERROR_WITHOUT_TOKEN, NO_SCOPE, EMPTY_SCOPE, OFFLINE_ACCESS, UNQUOTED, REPEATED, CHARACTERS, MISREAD, EQUALS),
    STORED,
)
