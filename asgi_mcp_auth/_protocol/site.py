"""Compiling the whole configuration: resources beside each other, their metadata places, paths, hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import cast
from urllib.parse import urlsplit

from asgi_mcp_auth._protocol.cross_origin import HostCheck, normal_origin, parse_authority
from asgi_mcp_auth._protocol.metadata import Document
from asgi_mcp_auth._protocol.path_forms import PathRule, canonical_path, parse_rule
from asgi_mcp_auth._protocol.paths import PathTable
from asgi_mcp_auth._protocol.problems import Problems, show
from asgi_mcp_auth._protocol.resource import (
    CompiledResource,
    MetadataSigner,
    Surroundings,
    compile_resource,
    resource_url,
)
from asgi_mcp_auth._protocol.urls import PROTECTED_RESOURCE, Url
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.config import ResourceServerConfig

__all__ = ("Site", "compile_site", "is_well_known")

WELL_KNOWN = "/.well-known/"
PLACEHOLDER = Url("https", "invalid", None, "", None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything a request is looked up in."""

    configs: tuple[ResourceServerConfig, ...]
    resources: tuple[CompiledResource, ...]
    documents: Mapping[bytes, Document]
    hosts: HostCheck
    paths: PathTable


def is_well_known(path: str, root_path: str = "") -> bool:
    """A well-known path: ours or nobody's, unless it is public; clients probe them and need a clean 404."""
    return path.startswith(WELL_KNOWN) or (root_path != "" and path.startswith(root_path.rstrip("/") + WELL_KNOWN))


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


def compile_site(
    given: object,
    problems: Problems,
    *,
    public_paths: object,
    allowed_origins: object,
    allowed_hosts: object,
    metadata_signer: MetadataSigner | None,
    allow_http: bool,
    one_issuer: bool,
    new_issuers_per_minute: int,
) -> Site:
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
        around = Surroundings(
            allowed_origins=origins,
            metadata_signer=metadata_signer,
            allow_http=allow_http,
            new_issuers_per_minute=new_issuers_per_minute,
            alone_on_origin=url is not None and on_origin[url.origin] == 1,
        )
        # Without a usable identifier the rest is still checked: every problem is to be reported at once.
        resource = compile_resource(config, url or PLACEHOLDER, where, problems, around)
        if resource is not None:
            resources.append(resource)
    _check_rules(resources, problems)
    issuers = {issuer.rules.issuer for resource in resources for issuer in resource.trust.named}
    if one_issuer and len(issuers) > 1:
        fix = "Leave it off: a document can speak for one issuer only."
        problems.add("republish_server_metadata", "There is more than one issuer.", fix)
    problems.raise_if_any()
    return Site(
        configs=tuple(config for _, _, config in known),
        resources=tuple(resources),
        documents=_documents(resources),
        hosts=HostCheck([url for _, url in urls], hosts),
        paths=PathTable(
            [resource.owned_prefix for resource in resources],
            public,
            [resource.policy.rules for resource in resources],
            [resource.policy.plain_paths for resource in resources],
        ),
    )
