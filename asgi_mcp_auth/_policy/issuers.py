"""The authorization servers that one resource trusts, compiled: named issuers, tenants, patterns and a resolver.

A token's `iss` is attacker-controlled until the signature is verified. A pattern therefore matches within one label of
the host or one segment of the path, and never across a separator, so that no pattern can match another domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TypeGuard, get_args

from asgi_mcp_auth._oauth import ml_dsa
from asgi_mcp_auth._oauth.access_token import ScopeClaim, TokenRules, scope_claim
from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._oauth.jwk_set import KeySet, parse_key_set
from asgi_mcp_auth._oauth.jws import VERIFIABLE
from asgi_mcp_auth._oauth.server_metadata import ALLOW_HTTP, insecure_url, validate_server_config
from asgi_mcp_auth._oauth.urls import Url, parse_url
from asgi_mcp_auth._policy.api_key_file import API_KEY_ISSUER
from asgi_mcp_auth._policy.patterns import ByEnds
from asgi_mcp_auth._policy.problems import Problems, as_list, show
from asgi_mcp_auth.config import (
    DEFAULT_SUBJECT_CLAIMS,
    MAX_LEEWAY,
    AuthorizationServerMetadata,
    AuthServerConfig,
    AuthServerType,
    IssuerResolver,
    JWKSCacheSettings,
    Profile,
)
from asgi_mcp_auth.errors import InvalidServerMetadata

__all__ = (
    "MAX_PUBLISHED",
    "IssuerPattern",
    "IssuerSet",
    "OtherIssuers",
    "TrustedIssuer",
    "compile_issuer",
    "compile_issuer_set",
    "compile_pattern",
    "may_be_issuer",
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
    max_keys_without_kid: int
    template: str | None = None
    """For a tenant of a template: the template, which the metadata names as its issuer. All tenants share its keys."""


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
    if isinstance(leeway, bool) or not isinstance(leeway, (int, float)) or not 0 <= leeway <= MAX_LEEWAY:
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


def _token_issuers(config: AuthServerConfig, where: str, problems: Problems) -> list[str]:
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


def _check_locations(config: AuthServerConfig, where: str, problems: Problems, *, allow_http: bool) -> None:
    locations = {"metadata_url": config.metadata_url, "jwks_uri": config.jwks_uri}
    if config.metadata is not None:
        locations["metadata.jwks_uri"] = config.metadata.jwks_uri
    for name, location in locations.items():
        if location is not None and (why := insecure_url(location, allow_http=allow_http)) is not None:
            problems.add(f"{where}.{name}", f"{show(location)} {why}.", ALLOW_HTTP)
    if config.metadata is not None and config.metadata.ignored_members:
        names = show(config.metadata.ignored_members)
        problems.warn(f"{where}.metadata", f"Ignored members, of a wrong type or not valid JSON: {names}.", "Fix them.")
    if config.metadata is not None and config.metadata.authorization_endpoint is not None:
        for error in validate_server_config(config).errors:
            problems.warn(f"{where}.metadata", error.description, "MCP clients will not be able to use it.")
    if config.metadata is not None and not (config.metadata.jwks_uri or config.jwks_uri or config.jwks):
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
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not least <= seconds <= WEEK:
            what = f"{show(seconds)} is not a number of seconds from {least:.0f} to {WEEK:.0f}."
            problems.add(f"{where}.{field.name}", what, "Set a number in this range.")
    if len(problems.found) == before and not cache.min_lifetime <= cache.lifetime <= cache.max_lifetime:
        what = f"lifetime={cache.lifetime:.0f} is not between min_lifetime and max_lifetime."
        problems.add(where, what, "Set min_lifetime <= lifetime <= max_lifetime.")


def compile_issuer(
    config: AuthServerConfig,
    *,
    resource: Url,
    where: str,
    problems: Problems,
    allow_http: bool,
    own_scope_prefixes: Sequence[str],
    required: Sequence[str],
    confirmations: frozenset[str] = frozenset(),
) -> TrustedIssuer | None:
    """Return one issuer compiled; None if it has no usable identifier. Every problem is added to `problems`."""
    given = unchecked(config.metadata)
    if given is not None and not isinstance(given, AuthorizationServerMetadata):
        fix = "Give AuthorizationServerMetadata(issuer=…, …), or its from_dict(document)."
        problems.add(f"{where}.metadata", f"{show(given)} is no metadata.", fix)
        return None
    issuer = _issuer(config, where, problems, allow_http=allow_http)
    _check_choices(config, where, problems)
    _check_locations(config, where, problems, allow_http=allow_http)
    _check_cache_settings(config.jwks_cache, f"{where}.jwks_cache", problems)
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
        subject_claims=_subject_claims(config, where, problems),
        scope_claims=_scope_claims(config, where, problems),
        accept_nonce=config.accept_nonce,
        allowed_clients=frozenset(problems.strings(config.allowed_clients, f"{where}.allowed_clients")) or None,
        own_scope_prefixes=prefixes,
        confirmations=confirmations,
    )
    if issuer is None:
        return None
    return TrustedIssuer(
        rules=rules,
        identifier=issuer,
        config=config,
        static_keys=static_keys,
        max_keys_without_kid=config.max_keys_without_kid,
    )


def _by_iss(trusted: TrustedIssuer, token_issuers: Sequence[str]) -> list[TrustedIssuer]:
    """Return one trusted issuer for each value of `iss` that its tokens may carry."""
    values = token_issuers or [trusted.identifier]
    return [replace(trusted, rules=replace(trusted.rules, issuer=value)) for value in values]


LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}"  # no dot in front: neither `.` nor `..`
MIN_FIXED_LABELS = 2
MAX_PRELOAD = 1000


def _is_resolver(server: object) -> TypeGuard[IssuerResolver]:
    return callable(server) and not isinstance(server, type)


def may_be_issuer(claimed: object) -> TypeGuard[str]:
    """Return whether an `iss` can be an issuer (RFC 8414 section 2): a URL without query and fragment, not too long."""
    if type(claimed) is not str or len(claimed) > MAX_ISSUER_LENGTH:
        return False
    url = parse_url(claimed)
    return url is not None and url.query is None and url.fragment is None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerPattern:
    """An allow-list pattern, and the rules for tokens of the issuers that match it."""

    text: str
    expression: re.Pattern[str]
    trusted: TrustedIssuer

    def match(self, issuer: str) -> TrustedIssuer | None:
        """Return the rules for this issuer's tokens, or None if the issuer does not match."""
        if self.expression.fullmatch(issuer) is None:
            return None
        return replace(
            self.trusted,
            rules=replace(self.trusted.rules, issuer=issuer),
            identifier=issuer,
            config=replace(self.trusted.config, issuer=issuer, issuer_pattern=None, preload=()),
        )


