"""Compiling one protected resource: from what the user wrote to what a request looks up.

Pure: every problem goes into `Problems`; the result is complete only when there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asgi_mcp_auth._protocol.challenge import BEARER
from asgi_mcp_auth._protocol.cross_origin import OriginCheck
from asgi_mcp_auth._protocol.issuer import TrustedIssuer, compile_issuer
from asgi_mcp_auth._protocol.metadata import (
    Document,
    build_members,
    check_signed_metadata,
    compile_document,
    is_language_tag,
    language_variants,
)
from asgi_mcp_auth._protocol.paths import PathRule, canonical_path, is_canonical, parse_rule
from asgi_mcp_auth._protocol.problems import Problems, as_list
from asgi_mcp_auth._protocol.responses import ChallengeSource, Response, refusal_response
from asgi_mcp_auth._protocol.scopes import Hierarchy, Requirement, is_scope
from asgi_mcp_auth._protocol.urls import PROTECTED_RESOURCE, Url, insert_well_known, is_loopback, parse_url
from asgi_mcp_auth.config import AuthServerConfig, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.errors import BadRequest, NoCredential, Reason

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
    issuers: tuple[TrustedIssuer, ...]
    baseline: Requirement
    rules: tuple[PathRule, ...]
    rule_requirements: tuple[Requirement, ...]

    def requirement(self, rule: int | None) -> Requirement:
        """What a request needs: the baseline, and what the path rule adds."""
        return self.baseline if rule is None else self.rule_requirements[rule]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a resource takes from the whole configuration."""

    allowed_origins: Sequence[str]
    metadata_signer: MetadataSigner | None
    allow_http: bool
    alone_on_origin: bool


def resource_url(text: object, where: str, problems: Problems, *, allow_http: bool) -> Url | None:
    """Check a resource identifier (RFC 8707 section 2, RFC 9728 section 1.2): https, or http on loopback."""
    url = parse_url(text) if isinstance(text, str) else None
    if url is None:
        fix = "Write it as clients use it, for example 'https://mcp.example.com/mcp'."
        problems.add(where, f"{text!r} is not an absolute URL without user information.", fix)
        return None
    if url.scheme != "https" and not (url.scheme == "http" and (allow_http or is_loopback(url.host))):
        problems.add(where, f"{text!r} is not https.", "Only a loopback resource may use http.")
        return None
    if url.query is not None or url.fragment is not None:
        fix = "Drop it: a fragment is not allowed (RFC 8707 section 2), and official clients disagree about a query."
        problems.add(where, f"{text!r} has a query or a fragment.", fix)
        return None
    try:
        owned = canonical_path(url.path or "/")
    except BadRequest:
        owned = ""
    if (not is_canonical(url.path.removesuffix("/") or "/") and "%" not in url.path) or not owned:
        fix = "Write the path without dot segments, doubled slashes or repeated percent-encoding."
        problems.add(where, f"The path of {text!r} is not in canonical form.", fix)
        return None
    if str(url) != text:
        problems.warn(where, f"{text!r} is published as {str(url)!r}.", "Write it so, to see what clients see.")
    if url.path != "/" and url.path.endswith("/"):
        fix = "Prefer the identifier without it: some clients drop the slash."
        problems.warn(where, f"{text!r} ends with a slash.", fix)
    return url


def _scopes(value: object, where: str, problems: Problems, *, challenged: bool = False) -> tuple[str, ...]:
    """A list of scope tokens; `offline_access` is the client's own business, never a resource's (MCP 2026-07-28)."""
    scopes = as_list(value)
    if scopes is None:
        problems.add(where, f"{value!r} is not a list of scopes.", "Write a list of strings.")
        return ()
    for scope in scopes:
        if not is_scope(scope):
            fix = 'Use printable ASCII without spaces, `"` and `\\` (RFC 6749 section 3.3).'
            problems.add(where, f"{scope!r} is not a scope.", fix)
    if challenged and "offline_access" in scopes:
        problems.warn(where, "offline_access is not asked for.", "Remove it: clients add it themselves.")
        scopes.remove("offline_access")
    return tuple(scope for scope in scopes if isinstance(scope, str) and is_scope(scope))


def _hierarchy(policy: ScopePolicy, where: str, problems: Problems) -> Hierarchy:
    before = len(problems.found)
    for scope, included in policy.implies.items():
        _scopes([scope], f"{where}.implies", problems)
        _scopes(included, f"{where}.implies[{scope!r}]", problems)
    for scope, name in policy.wire_names.items():
        _scopes([scope, name], f"{where}.wire_names[{scope!r}]", problems)
    hierarchy = Hierarchy({} if len(problems.found) > before else policy.implies, policy.wire_names)
    if (cycle := hierarchy.cycle()) is not None:
        fix = "Remove one of the two directions."
        problems.add(f"{where}.implies", f"{' and '.join(map(repr, cycle))} imply themselves.", fix)
    return hierarchy


def _rules(policy: ScopePolicy, where: str, problems: Problems) -> dict[PathRule, tuple[str, ...]]:
    rules: dict[PathRule, tuple[str, ...]] = {}
    for text, scopes in policy.paths.items():
        rule = parse_rule(text)
        if rule is None:
            fix = "Write '/path', '/path/*' or 'POST /path', the path decoded, without a trailing slash."
            problems.add(f"{where}.paths", f"{text!r} is not a path rule.", fix)
        elif rule in rules:
            problems.add(f"{where}.paths", f"{text!r} stands there twice.", "Merge the two rules.")
        else:
            rules[rule] = _scopes(scopes, f"{where}.paths[{text!r}]", problems)
    return rules


