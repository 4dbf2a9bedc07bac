"""Judging an authorization server's metadata for MCP clients: PKCE, registration, resource indicators, endpoints.

Pure: a document in, findings out (RFC 8414, RFC 9207, RFC 8707, MCP authorization).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from asgi_mcp_auth._oauth.server_metadata import insecure_url, validate_server_config
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig
from asgi_mcp_auth.doctor import issuer_codes as codes
from asgi_mcp_auth.doctor.findings import Code, Finding, cut, found
from asgi_mcp_auth.errors import InvalidServerMetadata
from asgi_mcp_auth.providers import Provider, ResourceSupport, recognise

__all__ = ("check_provider", "check_server", "read_metadata", "same_issuer")

ENDPOINTS = ("authorization_endpoint", "token_endpoint", "registration_endpoint", "jwks_uri")

VALIDATED: Final[Mapping[str, Code]] = {
    code.name: code for code in (codes.NO_PKCE, codes.NO_S256, codes.NO_CODE, codes.NO_CODE_GRANT)
}
SUPPORT: Final[Mapping[ResourceSupport, Code]] = {
    "yes": codes.RESOURCE_SUPPORTED,
    "setting": codes.RESOURCE_SETTING,
    "no": codes.RESOURCE_NOT_SUPPORTED,
}


def same_issuer(document: Mapping[str, Any], issuer: str, subject: str) -> Iterator[Finding]:
    """Whether the document is of `issuer`, to the letter (RFC 8414 section 3.3)."""
    named = document.get("issuer")
    if named == issuer:
        return
    slash = isinstance(named, str) and named.removesuffix("/") == issuer.removesuffix("/")
    told = f"the document says {cut(named)}, expected {cut(issuer)}"
    yield found(codes.TRAILING_SLASH if slash else codes.ISSUER_MISMATCH, subject, told)


def read_metadata(document: Mapping[str, Any], subject: str) -> AuthorizationServerMetadata | Finding:
    """The metadata, or why it cannot be used."""
    try:
        return AuthorizationServerMetadata.from_dict(document)
    except InvalidServerMetadata as error:
        return found(codes.METADATA_INVALID, subject, error.message)


def check_server(
    metadata: AuthorizationServerMetadata, subject: str, resources: Iterable[str] = ()
) -> Iterator[Finding]:
    """What the metadata will make clients do.

    Args:
        metadata: The document.
        subject: Where it is.
        resources: The protected resources that trust it.
    """
    for name in ENDPOINTS:
        url = getattr(metadata, name)
        if url is not None and (why := insecure_url(url, allow_http=False)) is not None:
            yield found(codes.NOT_HTTPS, subject, f"{name} {cut(url)} {why}")
    if metadata.authorization_endpoint is None:
        yield found(codes.MACHINES_ONLY, subject)
    else:
        yield from _for_people(metadata, subject)
    if metadata.token_endpoint is None:
        yield found(codes.NO_TOKEN_ENDPOINT, subject)
    listed = metadata.protected_resources
    for resource in resources:
        if listed is not None and resource not in listed:
            yield found(codes.NOT_LISTED, subject, resource)


def _for_people(metadata: AuthorizationServerMetadata, subject: str) -> Iterator[Finding]:
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
    ways = [name for name, there in (("registration", registers), ("client id metadata documents", documents)) if there]
    yield found(codes.REGISTRATION, subject, " and ".join(ways))
    if not documents:
        yield found(codes.NO_CIMD, subject)
    elif not registers:
        yield found(codes.NO_DCR, subject)
    methods = metadata.token_endpoint_auth_methods_supported
    if documents and "none" not in (methods or ()):
        yield found(codes.CIMD_WITHOUT_NONE, subject, f"token_endpoint_auth_methods_supported: {json.dumps(methods)}")


def check_provider(issuer: str) -> Iterator[Finding]:
    """What is known of the issuer's provider; that some support of `resource` cannot be told, of all others."""
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
    told = ", ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    return f"{row.name}: {told or 'nothing to set beside the issuer'}"
