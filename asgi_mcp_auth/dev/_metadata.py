"""The metadata documents (RFC 8414, OpenID Connect Discovery), their paths, and the faults in them."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any, Final

from asgi_mcp_auth.config import ServerMetadataPaths
from asgi_mcp_auth.dev._clients import AUTH_METHODS, GRANT_TYPES
from asgi_mcp_auth.dev._options import Options
from asgi_mcp_auth.dev._policy import OFFLINE, OPENID
from asgi_mcp_auth.dev._switches import Switch

PROOF_ALGORITHMS: Final = ("ES256", "ES384", "EdDSA", "Ed25519", "RS256", "PS256")

__all__ = ("PROOF_ALGORITHMS", "metadata_paths", "oauth_metadata", "oidc_metadata", "with_faults")

ENDPOINTS: Final = {
    "authorization_endpoint": "/authorize",
    "token_endpoint": "/token",
    "registration_endpoint": "/register",
    "jwks_uri": "/jwks",
    "revocation_endpoint": "/revoke",
    "introspection_endpoint": "/introspect",
}


def oauth_metadata(issuer: str, options: Options) -> dict[str, Any]:
    """Return the metadata document of RFC 8414 section 2."""
    base = issuer.rstrip("/")
    endpoints = {name: base + path for name, path in ENDPOINTS.items()}
    if not options.registration:
        del endpoints["registration_endpoint"]
    scopes = tuple(dict.fromkeys((*options.policy.scopes, OFFLINE)))
    return {
        "issuer": issuer,
        **endpoints,
        **({"scopes_supported": list(scopes)} if options.policy.scopes else {}),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "code_challenge_methods_supported": ["S256"],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "tls_client_certificate_bound_access_tokens": True,
        **({"client_id_metadata_document_supported": True} if options.documents else {}),
        "authorization_response_iss_parameter_supported": True,
    }


def oidc_metadata(metadata: dict[str, Any], algorithms: tuple[str, ...]) -> dict[str, Any]:
    """Return the metadata as an OpenID Connect Discovery document (section 3)."""
    scopes = tuple(dict.fromkeys((OPENID, *metadata.get("scopes_supported", (OFFLINE,)))))
    return metadata | {
        "scopes_supported": list(scopes),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(algorithms),
    }


def with_faults(metadata: dict[str, Any], switches: AbstractSet[Switch]) -> dict[str, Any]:
    """Return the metadata with the active faults."""
    faulty = dict(metadata)
    if Switch.TRAILING_SLASH in switches:
        faulty["issuer"] = f"{str(faulty['issuer']).rstrip('/')}/"
    if Switch.ISSUER_MISMATCH in switches:
        faulty["issuer"] = "https://not-this-issuer.example"
    if Switch.NO_PKCE in switches:
        faulty.pop("code_challenge_methods_supported", None)
    return faulty


def metadata_paths(path: str, *, oidc: bool, switches: AbstractSet[Switch]) -> dict[str, bool]:
    """Return the paths of the metadata documents, each with whether the document is OpenID Connect's.

    Args:
        path: The path of the issuer, without a slash at the end.
        oidc: Whether OpenID Connect documents are served.
        switches: The active faults. A fault that leaves one path overrules `oidc`.
    """
    inserted, appended = ServerMetadataPaths.OIDC + path, path + ServerMetadataPaths.OIDC
    only = {
        Switch.ONLY_OAUTH: {ServerMetadataPaths.OAUTH + path: False},
        Switch.ONLY_OIDC_INSERTED: {inserted: True},
        Switch.ONLY_OIDC_APPENDED: {appended: True},
    }
    for switch, paths in only.items():
        if switch in switches:
            return paths
    oauth = {ServerMetadataPaths.OAUTH + path: False}
    return oauth | ({inserted: True, appended: True} if oidc else {})