def _check_members(metadata: ResourceServerMetadata, where: str, problems: Problems) -> None:
    """Metadata never promises what is not enforced."""
    if metadata.bearer_methods_supported is not None and list(metadata.bearer_methods_supported) != ["header"]:
        fix = "Leave it out, or write ['header']: a token in a body or a URI is never read."
        problems.add(
            f"{where}.bearer_methods_supported", f"{metadata.bearer_methods_supported!r} is not enforced.", fix
        )
    for name in (
        "tls_client_certificate_bound_access_tokens",
        "dpop_bound_access_tokens_required",
        "dpop_signing_alg_values_supported",
    ):
        if getattr(metadata, name):
            problems.add(f"{where}.{name}", "The mechanism is not part of this configuration.", "Leave it out.")
    if "none" in (metadata.resource_signing_alg_values_supported or ()):
        fix = "Name the algorithms you sign with (RFC 9728 section 2)."
        problems.add(f"{where}.resource_signing_alg_values_supported", "'none' is not a signature.", fix)
    if metadata.jwks_uri is not None and not metadata.jwks_uri.startswith("https://"):
        problems.add(f"{where}.jwks_uri", f"{metadata.jwks_uri!r} is not https.", "Serve it over https.")
    for name, texts in language_variants(metadata).items():
        if not texts.get("") or not all(map(is_language_tag, filter(None, texts))):
            fix = "Give the default under '' and each variant under its BCP 47 tag."
            problems.add(f"{where}.{name}", f"{texts!r} is not a text by language.", fix)
    if known := sorted(name for name in metadata.extra if name.partition("#")[0] in metadata.__slots__):
        problems.add(f"{where}.extra", f"{', '.join(known)} has a field of its own.", "Use the field.")


def _sign(
    members: dict[str, Any],
    metadata: ResourceServerMetadata,
    signer: MetadataSigner | None,
    where: str,
    problems: Problems,
) -> dict[str, Any]:
    """Add `signed_metadata` (RFC 9728 section 2.2), made by the signer or given as it is."""
    signed: object = metadata.signed_metadata
    if signer is not None and signed is None:
        signed = signer({"iss": members["resource"], **members})
    if signed is None:
        return members
    if metadata.jwks_uri is None:
        fix = "Publish the signing key and set jwks_uri, or nobody can check the signature."
        problems.add(f"{where}.jwks_uri", "signed_metadata is published without it.", fix)
    if (why := check_signed_metadata(signed, members)) is not None:
        fix = "Sign exactly the published members, and iss (RFC 9728 section 2.2)."
        problems.add(f"{where}.signed_metadata", f"The JWT {why}.", fix)
    return members | {"signed_metadata": signed}


def _issuers(
    config: ResourceServerConfig, url: Url, where: str, problems: Problems, around: Surroundings
) -> tuple[TrustedIssuer, ...]:
    servers = as_list(config.metadata.authorization_servers)
    if not servers:
        fix = "List at least one issuer: MCP requires it (authorization server discovery)."
        problems.add(where, "No list of authorization servers.", fix)
        return ()
    prefixes = [str(url).removesuffix("/") + "/", *([url.origin + "/"] if around.alone_on_origin else [])]
    issuers: list[TrustedIssuer] = []
    for index, server in enumerate(servers):
        place = f"{where}[{index}]"
        if not isinstance(server, (str, AuthServerConfig)):
            problems.add(place, f"{server!r} is not an issuer.", "Give a URL or an AuthServerConfig.")
            continue
        own = AuthServerConfig(issuer=server) if isinstance(server, str) else server
        issuer = compile_issuer(
            own,
            url,
            place,
            problems,
            allow_http=around.allow_http,
            own_scope_prefixes=prefixes,
            required=config.policy.default,
        )
        if issuer is None:
            continue
        if any(issuer.rules.issuer == other.rules.issuer for other in issuers):
            problems.add(place, f"The issuer {issuer.rules.issuer!r} stands there twice.", "Remove one.")
        issuers.append(issuer)
    return tuple(issuers)


def compile_resource(
    config: ResourceServerConfig, url: Url, where: str, problems: Problems, around: Surroundings
) -> CompiledResource | None:
    """Compile one resource whose identifier has been checked; None when problems were found."""
    before = len(problems.found)
    metadata, policy = config.metadata, config.policy
    _check_members(metadata, f"{where}.metadata", problems)
    hierarchy = _hierarchy(policy, f"{where}.policy", problems)
    default = _scopes(policy.default, f"{where}.policy.default", problems, challenged=True)
    asked = default
    if policy.challenge_scopes is not None:
        asked = _scopes(policy.challenge_scopes, f"{where}.policy.challenge_scopes", problems, challenged=True)
    rules = _rules(policy, f"{where}.policy", problems)
    listed = default
    if metadata.scopes_supported is not None:
        listed = _scopes(metadata.scopes_supported, f"{where}.metadata.scopes_supported", problems, challenged=True)
    issuers = _issuers(config, url, f"{where}.metadata.authorization_servers", problems, around)
    if len(problems.found) > before:
        return None
    identifier = str(url)
    members = build_members(
        metadata,
        resource=identifier,
        issuers=[issuer.rules.issuer for issuer in issuers],
        scopes=hierarchy.require(listed).named,
    )
    members = _sign(members, metadata, around.metadata_signer, f"{where}.metadata", problems)
    metadata_url = insert_well_known(url, PROTECTED_RESOURCE)
    schemes = (BEARER,)
    challenge = ChallengeSource(schemes, metadata_url, hierarchy.require(asked).named)
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
        issuers=issuers,
        baseline=hierarchy.require(default),
        rules=tuple(rules),
        rule_requirements=tuple(hierarchy.require(default, more) for more in rules.values()),
    )