class OtherIssuers:
    """The patterns and the resolver that admit issuers which the configuration of a resource does not name.

    Args:
        patterns: The patterns; the first that matches decides.
        resolver: Called with an issuer that matches no pattern; None for no resolver.
        compile: Compiles the configuration that the resolver returned for an issuer; raises `ConfigurationError`.
    """

    __slots__ = ("_by_ends", "compile", "patterns", "resolver")

    def __init__(
        self,
        *,
        patterns: tuple[IssuerPattern, ...],
        resolver: IssuerResolver | None,
        compile: Callable[[str, AuthServerConfig], TrustedIssuer],  # noqa: A002 - what it does
    ) -> None:
        self.patterns = patterns
        self.resolver = resolver
        self.compile = compile
        self._by_ends = ByEnds((pattern.text, order) for order, pattern in enumerate(patterns))

    def match(self, issuer: str) -> TrustedIssuer | None:
        """Return the rules of the first pattern that matches, or None."""
        alike = sorted(order for candidates in self._by_ends.candidates(issuer) for order in candidates)
        return next((found for order in alike if (found := self.patterns[order].match(issuer)) is not None), None)


def compile_pattern(pattern: object, where: str, problems: Problems) -> re.Pattern[str] | None:
    """Compile an allow-list pattern: `*` matches one whole label of the host or one whole segment of the path.

    Return None, with a problem added, if the pattern is malformed or would match hosts of any domain.
    """
    fix = "Write https://*.id.example.com or https://id.example.com/*/oauth: '*' is one whole label or segment."
    if not isinstance(pattern, str) or "*" not in pattern:
        problems.add(where, f"{show(pattern)} is no pattern.", fix)
        return None
    url = parse_url(pattern.replace("*", "x"))
    if url is None or url.query is not None or url.fragment is not None or url.scheme != "https":
        problems.add(where, f"{show(pattern)} is not an https URL with '*'.", fix)
        return None
    authority, slash, path = pattern.removeprefix("https://").partition("/")
    host, colon, port = authority.partition(":")
    labels, segments = host.split("."), (slash + path).split("/")
    if any("*" in part and part != "*" for part in (*labels, *segments)) or "*" in port:
        problems.add(where, f"In {show(pattern)} a '*' is only part of a label or segment.", fix)
        return None
    fixed = labels[::-1].index("*") if "*" in labels else len(labels)
    if fixed < MIN_FIXED_LABELS and "*" in labels:
        fix = "Write at least the last two labels of the host without '*'."
        problems.add(where, f"{show(pattern)} trusts everyone who can register a domain.", fix)
        return None
    hosts = r"\.".join(LABEL if label == "*" else re.escape(label) for label in labels)
    paths = "/".join(SEGMENT if segment == "*" else re.escape(segment) for segment in segments)
    return re.compile(f"https://{hosts}{re.escape(colon + port)}{paths}")


