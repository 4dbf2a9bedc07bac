"""Compiling one protected resource: from what the user wrote to what a request looks up.

Pure: every problem goes into `Problems`; the result is complete only when there are none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from asgi_mcp_auth._protocol.challenge import BEARER
from asgi_mcp_auth._protocol.cross_origin import OriginCheck
from asgi_mcp_auth._protocol.metadata import (
    LANGUAGE_MEMBERS,
    Document,
    build_members,
    check_signed_metadata,
    compile_document,
    is_language_tag,
)
from asgi_mcp_auth._protocol.path_forms import canonical_path, is_canonical
from asgi_mcp_auth._protocol.policy import CompiledPolicy, compile_policy, compile_scopes
from asgi_mcp_auth._protocol.problems import Problems, as_mapping, as_strings, show
from asgi_mcp_auth._protocol.responses import ChallengeSource, Response, refusal_response
from asgi_mcp_auth._protocol.scopes import Requirement
from asgi_mcp_auth._protocol.trust import MAX_PUBLISHED, Trust, compile_trust
from asgi_mcp_auth._protocol.urls import PROTECTED_RESOURCE, Url, insert_well_known, is_loopback, parse_url
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.errors import BadRequest, NoCredential, Reason

UNENFORCED = (
    "tls_client_certificate_bound_access_tokens",
    "dpop_bound_access_tokens_required",
    "dpop_signing_alg_values_supported",
)
STRING_LISTS = (
    "bearer_methods_supported",
    "resource_signing_alg_values_supported",
    "authorization_details_types_supported",
    "dpop_signing_alg_values_supported",
)

__all__ = ("CompiledResource", "MetadataSigner", "Surroundings", "compile_resource", "resource_url")

MetadataSigner = Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledResource:
    """One protected resource, ready for requests."""

    identifier: str
    url: Url
    owned_prefix: str
    metadata_url: str
    document: Document
    origins: OriginCheck
    schemes: frozenset[bytes]
    challenge: ChallengeSource
    no_credential: Response
    trust: Trust
    policy: CompiledPolicy

    def requirement(self, rule: int | None) -> Requirement:
        """What a request needs: the baseline, and what the path rule adds."""
        return self.policy.baseline if rule is None else self.policy.requirements[rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a resource takes from the whole configuration."""

    allowed_origins: Sequence[str]
    metadata_signer: MetadataSigner | None
    allow_http: bool
    alone_on_origin: bool
    new_issuers_per_minute: int


def resource_url(text: object, where: str, problems: Problems, *, allow_http: bool) -> Url | None:
    """Check a resource identifier (RFC 8707 section 2, RFC 9728 section 1.2): https, or http on loopback."""
    url = parse_url(text) if isinstance(text, str) else None
    if url is None:
        fix = "Write it as clients use it, for example 'https://mcp.example.com/mcp'."
        what = f"{show(text)} is not an absolute URL without user information." if text else "It is missing."
        problems.add(where, what, fix)
        return None
    if url.scheme != "https" and not (url.scheme == "http" and (allow_http or is_loopback(url.host))):
        problems.add(where, f"{show(text)} is not https.", "Only a loopback resource may use http.")
        return None
    if url.query is not None or url.fragment is not None:
        fix = "Drop it: a fragment is not allowed (RFC 8707 section 2), and official clients disagree about a query."
        problems.add(where, f"{show(text)} has a query or a fragment.", fix)
        return None
    try:
        owned = canonical_path(url.path or "/")
    except BadRequest:
        owned = ""
    if (not is_canonical(url.path.removesuffix("/") or "/") and "%" not in url.path) or not owned:
        fix = "Write the path without dot segments, doubled slashes or repeated percent-encoding."
        problems.add(where, f"The path of {show(text)} is not in canonical form.", fix)
        return None
    if str(url) != text:
        problems.warn(where, f"{show(text)} is published as {show(str(url))}.", "Write it so, to see what clients see.")
    if url.path != "/" and url.path.endswith("/"):
        fix = "Prefer the identifier without it: some clients drop the slash."
        problems.warn(where, f"{show(text)} ends with a slash.", fix)
    return url


def _check_members(metadata: ResourceServerMetadata, where: str, problems: Problems) -> None:
    """Every member has its type, and none promises what is not enforced."""
    for name in STRING_LISTS:
        value = getattr(metadata, name)
        if value is not None and as_strings(value) is None:
            problems.add(f"{where}.{name}", f"{show(value)} is not a list of strings.", "Write a list.")
    methods = metadata.bearer_methods_supported
    if methods is not None and as_strings(methods) not in (None, ["header"]):
        fix = "Leave it out, or write ['header']: a token in a body or a URI is never read."
        problems.add(f"{where}.bearer_methods_supported", f"{show(methods)} is not enforced.", fix)
    for name in UNENFORCED:
        if getattr(metadata, name):
            problems.add(f"{where}.{name}", "The mechanism is not part of this configuration.", "Leave it out.")
    if "none" in (as_strings(metadata.resource_signing_alg_values_supported) or ()):
        fix = "Name the algorithms you sign with (RFC 9728 section 2)."
        problems.add(f"{where}.resource_signing_alg_values_supported", "'none' is not a signature.", fix)
    if metadata.jwks_uri is not None and not str(metadata.jwks_uri).startswith("https://"):
        problems.add(f"{where}.jwks_uri", f"{show(metadata.jwks_uri)} is not https.", "Serve it over https.")
    for name in LANGUAGE_MEMBERS:
        _check_text(getattr(metadata, name), f"{where}.{name}", problems)
    _check_extra(metadata, f"{where}.extra", problems)


