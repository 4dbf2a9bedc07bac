"""Compiling one trusted authorization server for one resource: the rules for its tokens, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

from asgi_mcp_auth._protocol.claims import TokenRules
from asgi_mcp_auth._protocol.freshness import check_clocks
from asgi_mcp_auth._protocol.jose import ALGORITHMS
from asgi_mcp_auth._protocol.jwks import KeySet, parse_key_set
from asgi_mcp_auth._protocol.problems import Problems, show
from asgi_mcp_auth._protocol.server_metadata import insecure_url, validate_server_config
from asgi_mcp_auth._protocol.urls import Url, parse_url
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.config import AuthorizationServerMetadata, AuthServerConfig, AuthServerType, Profile
from asgi_mcp_auth.errors import InvalidServerMetadata

__all__ = ("TrustedIssuer", "compile_issuer")

MAX_LEEWAY = 300.0
MAX_KEYS_WITHOUT_KID = 4
PROFILES = get_args(Profile)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """One issuer of one resource: the rules for its tokens, and where its keys come from."""

    rules: TokenRules
    config: AuthServerConfig
    static_keys: KeySet | None
    most_keys_without_kid: int
    template: str | None = None
    """For a tenant of a template: the template, which is the issuer of the metadata and of keys for all tenants."""


def _issuer(config: AuthServerConfig, where: str, problems: Problems, *, allow_http: bool) -> str | None:
    named = None if config.metadata is None else config.metadata.issuer
    issuer = config.issuer if config.issuer is not None else named
    if issuer is None:
        fix = "Set issuer=, or fetch now with fetch_server_config_by_well_known_url."
        problems.add(where, "The issuer is not named.", fix)
        return None
    if named is not None and named != issuer:
        fix = "They must be equal to the letter (RFC 8414 section 3.3)."
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
        fix = "An issuer is an https URL without query and fragment (RFC 8414 section 2); http only on loopback."
        problems.add(where, f"The issuer {show(issuer)} {why}.", fix)
        return None
    return issuer


def _algorithms(config: AuthServerConfig, where: str, problems: Problems) -> frozenset[str]:
    before = len(problems.found)
    algorithms = problems.strings(config.algorithms, f"{where}.algorithms")
    unknown = [name for name in algorithms if name not in ALGORITHMS]
    if len(problems.found) == before and (unknown or not algorithms):
        fix = f"Choose from {', '.join(ALGORITHMS)}; shared secrets and 'none' are never accepted."
        problems.add(f"{where}.algorithms", f"Not usable: {show(unknown) if unknown else 'an empty list'}.", fix)
    return frozenset(algorithms)


def _leeway(config: AuthServerConfig, where: str, problems: Problems) -> float:
    leeway = cast("object", config.leeway)
    if isinstance(leeway, bool) or not isinstance(leeway, (int, float)) or not 0 <= leeway <= MAX_LEEWAY:
        problems.add(f"{where}.leeway", f"{show(leeway)} is not in 0 … {MAX_LEEWAY:.0f}.", "Give seconds.")
        return 0.0
    return float(leeway)


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
    if config.most_keys_without_kid not in range(1, MAX_KEYS_WITHOUT_KID + 1):
        fix = f"Give 1 … {MAX_KEYS_WITHOUT_KID}."
        problems.add(f"{where}.most_keys_without_kid", f"{show(config.most_keys_without_kid)} is out of range.", fix)


def _check_locations(config: AuthServerConfig, where: str, problems: Problems, *, allow_http: bool) -> None:
    locations = {"metadata_url": config.metadata_url, "jwks_uri": config.jwks_uri}
    if config.metadata is not None:
        locations["metadata.jwks_uri"] = config.metadata.jwks_uri
    for name, location in locations.items():
        if location is not None and (why := insecure_url(location, allow_http=allow_http)) is not None:
            problems.add(
                f"{where}.{name}", f"{show(location)} {why}.", "Keys are fetched over https; http only on loopback."
            )
    if config.metadata is not None and config.metadata.authorization_endpoint is not None:
        for error in validate_server_config(config).errors:
            problems.warn(f"{where}.metadata", error.description, "MCP clients will not be able to use it.")
    if config.metadata is not None and not (config.metadata.jwks_uri or config.jwks_uri or config.jwks):
        fix = "Add jwks_uri to it to save the request."
        problems.warn(f"{where}.metadata", "It has no jwks_uri: it is discovered on first use.", fix)


def _check_no_aud(
    config: AuthServerConfig, required: Sequence[str], prefixes: Sequence[str], where: str, problems: Problems
) -> None:
    """Without `aud` something else has to say that a token is meant for us (MCP, token audience binding)."""
    if not config.allowed_clients:
        problems.add(f"{where}.allowed_clients", "Profile 'no-aud' needs it.", "List the client ids to trust.")
    if not any(scope.startswith(tuple(prefixes)) for scope in required):
        fix = f"Require one that begins with {show(prefixes[0])}, for example {show(prefixes[0] + 'read')}."
        problems.add(f"{where}.profile", "Profile 'no-aud' needs a required scope that names the resource.", fix)
    problems.warn(
        f"{where}.profile", "Tokens without an audience are accepted.", "Let the provider bind tokens instead."
    )


def compile_issuer(
    config: AuthServerConfig,
    *,
    resource: Url,
    where: str,
    problems: Problems,
    allow_http: bool,
    own_scope_prefixes: Sequence[str],
    required: Sequence[str],
) -> TrustedIssuer | None:
    """Compile one issuer's rules; None when it has no usable identifier."""
    given = cast("object", config.metadata)
    if given is not None and not isinstance(given, AuthorizationServerMetadata):
        fix = "Give AuthorizationServerMetadata(issuer=…, …), or its from_dict(document)."
        problems.add(f"{where}.metadata", f"{show(given)} is no metadata.", fix)
        return None
    issuer = _issuer(config, where, problems, allow_http=allow_http)
    _check_choices(config, where, problems)
    _check_locations(config, where, problems, allow_http=allow_http)
    check_clocks(config.key_set_clocks, f"{where}.key_set_clocks", problems)
    extra = problems.strings(config.extra_audiences, f"{where}.extra_audiences")
    prefixes = (*own_scope_prefixes, *(audience.removesuffix("/") + "/" for audience in extra))
    if config.profile == "no-aud":
        _check_no_aud(config, required, prefixes, where, problems)
    static_keys = _static_keys(config, where, problems)
    rules = TokenRules(
        issuer=issuer or "",
        resource=str(resource),
        resource_url=resource,
        profile=config.profile,
        algorithms=_algorithms(config, where, problems),
        leeway=_leeway(config, where, problems),
        extra_audiences=frozenset(extra),
        require_single_audience=config.require_single_audience,
        scope_claims=tuple(problems.strings(config.scope_claims, f"{where}.scope_claims")),
        allowed_clients=frozenset(problems.strings(config.allowed_clients, f"{where}.allowed_clients")) or None,
        own_scope_prefixes=prefixes,
    )
    if issuer is None:
        return None
    return TrustedIssuer(
        rules=rules, config=config, static_keys=static_keys, most_keys_without_kid=config.most_keys_without_kid
    )