MAX_PUBLISHED = 100
PLACEHOLDER = re.compile(r"\{[A-Za-z_]+\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSet:
    """The issuers that a resource trusts: named ones, those that patterns preload, and what admits others."""

    named: tuple[TrustedIssuer, ...]
    preloaded: tuple[TrustedIssuer, ...]
    others: OtherIssuers | None

    @property
    def published(self) -> tuple[str, ...]:
        """The issuer identifiers to name to clients, in the order of the configuration."""
        return tuple(dict.fromkeys(trusted.identifier for trusted in self.named if trusted.config.publish))


class _Compiler:
    """Compiler of the entries of one list of authorization servers."""

    def __init__(
        self,
        resource: Url,
        where: str,
        problems: Problems,
        *,
        allow_http: bool,
        prefixes: Sequence[str],
        required: Sequence[str],
        confirmations: frozenset[str],
    ) -> None:
        self.where = where
        self.problems = problems
        self.named: list[TrustedIssuer] = []
        self.preloaded: list[TrustedIssuer] = []
        self._known: set[str] = set()
        self.patterns: list[IssuerPattern] = []
        self.resolvers: list[IssuerResolver] = []
        self._compile_issuer = partial(
            compile_issuer,
            resource=resource,
            allow_http=allow_http,
            own_scope_prefixes=prefixes,
            required=required,
            confirmations=confirmations,
        )

    def add(self, server: object, place: str) -> None:
        if isinstance(server, str):
            server = AuthServerConfig(issuer=server)
        if _is_resolver(server):
            self.resolvers.append(server)
        elif not isinstance(server, AuthServerConfig):
            fix = "Pass a URL, an AuthServerConfig, or a function from an issuer to an AuthServerConfig."
            self.problems.add(place, f"{show(server)} is not an issuer.", fix)
        elif server.issuer_pattern is not None:
            self._add_pattern(server, place)
        elif server.tenants or "{" in str(server.issuer):
            self._add_tenants(server, place)
        elif (issuer := self._compile_issuer(server, where=place, problems=self.problems)) is not None:
            self._add_named(_by_iss(issuer, _token_issuers(server, place, self.problems)), place)
        if isinstance(server, AuthServerConfig) and server.preload and server.issuer_pattern is None:
            fix = "Remove it: a named issuer's keys are fetched at start in any case."
            self.problems.add(f"{place}.preload", "preload= is set without issuer_pattern=.", fix)

    def _add_named(self, issuers: Sequence[TrustedIssuer], place: str) -> None:
        self._check_unique(issuers, place)
        self.named += issuers

    def _check_unique(self, issuers: Sequence[TrustedIssuer], place: str) -> None:
        for issuer in issuers:
            if issuer.rules.issuer in self._known:
                what = f"Issuer {show(issuer.rules.issuer)} is listed more than once."
                self.problems.add(place, what, "Remove one of them, or the value from one of the token_issuers=.")
            self._known.add(issuer.rules.issuer)

    def _add_tenants(self, config: AuthServerConfig, place: str) -> None:
        """Add one issuer for each tenant of a template; all of them share one key set."""
        template = str(config.issuer)
        holes = PLACEHOLDER.findall(template)
        if len(holes) != 1 or template.count("{") != 1:
            fix = "Write exactly one placeholder, as in https://login.example.com/{tenantid}/v2.0."
            what = f"{show(template)} needs exactly one placeholder for the tenant."
            self.problems.add(f"{place}.issuer", what, fix)
            return
        tenants = list(dict.fromkeys(self.problems.strings(config.tenants, f"{place}.tenants")))
        bad = [tenant for tenant in tenants if not re.fullmatch(SEGMENT, tenant)]
        if bad or not tenants:
            fix = "List the id of every tenant to trust; an id has no '/'."
            self.problems.add(f"{place}.tenants", f"Not usable: {show(bad) if bad else 'an empty list'}.", fix)
            return
        if config.metadata_url is None and config.jwks_uri is None and config.jwks is None:
            fix = "Set metadata_url= to the document whose issuer is the template, or jwks_uri=."
            self.problems.add(place, "A template has no well-known URL of its own.", fix)
        if not isinstance(unchecked(config.tenant_claim), str) or not config.tenant_claim:
            what = f"{show(config.tenant_claim)} is not the name of a claim."
            self.problems.add(f"{place}.tenant_claim", what, "Set the name of the claim, 'tid' for example.")
        _token_issuers(config, place, self.problems)
        first = replace(config, issuer=template.replace(holes[0], tenants[0]))
        compiled = self._compile_issuer(first, where=place, problems=self.problems)
        if compiled is None:
            return
        self._add_named(
            [
                replace(
                    compiled,
                    rules=replace(
                        compiled.rules,
                        issuer=template.replace(holes[0], tenant),
                        tenant=(config.tenant_claim, tenant),
                    ),
                    identifier=template.replace(holes[0], tenant),
                    config=config,
                    template=template,
                )
                for tenant in tenants
            ],
            place,
        )

    def _add_pattern(self, config: AuthServerConfig, place: str) -> None:
        alone = ("issuer", "metadata", "metadata_url", "jwks_uri", "jwks", "tenants")
        if given := [f"{name}=" for name in alone if getattr(config, name)]:
            what = f"issuer_pattern= is set together with {', '.join(given)}."
            fix = "Set only one of them: the metadata of each issuer that matches is discovered."
            self.problems.add(f"{place}.issuer_pattern", what, fix)
            return
        _token_issuers(config, place, self.problems)
        pattern = config.issuer_pattern
        expression = compile_pattern(pattern, f"{place}.issuer_pattern", self.problems)
        if expression is None:
            return
        example = replace(config, issuer=str(pattern).replace("*", "x"))
        trusted = self._compile_issuer(example, where=place, problems=self.problems)
        if trusted is None:
            return
        compiled = IssuerPattern(text=str(pattern), expression=expression, trusted=replace(trusted, config=config))
        self.patterns.append(compiled)
        self._add_preloaded(compiled, config, f"{place}.preload")

    def _add_preloaded(self, pattern: IssuerPattern, config: AuthServerConfig, place: str) -> None:
        issuers = list(dict.fromkeys(self.problems.strings(config.preload, place)))
        if len(issuers) > MAX_PRELOAD:
            fix = "List the issuers that matter most; others are admitted on first use."
            self.problems.add(place, f"{len(issuers)} issuers are listed; the limit is {MAX_PRELOAD}.", fix)
            return
        matching = [found for issuer in issuers if (found := pattern.match(issuer)) is not None]
        if len(matching) < len(issuers):
            foreign = [issuer for issuer in issuers if pattern.match(issuer) is None]
            what = f"{show(foreign)} does not match the pattern {show(pattern.text)}."
            self.problems.add(place, what, "List issuers that match it, exactly as tokens carry them in `iss`.")
        self._check_unique(matching, place)
        self.preloaded += matching

    def resolved(self, issuer: str, config: AuthServerConfig) -> TrustedIssuer:
        """Return the compiled configuration that a resolver returned for `issuer`.

        Raises:
            ConfigurationError: The configuration is not usable, or is for another issuer.
        """
        problems = Problems()
        where = f"the resolver's answer for {show(issuer)}"
        compiled = self._compile_issuer(config, where=where, problems=problems)
        token_issuers = _token_issuers(config, where, problems)
        found = [] if compiled is None else _by_iss(compiled, token_issuers)
        answer = next((trusted for trusted in found if trusted.rules.issuer == issuer), None)
        if found and answer is None:
            what = f"It names the issuer {show(' '.join(trusted.rules.issuer for trusted in found))}."
            problems.add(where, what, "Return the configuration of the issuer that the resolver was called with.")
        if config.issuer_pattern is not None or config.tenants or config.preload:
            fix = "Return a configuration of one issuer."
            problems.add(where, "It sets issuer_pattern=, tenants= or preload=.", fix)
        problems.raise_if_any()
        assert answer is not None  # noqa: S101 - otherwise there is a problem
        return answer


def compile_issuer_set(
    servers: object,
    resource: Url,
    where: str,
    problems: Problems,
    *,
    allow_http: bool,
    prefixes: Sequence[str],
    required: Sequence[str],
    confirmations: frozenset[str] = frozenset(),
) -> IssuerSet:
    """Return a list of authorization servers compiled. At least one must be named: clients find it in the metadata."""
    listed = as_list(servers)
    if not listed:
        fix = "List at least one issuer: MCP requires it (authorization server discovery)."
        what = "The list is empty." if listed is not None else f"{show(servers)} is not a list of servers."
        problems.add(where, what, fix)
        return IssuerSet(named=(), preloaded=(), others=None)
    compiler = _Compiler(
        resource,
        where,
        problems,
        allow_http=allow_http,
        prefixes=prefixes,
        required=required,
        confirmations=confirmations,
    )
    before = len(problems.found)
    for index, server in enumerate(listed):
        compiler.add(server, f"{where}[{index}]")
    if len(compiler.resolvers) > 1:
        problems.add(where, "There is more than one resolver.", "Pass one function that calls the others.")
    trust = IssuerSet(named=tuple(compiler.named), preloaded=tuple(compiler.preloaded), others=None)
    if not trust.published and len(problems.found) == before:
        fix = (
            "Name at least one issuer without publish=False: clients find it in the metadata, and cannot use a pattern."
        )
        problems.add(where, "There is no issuer to publish.", fix)
    if len(trust.published) > MAX_PUBLISHED:
        fix = "Put the ones that clients should log in at first."
        problems.warn(where, f"Only the first {MAX_PUBLISHED} of {len(trust.published)} issuers are published.", fix)
    others = None
    if compiler.patterns or compiler.resolvers:
        others = OtherIssuers(
            patterns=tuple(compiler.patterns),
            resolver=next(iter(compiler.resolvers), None),
            compile=compiler.resolved,
        )
    return replace(trust, others=others)
