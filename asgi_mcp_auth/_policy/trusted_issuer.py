"""One authorization server that a resource trusts, compiled: the rules for its tokens, and the source of its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import get_args

from asgi_mcp_auth._oauth import ml_dsa
from asgi_mcp_auth._oauth.access_token import ScopeClaim, TokenRules, scope_claim
from asgi_mcp_auth._oauth.json_types import is_number, unchecked
from asgi_mcp_auth._oauth.jwk_set import KeySet, parse_key_set
from asgi_mcp_auth._oauth.jws import VERIFIABLE
from asgi_mcp_auth._oauth.server_metadata import ALLOW_HTTP, insecure_url, validate_server_config
from asgi_mcp_auth._oauth.urls import Url, parse_url
from asgi_mcp_auth._policy.api_key_file import API_KEY_ISSUER
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth.config import (
    DEFAULT_SUBJECT_CLAIMS,
    MAX_LEEWAY,
    AuthorizationServerMetadata,
    AuthServerConfig,
    AuthServerType,
    JWKSCacheSettings,
    Profile,
)
from asgi_mcp_auth.errors import InvalidServerMetadata

__all__ = (
    "MAX_ISSUER_LENGTH",
    "MAX_KEYS_WITHOUT_KID",
    "WEEK",
    "IssuerContext",
    "TrustedIssuer",
    "check_url",
    "compile_issuer",
    "compile_token_issuers",
)

MAX_ISSUER_LENGTH = 512  # four times the longest of a known provider
MAX_KEYS_WITHOUT_KID = 4
PROFILES = get_args(Profile)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """One value of `iss` that a resource accepts: the rules for its tokens, and the source of its keys."""

    rules: TokenRules
    identifier: str
    """The issuer identifier, which metadata documents and clients name; with `token_issuers` tokens carry another."""
    config: AuthServerConfig
    static_keys: KeySet | None
    template: str | None = None
    """For a tenant of a template: the template, which the metadata names as its issuer. All tenants share its keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerContext:
    """What compiling an issuer needs of the resource that trusts the issuer.

    Attributes:
        resource: The resource.
        allow_http: Whether plain http beyond loopback was dangerously allowed.
        own_scope_prefixes: The beginnings of the scopes that name the resource.
        required: The scopes that every request needs.
        confirmations: The members of `cnf` that are verified.
    """

    resource: Url
    allow_http: bool
    own_scope_prefixes: tuple[str, ...] = ()
    required: Sequence[str] = ()
    confirmations: frozenset[str] = frozenset()


def _issuer(config: AuthServerConfig, where: str, problems: Problems, *, allow_http: bool) -> str | None:
    named = None if config.metadata is None else config.metadata.issuer
    issuer = config.issuer if config.issuer is not None else named
    if issuer is None:
        fix = "Set issuer=, or fetch now with fetch_server_config_by_well_known_url."
        problems.add(where, "The issuer is not named.", fix)
        return None
    if named is not None and named != issuer:
        fix = "They must be exactly equal (RFC 8414 section 3.3)."
        problems.add(where, f"The issuer {show(issuer)} is not the metadata's, {show(named)}.", fix)
    why = insecure_url(issuer, allow_http=allow_http)
    url = parse_url(issuer) if why is None else None
    if why is None and (url is None or url.query is not None):
        why = "has a query"
    if why is None and "/.well-known/" in issuer:
        fix = "Give what its `issuer` member says, or metadata_url= for an unusual place."
        problems.add(where, f"{show(issuer)} is the URL of a metadata document.", fix)
        return None
    if why is not None:
        fix = f"An issuer is an https URL without query and fragment (RFC 8414 section 2). {ALLOW_HTTP}"
        problems.add(where, f"The issuer {show(issuer)} {why}.", fix)
        return None
    return issuer


def _algorithms(config: AuthServerConfig, where: str, problems: Problems) -> frozenset[str]:
    before = len(problems.found)
    algorithms = problems.strings(config.algorithms, f"{where}.algorithms")
    unknown = [name for name in algorithms if name not in VERIFIABLE]
    if len(problems.found) == before and (unknown or not algorithms):
        fix = f"Choose from {', '.join(VERIFIABLE)}; shared secrets and 'none' are never accepted."
        problems.add(f"{where}.algorithms", f"Not usable: {show(unknown) if unknown else 'an empty list'}.", fix)
    missing = [name for name in algorithms if name in ml_dsa.ML_DSA and not ml_dsa.is_available(name)]
    if missing:
        fix = "Install cryptography 48 or later, or remove them."
        problems.add(f"{where}.algorithms", f"{show(missing)} cannot be verified by this installation.", fix)
    return frozenset(algorithms)


