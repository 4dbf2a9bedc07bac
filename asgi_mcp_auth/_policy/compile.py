"""A whole configuration compiled: resources, their metadata documents, paths, hosts and origins.

Pure. Every problem goes into `Problems`; the result is complete only if there are no problems.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from asgi_mcp_auth._oauth.challenge import BEARER
from asgi_mcp_auth._oauth.origin import HostCheck, OriginCheck, normal_origin, parse_authority
from asgi_mcp_auth._oauth.resource_metadata import (
    LANGUAGE_MEMBERS,
    Document,
    build_members,
    check_signed_metadata,
    compile_document,
    is_language_tag,
)
from asgi_mcp_auth._oauth.responses import ChallengeSource
from asgi_mcp_auth._oauth.server_metadata import ALLOW_HTTP
from asgi_mcp_auth._oauth.urls import PROTECTED_RESOURCE, Url, insert_well_known, is_loopback, parse_url
from asgi_mcp_auth._policy.issuers import MAX_PUBLISHED, IssuerSet, compile_issuer_set
from asgi_mcp_auth._policy.paths import PathRule, PathTable, canonical_path, is_canonical, parse_rule
from asgi_mcp_auth._policy.problems import Problems, as_mapping, as_strings, show
from asgi_mcp_auth._policy.routes import RouteTable
from asgi_mcp_auth._policy.rules import CompiledPolicy, compile_policy, compile_scopes
from asgi_mcp_auth.config import ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.errors import BadRequest

__all__ = (
    "CompiledConfig",
    "CompiledResource",
    "MetadataSigner",
    "ResourceContext",
    "compile_config",
    "compile_resource",
    "resource_url",
)

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
    trust: IssuerSet
    policy: CompiledPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceContext:
    """What a resource takes from the whole configuration."""

    allowed_origins: Sequence[str]
    metadata_signer: MetadataSigner | None
    allow_http: bool
    alone_on_origin: bool
    loaded_modules: frozenset[str]


def resource_url(text: object, where: str, problems: Problems, *, allow_http: bool) -> Url | None:
    """Check a resource identifier (RFC 8707 section 2, RFC 9728 section 1.2): https, or http on loopback."""
    url = parse_url(text) if isinstance(text, str) else None
    if url is None:
        fix = "Write it as clients use it, for example 'https://mcp.example.com/mcp'."
        what = f"{show(text)} is not an absolute URL without user information." if text else "It is missing."
        problems.add(where, what, fix)
        return None
    if url.scheme != "https" and not (url.scheme == "http" and (allow_http or is_loopback(url.host))):
        problems.add(where, f"{show(text)} is not https.", ALLOW_HTTP)
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
    config: ResourceServerConfig, url: Url, where: str, problems: Problems, around: ResourceContext
) -> CompiledResource | None:
    """Compile one resource whose identifier has been checked; None when problems were found."""
    before = len(problems.found)
    metadata = config.metadata
    _check_members(metadata, f"{where}.metadata", problems)
    policy = compile_policy(config.policy, f"{where}.policy", problems, around.loaded_modules)
    listed = policy.baseline.needed
    if metadata.scopes_supported is not None:
        place = f"{where}.metadata.scopes_supported"
        listed = compile_scopes(metadata.scopes_supported, place, problems, published=True)
    place = f"{where}.metadata.authorization_servers"
    trust = compile_issuer_set(
        metadata.authorization_servers,
        url,
        place,
        problems,
        allow_http=around.allow_http,
        prefixes=[str(url).removesuffix("/") + "/", *([url.origin + "/"] if around.alone_on_origin else [])],
        required=policy.baseline.needed,
    )
    if len(problems.found) > before:
        return None
    identifier = str(url)
    members = build_members(
        metadata,
        resource=identifier,
        issuers=trust.published[:MAX_PUBLISHED],
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
        trust=trust,
        policy=policy,
    )


WELL_KNOWN = "/.well-known/"
PLACEHOLDER = Url("https", "invalid", None, "", None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledConfig:
    """Everything a request is looked up in."""

    configs: tuple[ResourceServerConfig, ...]
    resources: tuple[CompiledResource, ...]
    documents: Mapping[bytes, Document]
    hosts: HostCheck
    paths: PathTable
    republishes: bool = False

    def routes(self, checks_messages: Sequence[bool], own_root_path: str = "") -> RouteTable:
        """Return the routes; see `RouteTable`."""
        return RouteTable(
            self.paths,
            self.documents,
            [
                {None: resource.policy.baseline, **dict(enumerate(resource.policy.requirements))}
                for resource in self.resources
            ],
            checks_messages,
            republishes=self.republishes,
            own_root_path=own_root_path,
        )


def _public_paths(paths: object, problems: Problems) -> tuple[PathRule, ...]:
    rules: list[PathRule] = []
    for path in problems.strings(paths, "public_paths"):
        rule = parse_rule(path)
        if rule is None or rule.method is not None:
            fix = "Write '/path' or '/path/*', the path decoded, without a trailing slash."
            problems.add("public_paths", f"{show(path)} is not a path.", fix)
        elif rule.path == "/" and rule.below:
            problems.add("public_paths", "'/*' would leave nothing protected.", "Name the public paths.")
        else:
            rules.append(rule)
    return tuple(rules)


def _origins(origins: object, problems: Problems) -> tuple[str, ...]:
    listed = problems.strings(origins, "allowed_origins")
    normal = {origin: "*" if origin == "*" else normal_origin(origin) for origin in listed}
    for origin, known in normal.items():
        if known is None:
            fix = "Write scheme://host[:port] without a path, or '*'."
            problems.add("allowed_origins", f"{show(origin)} is not an origin.", fix)
    return tuple(known for known in normal.values() if known is not None)


def _hosts(hosts: object, problems: Problems) -> tuple[tuple[str, int | None], ...]:
    parsed = {host: parse_authority(host) for host in problems.strings(hosts, "allowed_hosts")}
    for host, known in parsed.items():
        if known is None:
            problems.add("allowed_hosts", f"{show(host)} is not a host.", "Write host or host:port, without wildcards.")
    return tuple(known for known in parsed.values() if known is not None)


def _configs(given: object) -> list[object]:
    """One configuration or any iterable of them, as a list; empty for anything else."""
    if isinstance(given, ResourceServerConfig):
        return [given]
    several = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping))
    return list(cast("Iterable[object]", given)) if several else []


def _check_owners(urls: Sequence[tuple[str, Url]], public: Sequence[PathRule], problems: Problems) -> None:
    """No two resources may own one path, whatever their hosts: `Host` decides nothing (RFC 9728 section 7.3)."""
    table = PathTable(["/"], public)
    owners: dict[str, Url] = {}
    for where, url in urls:
        prefix = canonical_path(url.path or "/")
        if prefix in owners:
            fix = "Give each resource a path of its own, or protect them with two middlewares."
            problems.add(where, f"{url} owns the same path as {owners[prefix]}.", fix)
        owners[prefix] = url
        if table.judge("GET", prefix).public:
            problems.add("public_paths", f"They make the resource {url} itself public.", "Remove its path.")


def _check_rules(resources: Sequence[CompiledResource], problems: Problems) -> None:
    """A path rule has to lie below its own resource, or it never applies, or surprises."""
    table = PathTable([resource.owned_prefix for resource in resources])
    for index, resource in enumerate(resources):
        below = resource.owned_prefix.rstrip("/") + "/"
        for rule in resource.policy.rules:
            if table.judge("GET", rule.path).owner != index:
                fix = "Move the rule to the resource that owns the path."
                problems.add("policy.paths", f"{show(rule.path)} is not below {resource.identifier}.", fix)
            elif not (rule.path + "/").startswith(below):
                fix = f"Write {show(below + rule.path.lstrip('/'))}, if that is what you mean."
                problems.warn("policy.paths", f"{show(rule.path)} is not below {resource.identifier}.", fix)


def _documents(resources: Sequence[CompiledResource]) -> dict[bytes, Document]:
    """By raw path: each document with and without a trailing slash, and at the root place if there is only one."""
    documents: dict[bytes, Document] = {}
    for resource in resources:
        path = urlsplit(resource.metadata_url).path.encode("ascii").rstrip(b"/")
        documents |= {path: resource.document, path + b"/": resource.document}
    if len(resources) == 1:
        root = PROTECTED_RESOURCE.encode("ascii")
        documents |= {root: resources[0].document, root + b"/": resources[0].document}
    return documents


def compile_config(
    given: object,
    problems: Problems,
    *,
    public_paths: object,
    allowed_origins: object,
    allowed_hosts: object,
    metadata_signer: MetadataSigner | None,
    allow_http: bool,
    one_issuer: bool,
    loaded_modules: frozenset[str],
) -> CompiledConfig:
    """Compile and check a whole configuration: one `ResourceServerConfig`, or a sequence of them.

    Raises:
        ConfigurationError: With every problem found.
    """
    public = _public_paths(public_paths, problems)
    origins = _origins(allowed_origins, problems)
    hosts = _hosts(allowed_hosts, problems)
    configs = _configs(given)
    if not configs:
        fix = "Give at least one ResourceServerConfig."
        problems.add("protected_resources", "There is no protected resource.", fix)
    known: list[tuple[str, Url | None, ResourceServerConfig]] = []
    for index, config in enumerate(configs):
        where = f"protected_resources[{index}]"
        if not isinstance(config, ResourceServerConfig):
            fix = "Give ResourceServerConfig(metadata=ResourceServerMetadata(resource=…, authorization_servers=[…]))."
            problems.add(where, f"{show(config)} is not a ResourceServerConfig.", fix)
            continue
        url = resource_url(config.metadata.resource, f"{where}.metadata.resource", problems, allow_http=allow_http)
        known.append((where, url, config))
    urls = [(where, url) for where, url, _ in known if url is not None]
    _check_owners(urls, public, problems)
    on_origin = Counter(url.origin for _, url in urls)
    resources: list[CompiledResource] = []
    for where, url, config in known:
        around = ResourceContext(
            allowed_origins=origins,
            metadata_signer=metadata_signer,
            allow_http=allow_http,
            loaded_modules=loaded_modules,
            alone_on_origin=url is not None and on_origin[url.origin] == 1,
        )
        # Without a usable identifier the rest is still checked: every problem is to be reported at once.
        resource = compile_resource(config, url or PLACEHOLDER, where, problems, around)
        if resource is not None:
            resources.append(resource)
    _check_rules(resources, problems)
    issuers = {issuer.identifier for resource in resources for issuer in resource.trust.named}
    if one_issuer and len(issuers) > 1:
        fix = "Leave it off: a document can speak for one issuer only."
        problems.add("republish_server_metadata", "There is more than one issuer.", fix)
    problems.raise_if_any()
    return CompiledConfig(
        configs=tuple(config for _, _, config in known),
        resources=tuple(resources),
        documents=_documents(resources),
        republishes=one_issuer,
        hosts=HostCheck([url for _, url in urls], hosts),
        paths=PathTable(
            [resource.owned_prefix for resource in resources],
            public,
            [resource.policy.rules for resource in resources],
            [resource.policy.non_mcp_paths for resource in resources],
        ),
    )
