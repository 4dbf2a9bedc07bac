"""Check an authorization server's metadata for MCP clients: PKCE, registration, resource indicators, endpoints.

Pure: a document in, findings out (RFC 8414, RFC 9207, RFC 8707, MCP authorization).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from asgi_mcp_auth._oauth.server_metadata import insecure_url, validate_server_config
from asgi_mcp_auth._policy.problems import as_strings
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig
from asgi_mcp_auth.doctor import _issuer_codes as codes
from asgi_mcp_auth.doctor._findings import Code, Finding, Severity, cut, found
from asgi_mcp_auth.errors import InvalidServerMetadata, printable
from asgi_mcp_auth.providers import Provider, ResourceSupport, recognise

__all__ = (
    "check_certificate_support",
    "check_dpop_support",
    "check_issuer_member",
    "check_provider",
    "check_server",
    "read_metadata",
)

ENDPOINTS = ("authorization_endpoint", "token_endpoint", "registration_endpoint", "jwks_uri")
NOTHING: Final[Mapping[str, Collection[str]]] = MappingProxyType({})

VALIDATED: Final[Mapping[str, Code]] = {
    code.name: code for code in (codes.NO_PKCE, codes.NO_S256, codes.NO_CODE, codes.NO_CODE_GRANT)
}
SUPPORT: Final[Mapping[ResourceSupport, Code]] = {
    "yes": codes.RESOURCE_SUPPORTED,
    "setting": codes.RESOURCE_SETTING,
    "no": codes.RESOURCE_NOT_SUPPORTED,
}


def check_issuer_member(document: Mapping[str, Any], issuer: str, subject: str) -> Iterator[Finding]:
    """Check that the document names exactly `issuer` (RFC 8414 section 3.3)."""
    named = document.get("issuer")
    if named == issuer:
        return
    evidence = f"the document says {cut(named)}, expected {cut(issuer)}"
    if isinstance(named, str) and named.removesuffix("/") == issuer.removesuffix("/"):
        setting = f'Set authorization_servers=["{printable(named, 200)}"], exactly as the metadata names the issuer.'
        yield found(codes.TRAILING_SLASH, subject, evidence, setting=setting)
    else:
        yield found(codes.ISSUER_MISMATCH, subject, evidence)


def read_metadata(
    document: Mapping[str, Any], subject: str
) -> tuple[AuthorizationServerMetadata | None, tuple[Finding, ...]]:
    """Return the metadata without members of the wrong type, and a finding for the removed members.

    The metadata is None if `issuer` is missing or if a member that verification needs has the wrong type.
    """
    try:
        metadata = AuthorizationServerMetadata.from_dict(document)
    except InvalidServerMetadata as error:
        fix = None if "issuer" in document else "Publish issuer."
        return None, (found(codes.METADATA_INVALID, subject, error.message, fix=fix),)
    if not metadata.ignored_members:
        return metadata, ()
    evidence = f"wrong JSON type: {', '.join(metadata.ignored_members)}"
    return metadata, (found(codes.METADATA_INVALID, subject, evidence, severity=Severity.WARNING),)


def check_server(
    metadata: AuthorizationServerMetadata, subject: str, advertised: Mapping[str, Collection[str]] = NOTHING
) -> Iterator[Finding]:
    """Check how MCP clients will use the metadata.

    Args:
        metadata: The metadata.
        subject: Its URL.
        advertised: The protected resources that trust the server, each with the scopes that it advertises.
    """
    for name in ENDPOINTS:
        url = getattr(metadata, name)
        if url is not None and (why := insecure_url(url, allow_http=False)) is not None:
            yield found(codes.NOT_HTTPS, subject, f"{name} {cut(url)} {why}")
    if metadata.authorization_endpoint is None:
        yield found(codes.MACHINES_ONLY, subject)
    else:
        yield from _sign_in(metadata, subject)
    if metadata.token_endpoint is None:
        yield found(codes.NO_TOKEN_ENDPOINT, subject)
    listed = metadata.protected_resources
    for resource, scopes in advertised.items():
        if listed is not None and resource not in listed:
            yield found(codes.NOT_LISTED, subject, resource)
        yield from _scopes(metadata.scopes_supported, scopes, resource, subject)


def check_dpop_support(
    metadata: AuthorizationServerMetadata, subject: str, accepted: Mapping[str, Collection[str]]
) -> Iterator[Finding]:
    """Check that the server binds tokens with DPoP, for resources that accept proofs with these algorithms."""
    listed = as_strings(metadata.to_dict().get("dpop_signing_alg_values_supported")) or []
    for resource, algorithms in accepted.items():
        if set(algorithms).isdisjoint(listed):
            evidence = f"{cut(resource)} accepts {cut(' '.join(algorithms))}; the metadata lists {cut(listed)}"
            yield found(codes.NO_DPOP, subject, evidence)


def check_certificate_support(
    metadata: AuthorizationServerMetadata, subject: str, certified: Iterable[str]
) -> Iterator[Finding]:
    """Check that the server binds tokens to client certificates, for resources that accept them."""
    announced = metadata.to_dict().get("tls_client_certificate_bound_access_tokens")
    for resource in certified if announced is not True else ():
        yield found(codes.NO_CERTIFICATES, subject, cut(resource))


def _scopes(
    supported: Collection[str] | None, advertised: Collection[str], resource: str, subject: str
) -> Iterator[Finding]:
    """Check that the server lists the advertised scopes; `scopes_supported` is optional (RFC 8414 section 2)."""
    known = {*(supported or advertised), "offline_access"}  # offline_access has a finding of its own
    missing = [scope for scope in dict.fromkeys(advertised) if scope not in known]
    if missing:
        evidence = f"{cut(resource)} advertises {cut(' '.join(missing))}; scopes_supported: {cut(supported)}"
        yield found(codes.SCOPES_NOT_LISTED, subject, evidence)


def _sign_in(metadata: AuthorizationServerMetadata, subject: str) -> Iterator[Finding]:
    """Check the members that clients need to sign users in."""
    errors = {error.code.value for error in validate_server_config(AuthServerConfig(metadata=metadata)).errors}
    if not errors & {codes.NO_PKCE.name, codes.NO_S256.name}:
        yield found(codes.PKCE, subject, metadata.code_challenge_methods_supported)
    for code in VALIDATED.values():
        if code.name in errors:
            yield found(code, subject, _evidence(code, metadata))
    yield from _registration(metadata, subject)
    if metadata.to_dict().get("authorization_response_iss_parameter_supported") is not True:
        yield found(codes.NO_ISS, subject)


def _evidence(code: Code, metadata: AuthorizationServerMetadata) -> str:
    member = {
        codes.NO_CODE.name: "response_types_supported",
        codes.NO_CODE_GRANT.name: "grant_types_supported",
    }.get(code.name, "code_challenge_methods_supported")
    return f"{member}: {json.dumps(getattr(metadata, member))}"


def _registration(metadata: AuthorizationServerMetadata, subject: str) -> Iterator[Finding]:
    registers = metadata.registration_endpoint is not None
    documents = metadata.client_id_metadata_document_supported is True
    if not registers and not documents:
        yield found(codes.NO_REGISTRATION, subject)
        return
    ways = (("dynamic registration", registers), ("client id metadata documents", documents))
    yield found(codes.REGISTRATION, subject, " and ".join(name for name, supported in ways if supported))
    if not documents:
        yield found(codes.NO_CIMD, subject)
    elif not registers:
        yield found(codes.NO_DCR, subject)
    methods = metadata.token_endpoint_auth_methods_supported
    if documents and "none" not in (methods or ()):
        yield found(codes.CIMD_WITHOUT_NONE, subject, f"token_endpoint_auth_methods_supported: {json.dumps(methods)}")


def check_provider(issuer: str) -> Iterator[Finding]:
    """Yield the advice for the issuer's provider; for an unknown provider, that support of `resource` is unknown."""
    rows = recognise(issuer)
    for row in rows:
        code = codes.PROVIDER if row.usable else codes.UNUSABLE_PROVIDER
        yield found(code, issuer, _settings(row), fix=row.advice)
        if row.usable:
            yield found(SUPPORT[row.resource], issuer, f"{row.name}: aud is {row.audience}")
    if not rows:
        yield found(codes.RESOURCE_UNKNOWN, issuer)


def _settings(row: Provider) -> str:
    settings = {**row.config, **{f"policy.{name}": value for name, value in row.policy.items()}}
    shown = ", ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    return f"{row.name}: {shown or 'no settings needed in addition to the issuer'}"