def _leeway(config: AuthServerConfig, where: str, problems: Problems) -> float:
    leeway = unchecked(config.leeway)
    if not is_number(leeway) or not 0 <= leeway <= MAX_LEEWAY:
        problems.add(f"{where}.leeway", f"{show(leeway)} is not in 0 … {MAX_LEEWAY:.0f}.", "Give seconds.")
        return 0.0
    return float(leeway)


def _subject_claims(config: AuthServerConfig, where: str, problems: Problems) -> tuple[str, ...]:
    place = f"{where}.subject_claims"
    before = len(problems.found)
    claims = tuple(dict.fromkeys(problems.strings(config.subject_claims, place)))
    if not claims and len(problems.found) == before:
        problems.add(place, "The list is empty.", 'Name at least one claim: subject_claims=["sub"].')
    if config.profile == "at+jwt" and claims and claims != DEFAULT_SUBJECT_CLAIMS:
        fix = 'Remove it, or set profile="jwt".'
        problems.add(place, "Profile 'at+jwt' reads the subject from sub only (RFC 9068 section 2.2).", fix)
    return claims


def _scope_claims(config: AuthServerConfig, where: str, problems: Problems) -> tuple[ScopeClaim, ...]:
    claims = tuple(map(scope_claim, problems.strings(config.scope_claims, f"{where}.scope_claims")))
    for name, path in claims:
        if not all(path):
            fix = "Write the names of members with one dot between them: realm_access.roles."
            problems.add(f"{where}.scope_claims", f"{show(name)} has an empty member name.", fix)
    return claims


def compile_token_issuers(config: AuthServerConfig, where: str, problems: Problems) -> list[str]:
    """Return the values of `iss`, which may be any StringOrURI (RFC 7519 section 2); none if `issuer` is the value."""
    place = f"{where}.token_issuers"
    values = list(dict.fromkeys(problems.strings(config.token_issuers, place)))
    for value in values:
        if len(value) > MAX_ISSUER_LENGTH:
            fix = "Write the `iss` of a token."
            problems.add(place, f"{show(value)} is longer than {MAX_ISSUER_LENGTH} characters.", fix)
        if value.startswith(API_KEY_ISSUER):
            what = f"{show(value)} is the issuer of API keys."
            problems.add(place, what, "Write the `iss` of a token.")
    if values and (config.issuer_pattern is not None or config.tenants):
        fix = "Write an AuthServerConfig with issuer= for each issuer whose tokens carry another iss."
        problems.add(place, "It cannot be combined with issuer_pattern or tenants.", fix)
    return values


def _static_keys(config: AuthServerConfig, where: str, problems: Problems) -> KeySet | None:
    if config.jwks is None:
        return None
    try:
        return parse_key_set(problems.mapping(config.jwks, f"{where}.jwks") or {"keys": []})
    except InvalidServerMetadata as error:
        problems.add(f"{where}.jwks", error.message, "Give a JWK Set with at least one public signature key.")
        return None


def _check_choices(config: AuthServerConfig, where: str, problems: Problems) -> None:
    if config.type is not None and config.type not in tuple(AuthServerType):
        problems.add(f"{where}.type", f"{show(config.type)} is not a type.", "Use AuthServerType.OAUTH or .OIDC.")
    if config.profile not in PROFILES:
        fix = f"Use one of {', '.join(PROFILES)}."
        problems.add(f"{where}.profile", f"{show(config.profile)} is not a profile.", fix)
    for name in ("publish", "require_single_audience", "accept_nonce"):
        if not isinstance(getattr(config, name), bool):
            problems.add(f"{where}.{name}", f"{show(getattr(config, name))} is not a bool.", "Write True or False.")
    if config.max_keys_without_kid not in range(1, MAX_KEYS_WITHOUT_KID + 1):
        fix = f"Give 1 … {MAX_KEYS_WITHOUT_KID}."
        problems.add(f"{where}.max_keys_without_kid", f"{show(config.max_keys_without_kid)} is out of range.", fix)


def check_url(url: str | None, where: str, problems: Problems, *, allow_http: bool) -> None:
    """Add a problem for a URL that is neither https nor http on loopback, unless plain http is allowed."""
    if url is not None and (why := insecure_url(url, allow_http=allow_http)) is not None:
        problems.add(where, f"{show(url)} {why}.", ALLOW_HTTP)