def _check_text(value: object, where: str, problems: Problems) -> None:
    """One text, or texts by language tag with a default (RFC 9728 section 2.1)."""
    texts = as_mapping({"": value} if value is None or isinstance(value, str) else value)
    tags = [tag for tag in texts or () if tag]
    typed = texts is not None and all(text is None or isinstance(text, str) for text in texts.values())
    if texts is None or not typed or texts.get("") == "" or "" not in texts or not all(map(is_language_tag, tags)):
        fix = "Give a text, or the default under '' and each variant under its BCP 47 tag."
        problems.add(where, f"{show(value)} is not a text by language.", fix)


def _check_extra(metadata: ResourceServerMetadata, where: str, problems: Problems) -> None:
    extra = problems.mapping(metadata.extra, where)
    if known := sorted(name for name in extra if name.partition("#")[0] in metadata.__slots__):
        problems.add(where, f"{', '.join(map(show, known))} has a field of its own.", "Use the field.")
    for name, value in extra.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            problems.add(where, f"The value of {show(name)} is not JSON.", "Write what JSON can say.")


def _sign(
    members: dict[str, Any],
    metadata: ResourceServerMetadata,
    signer: MetadataSigner | None,
    where: str,
    problems: Problems,
) -> dict[str, Any]:
    """Add `signed_metadata` (RFC 9728 section 2.2), made by the signer or given as it is."""
    signed: object = metadata.signed_metadata
    if callable(signer) and signed is None:
        try:
            signed = signer({"iss": members["resource"], **members})
        except Exception as error:  # noqa: BLE001 - the user's code, reported like any other problem
            fix = "Give a callable from the claims to a compact JWS."
            problems.add("metadata_signer", f"It failed with {type(error).__name__}: {show(str(error))}.", fix)
    if signed is None:
        return members
    if metadata.jwks_uri is None:
        fix = "Publish the signing key and set jwks_uri, or nobody can check the signature."
        problems.add(f"{where}.jwks_uri", "signed_metadata is published without it.", fix)
    if (why := check_signed_metadata(signed, members)) is not None:
        fix = "Sign exactly the published members, and iss (RFC 9728 section 2.2)."
        problems.add(f"{where}.signed_metadata", f"The JWT {why}.", fix)
    return members | {"signed_metadata": signed}


def compile_resource(
    config: ResourceServerConfig, url: Url, where: str, problems: Problems, around: Surroundings
) -> CompiledResource | None:
    """Compile one resource whose identifier has been checked; None when problems were found."""
    before = len(problems.found)
    metadata = config.metadata
    _check_members(metadata, f"{where}.metadata", problems)
    policy = compile_policy(config.policy, f"{where}.policy", problems)
    listed = policy.baseline.needed
    if metadata.scopes_supported is not None:
        place = f"{where}.metadata.scopes_supported"
        listed = compile_scopes(metadata.scopes_supported, place, problems, published=True)
    place = f"{where}.metadata.authorization_servers"
    trust = compile_trust(
        metadata.authorization_servers,
        url,
        place,
        problems,
        allow_http=around.allow_http,
        prefixes=[str(url).removesuffix("/") + "/", *([url.origin + "/"] if around.alone_on_origin else [])],
        required=policy.baseline.needed,
        new_per_minute=around.new_issuers_per_minute,
    )
    if len(problems.found) > before:
        return None
    identifier = str(url)
    members = build_members(
        metadata,
        resource=identifier,
        issuers=[issuer.rules.issuer for issuer in trust.named[:MAX_PUBLISHED]],
        scopes=policy.hierarchy.require(listed).named,
    )
    members = _sign(members, metadata, around.metadata_signer, f"{where}.metadata", problems)
    metadata_url = insert_well_known(url, PROTECTED_RESOURCE)
    schemes = (BEARER,)
    challenge = ChallengeSource(schemes, metadata_url, policy.challenged.named)
    return CompiledResource(
        identifier=identifier,
        url=url,
        owned_prefix=canonical_path(url.path or "/"),
        metadata_url=metadata_url,
        document=compile_document(members),
        origins=OriginCheck(url, around.allowed_origins),
        schemes=frozenset(scheme.key for scheme in schemes),
        challenge=challenge,
        no_credential=refusal_response(NoCredential(Reason.NO_CREDENTIAL), challenge),
        trust=trust,
        policy=policy,
    )