def _check_locations(config: AuthServerConfig, where: str, problems: Problems, *, allow_http: bool) -> None:
    check_url(config.metadata_url, f"{where}.metadata_url", problems, allow_http=allow_http)
    check_url(config.jwks_uri, f"{where}.jwks_uri", problems, allow_http=allow_http)
    metadata = config.metadata
    if metadata is None:
        return
    check_url(metadata.jwks_uri, f"{where}.metadata.jwks_uri", problems, allow_http=allow_http)
    if metadata.ignored_members:
        names = show(metadata.ignored_members)
        problems.warn(f"{where}.metadata", f"Ignored members, of a wrong type or not valid JSON: {names}.", "Fix them.")
    if metadata.authorization_endpoint is not None:
        for error in validate_server_config(config).errors:
            problems.warn(f"{where}.metadata", error.description, "MCP clients will not be able to use it.")
    if not (metadata.jwks_uri or config.jwks_uri or config.jwks):
        fix = "Add jwks_uri to it to save the request."
        problems.warn(f"{where}.metadata", "It has no jwks_uri: it is discovered on first use.", fix)


def _check_no_aud(
    config: AuthServerConfig, required: Sequence[str], prefixes: Sequence[str], where: str, problems: Problems
) -> None:
    """Check that client ids and a scope of the resource replace the missing `aud` (MCP: token audience binding).

    Without either, a token that the issuer made for another resource would be accepted.
    """
    if not config.allowed_clients:
        problems.add(f"{where}.allowed_clients", "Profile 'no-aud' needs it.", "List the client ids to trust.")
    if not any(scope.startswith(tuple(prefixes)) for scope in required):
        fix = f"Require one that begins with {show(prefixes[0])}, for example {show(prefixes[0] + 'read')}."
        problems.add(f"{where}.profile", "Profile 'no-aud' needs a required scope that names the resource.", fix)
    problems.warn(
        f"{where}.profile", "Tokens without an audience are accepted.", "Let the provider bind tokens instead."
    )


MIN_SECONDS = {"min_lifetime": 10.0, "max_backoff": 1.0, "stale_if_error": 0.0}
WEEK = 604_800.0


def _check_cache_settings(cache: object, where: str, problems: Problems) -> None:
    """Check that every time is within bounds: they protect the issuer from floods, and us from keys of long ago."""
    if not isinstance(cache, JWKSCacheSettings):
        fix = "Pass JWKSCacheSettings(stale_if_error=3600), for example."
        problems.add(where, f"{show(cache)} is not a JWKSCacheSettings.", fix)
        return
    before = len(problems.found)
    for field in fields(cache):
        seconds, least = getattr(cache, field.name), MIN_SECONDS.get(field.name, 10.0)
        if not is_number(seconds) or not least <= seconds <= WEEK:
            what = f"{show(seconds)} is not a number of seconds from {least:.0f} to {WEEK:.0f}."
            problems.add(f"{where}.{field.name}", what, "Set a number in this range.")
    if len(problems.found) == before and not cache.min_lifetime <= cache.lifetime <= cache.max_lifetime:
        what = f"lifetime={cache.lifetime:.0f} is not between min_lifetime and max_lifetime."
        problems.add(where, what, "Set min_lifetime <= lifetime <= max_lifetime.")


def compile_issuer(
    config: AuthServerConfig, context: IssuerContext, where: str, problems: Problems
) -> TrustedIssuer | None:
    """Return one issuer compiled; None if it has no usable identifier. Every problem is added to `problems`."""
    given = unchecked(config.metadata)
    if given is not None and not isinstance(given, AuthorizationServerMetadata):
        fix = "Give AuthorizationServerMetadata(issuer=…, …), or its from_dict(document)."
        problems.add(f"{where}.metadata", f"{show(given)} is no metadata.", fix)
        return None
    issuer = _issuer(config, where, problems, allow_http=context.allow_http)
    _check_choices(config, where, problems)
    _check_locations(config, where, problems, allow_http=context.allow_http)
    _check_cache_settings(config.jwks_cache, f"{where}.jwks_cache", problems)
    extra = problems.strings(config.extra_audiences, f"{where}.extra_audiences")
    prefixes = (*context.own_scope_prefixes, *(audience.removesuffix("/") + "/" for audience in extra))
    if config.profile == "no-aud":
        _check_no_aud(config, context.required, prefixes, where, problems)
    static_keys = _static_keys(config, where, problems)
    rules = TokenRules(
        issuer=issuer or "",
        resource=str(context.resource),
        resource_url=context.resource,
        profile=config.profile,
        algorithms=_algorithms(config, where, problems),
        leeway=_leeway(config, where, problems),
        extra_audiences=frozenset(extra),
        require_single_audience=config.require_single_audience,
        subject_claims=_subject_claims(config, where, problems),
        scope_claims=_scope_claims(config, where, problems),
        accept_nonce=config.accept_nonce,
        allowed_clients=frozenset(problems.strings(config.allowed_clients, f"{where}.allowed_clients")) or None,
        own_scope_prefixes=prefixes,
        confirmations=context.confirmations,
    )
    if issuer is None:
        return None
    return TrustedIssuer(rules=rules, identifier=issuer, config=config, static_keys=static_keys)
