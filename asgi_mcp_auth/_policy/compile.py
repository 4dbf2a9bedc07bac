"""The compiler of a configuration: resources, their metadata documents, paths, hosts and origins.

The module is pure. Every problem is added to `Problems`; the result is usable only if there are none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast
from urllib.parse import urlsplit

from asgi_mcp_auth._oauth.origin import HostCheck, OriginCheck, is_field_name, normal_origin, parse_authority
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
from asgi_mcp_auth._policy.client_certificates import CertificateSource, compile_certificates
from asgi_mcp_auth._policy.exchange_settings import CompiledExchange, compile_exchanges
from asgi_mcp_auth._policy.issuers import MAX_PUBLISHED, IssuerSet, compile_issuer_set
from asgi_mcp_auth._policy.paths import PathRule, PathTable, canonical_path, is_canonical, parse_rule
from asgi_mcp_auth._policy.policy import CompiledPolicy, compile_policy
from asgi_mcp_auth._policy.problems import Problems, as_mapping, as_strings, show
from asgi_mcp_auth._policy.routes import Route, RouteTable
from asgi_mcp_auth._policy.rules import compile_scopes
from asgi_mcp_auth._policy.senders import CompiledSenders, compile_dpop
from asgi_mcp_auth._policy.token_transports import TokenTransports, compile_transports
from asgi_mcp_auth._policy.transmitters import CompiledTransmitter, compile_transmitters
from asgi_mcp_auth._policy.trusted_issuer import IssuerContext
from asgi_mcp_auth._policy.verifiers import CompiledChoice, check_verifier, compile_choice, key_field
from asgi_mcp_auth._request import FOR_MESSAGES, FOR_REQUESTS, reading_keys
from asgi_mcp_auth.config import Choose, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.errors import BadRequest

__all__ = (
    "CompiledConfig",
    "CompiledResource",
    "compile_config",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledResource:
    """One protected resource in the form that requests use."""

    identifier: str
    url: Url
    owned_prefix: str
    metadata_url: str
    document: Document
    origins: OriginCheck
    schemes: frozenset[bytes]
    senders: CompiledSenders
    challenge: ChallengeSource
    trust: IssuerSet
    policy: CompiledPolicy
    verifier: object
    """A `CompiledChoice`, a verifier of the user's own, or None for the verification of JWTs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """What compiling one resource needs of the whole configuration: the options, and parts that are compiled."""

    options: Mapping[str, object]
    origins: Sequence[str]
    cors_methods: Sequence[str]
    cors_headers: Sequence[str]
    certificates: CertificateSource | None
    allow_http: bool
    loaded_modules: frozenset[str]


def _resource_url(text: object, where: str, problems: Problems, *, allow_http: bool) -> Url | None:
    """Return a resource identifier as a URL; add a problem and return None if it is not usable.

    An identifier is an https URL, or http on loopback, without fragment (RFC 8707 section 2, RFC 9728 section 1.2).
    """
    url = parse_url(text) if isinstance(text, str) else None
    if url is None:
        fix = "Set it to the URL that clients use, for example 'https://mcp.example.com/mcp'."
        what = f"{show(text)} is not an absolute URL without user information." if text else "The URL is missing."
        problems.add(where, what, fix)
        return None
    if url.scheme != "https" and not (url.scheme == "http" and (allow_http or is_loopback(url.host))):
        problems.add(where, f"{show(text)} is not https.", ALLOW_HTTP)
        return None
    if url.query is not None or url.fragment is not None:
        fix = "Remove it: RFC 8707 section 2 forbids a fragment, and the official clients disagree about a query."
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
        problems.warn(where, f"{show(text)} is published as {show(str(url))}.", "Write the published form.")
    if url.path != "/" and url.path.endswith("/"):
        fix = "Remove the slash if possible: some clients drop it."
        problems.warn(where, f"{show(text)} ends with a slash.", fix)
    return url


def _check_members(metadata: ResourceServerMetadata, where: str, problems: Problems) -> None:
    """Add a problem for every member that has a wrong type or announces a mechanism that is not enforced."""
    for name in STRING_LISTS:
        value = getattr(metadata, name)
        if value is not None and as_strings(value) is None:
            problems.add(f"{where}.{name}", f"{show(value)} is not a list of strings.", "Pass a list of strings.")
    methods = metadata.bearer_methods_supported
    if methods is not None and as_strings(methods) not in (None, ["header"]):
        fix = "Remove it or set it to ['header']: a token in a body or a URI is never read."
        problems.add(f"{where}.bearer_methods_supported", f"{show(methods)} is not supported.", fix)
    for name in UNENFORCED:
        if getattr(metadata, name):
            what = f"{show(getattr(metadata, name))} would announce a mechanism that is not enforced."
            option = "dpop" if name.startswith("dpop") else "client_certificates"
            problems.add(f"{where}.{name}", what, f"Remove {name}. The option {option} enforces it and publishes this.")
    if "none" in (as_strings(metadata.resource_signing_alg_values_supported) or ()):
        fix = "List the algorithms that this resource signs with (RFC 9728 section 2)."
        problems.add(f"{where}.resource_signing_alg_values_supported", "'none' is not a signature algorithm.", fix)
    if metadata.jwks_uri is not None and not str(metadata.jwks_uri).startswith("https://"):
        problems.add(f"{where}.jwks_uri", f"{show(metadata.jwks_uri)} is not https.", "Serve the key set over https.")
    for name in LANGUAGE_MEMBERS:
        _check_text(getattr(metadata, name), f"{where}.{name}", problems)
    _check_extra(metadata, f"{where}.extra", problems)


def _check_text(value: object, where: str, problems: Problems) -> None:
    """Add a problem unless the value is a text, or texts by language tag with a default (RFC 9728 section 2.1)."""
    texts = as_mapping({"": value} if value is None or isinstance(value, str) else value) or {}
    is_text = all(text is None or isinstance(text, str) for text in texts.values())
    if not is_text or texts.get("", "") == "" or not all(is_language_tag(tag) for tag in texts if tag):
        fix = "Pass a string, or a mapping with the default under '' and each translation under its BCP 47 tag."
        problems.add(where, f"{show(value)} is neither a text nor texts by language tag.", fix)


def _check_extra(metadata: ResourceServerMetadata, where: str, problems: Problems) -> None:
    extra = problems.mapping(metadata.extra, where)
    if known := sorted(name for name in extra if name.partition("#")[0] in metadata.__slots__):
        problems.add(
            where,
            f"{', '.join(map(show, known))} must not be in `extra`.",
            f"Set the field {known[0].partition('#')[0]} instead.",
        )
    for name, value in extra.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            problems.add(where, f"The value of {show(name)} is not JSON.", "Pass values that JSON can represent.")


def _sign(
    members: dict[str, object],
    metadata: ResourceServerMetadata,
    signer: object,
    where: str,
    problems: Problems,
) -> dict[str, object]:
    """Return the members with `signed_metadata` (RFC 9728 section 2.2), made by the signer or set by the user."""
    signed: object = metadata.signed_metadata
    if callable(signer) and signed is None:
        try:
            signed = signer({"iss": members["resource"], **members})
        except Exception as error:  # noqa: BLE001 - user code; any exception is a configuration problem
            fix = "Pass a callable that takes the claims and returns a compact JWS."
            what = f"The signer raised {type(error).__name__}: {show(str(error))}."
            problems.add("metadata_signer", what, fix)
    if signed is None:
        return members
    if metadata.jwks_uri is None:
        fix = "Publish the signing key and set jwks_uri to its URL, so that clients can verify the signature."
        problems.add(f"{where}.jwks_uri", "signed_metadata is set without jwks_uri.", fix)
    if (why := check_signed_metadata(signed, members)) is not None:
        fix = "Sign exactly the published members and iss (RFC 9728 section 2.2)."
        problems.add(f"{where}.signed_metadata", f"The JWT {why}.", fix)
    return members | {"signed_metadata": signed}


def _compile_resource(
    config: ResourceServerConfig, url: Url, where: str, problems: Problems, context: _Context, *, alone_on_origin: bool
) -> CompiledResource | None:
    """Return one resource compiled; None if it has problems. The identifier has been checked before."""
    before = len(problems.found)
    metadata, identifier = config.metadata, str(url)
    _check_members(metadata, f"{where}.metadata", problems)
    policy = compile_policy(config.policy, f"{where}.policy", problems, context.loaded_modules)
    senders = _senders(config, identifier, where, problems, context)
    listed = policy.baseline.needed
    if metadata.scopes_supported is not None:
        at_scopes = f"{where}.metadata.scopes_supported"
        listed = compile_scopes(metadata.scopes_supported, at_scopes, problems, published=True)
    trust = compile_issuer_set(
        metadata.authorization_servers,
        IssuerContext(
            resource=url,
            allow_http=context.allow_http,
            own_scope_prefixes=(identifier.removesuffix("/") + "/", *([url.origin + "/"] if alone_on_origin else [])),
            required=policy.baseline.needed,
            confirmations=senders.methods,
        ),
        f"{where}.metadata.authorization_servers",
        problems,
    )
    verifier = _verifier(config, trust, where, problems, context)
    if senders.is_bearer_refused and isinstance(verifier, CompiledChoice) and verifier.keys and verifier.keys.prefix:
        fix = 'Send the keys in a field of their own: set prefix=None, or set dpop="allowed".'
        what = f"Keys that begin with {show(verifier.keys.prefix)} are bearer credentials, which dpop refuses."
        problems.warn(f"{where}.verifier.keys", what, fix)
    if len(problems.found) > before:
        return None
    members = build_members(
        metadata,
        resource=identifier,
        issuers=trust.published[:MAX_PUBLISHED],
        scopes=policy.hierarchy.require(listed).named,
        senders=senders.members,
    )
    members = _sign(members, metadata, context.options["metadata_signer"], f"{where}.metadata", problems)
    metadata_url = insert_well_known(url, PROTECTED_RESOURCE)
    key_header = key_field(verifier)
    cors_headers = [*context.cors_headers, *([] if key_header is None else [key_header])]
    return CompiledResource(
        identifier=identifier,
        url=url,
        owned_prefix=canonical_path(url.path or "/"),
        metadata_url=metadata_url,
        document=compile_document(members),
        origins=OriginCheck(url, context.origins, context.cors_methods, cors_headers),
        schemes=frozenset(scheme.key for scheme in senders.schemes),
        senders=senders,
        challenge=ChallengeSource(senders.schemes, metadata_url, policy.challenged.named),
        trust=trust,
        policy=policy,
        verifier=verifier,
    )


def _senders(
    config: ResourceServerConfig, resource: str, where: str, problems: Problems, context: _Context
) -> CompiledSenders:
    """Return what the resource requires of senders: its own settings, or those of the whole configuration."""
    wanted, certificates = config.client_certificates, context.certificates
    if wanted is False:
        certificates = None
    elif wanted is not None and (wanted is not True or certificates is None):
        what = "True needs a source of certificates." if wanted is True else f"{show(wanted)} is not a bool."
        fix = "Set the option client_certificates of MCPAuth to a source, or set False here."
        problems.add(f"{where}.client_certificates", what, fix)
    mode, at = (context.options["dpop"], "dpop") if config.dpop is None else (config.dpop, f"{where}.dpop")
    dpop = compile_dpop(
        mode=mode,
        settings=context.options["dpop_settings"],
        shared_secret=context.options["shared_secret"],
        resource=resource,
        where=at,
        problems=problems,
    )
    return CompiledSenders(dpop=dpop, certificates=certificates)


def _verifier(
    config: ResourceServerConfig, trust: IssuerSet, where: str, problems: Problems, context: _Context
) -> object:
    """Return the verifier of the resource's credentials: its own, or that of the whole configuration."""
    verifier, at = config.verifier, f"{where}.verifier"
    if verifier is None:
        verifier, at = context.options["verifier"], "verifier"
    if isinstance(verifier, Choose):
        return compile_choice(verifier, trust, at, problems, allow_http=context.allow_http)
    if config.verifier is not None:
        check_verifier(verifier, at, problems)
    return verifier


PLACEHOLDER = Url("https", "invalid", None, "", None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledConfig:
    """The compiled configuration: the tables in which requests are looked up."""

    configs: tuple[ResourceServerConfig, ...]
    resources: tuple[CompiledResource, ...]
    documents: Mapping[bytes, Document]
    hosts: HostCheck
    paths: PathTable
    republishes: bool
    transports: TokenTransports | None
    certificates: CertificateSource | None
    exchanges: tuple[CompiledExchange, ...]
    transmitters: tuple[CompiledTransmitter, ...]

    def routes(self, checks_messages: Sequence[bool], own_root_path: str) -> RouteTable:
        """Return the route table.

        Args:
            checks_messages: For each resource, whether more than the path decides about requests for MCP paths.
            own_root_path: The path prefix that the app itself adds; see `RouteTable`.
        """
        protected: dict[tuple[int, int | None, bool], Route] = {}
        for index, (resource, looks_inside) in enumerate(zip(self.resources, checks_messages, strict=True)):
            policy, header = resource.policy, key_field(resource.verifier)
            for is_mcp in (True, False):
                reads = FOR_MESSAGES if is_mcp and looks_inside else FOR_REQUESTS
                baseline = Route(
                    resource=index,
                    requirement=policy.baseline,
                    checks_message=is_mcp and looks_inside,
                    reads=reads if header is None else reading_keys(reads, header),
                )
                protected[index, None, is_mcp] = baseline
                for at, (rule, requirement) in enumerate(zip(policy.rules, policy.requirements, strict=True)):
                    protected[index, at, is_mcp] = replace(baseline, requirement=requirement, template=str(rule))
        return RouteTable(
            self.paths, self.documents, protected, republishes=self.republishes, own_root_path=own_root_path
        )


def _names(source: TokenTransports | CertificateSource | None) -> frozenset[bytes]:
    return frozenset() if source is None or source.field is None else source.field.names


def _check_fields(
    resources: list[CompiledResource],
    transports: TokenTransports | None,
    certificates: CertificateSource | None,
    problems: Problems,
) -> None:
    """Check that no field carries two of API keys, access tokens and certificates."""
    fields = _names(transports)
    keys = {key_field(resource.verifier) or "" for resource in resources}
    for name in sorted(name for name in keys if name.encode("ascii") in fields):
        problems.add(
            "trusted_token_header.name", f"{show(name)} carries API keys.", "Use another field for one of them."
        )
    taken = fields.union(name.encode("ascii") for name in keys)
    if both := sorted(_names(certificates) & taken):
        what = f"{show(both[0].decode('ascii'))} carries API keys or access tokens."
        problems.add("client_certificates.header", what, "Use another field for one of them.")


def _public_paths(paths: object, problems: Problems) -> tuple[PathRule, ...]:
    rules: list[PathRule] = []
    for path in problems.strings(paths, "public_paths"):
        rule = parse_rule(path)
        if rule is None or rule.method is not None:
            fix = "Write '/path' or '/path/*', without percent-encoding, trailing slash or method."
            problems.add("public_paths", f"{show(path)} is not a path.", fix)
        elif rule.path == "/" and rule.below:
            problems.add("public_paths", "'/*' would make every path public.", "List the public paths.")
        else:
            rules.append(rule)
    return tuple(rules)


def _origin(text: str) -> str | None:
    return "*" if text == "*" else normal_origin(text)


def _token(text: str) -> str | None:
    return text if is_field_name(text) else None


def _configs(given: object) -> list[object]:
    """Return one configuration, or an iterable of configurations, as a list; an empty list for any other value."""
    if isinstance(given, ResourceServerConfig):
        return [given]
    several = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping))
    return list(cast("Iterable[object]", given)) if several else []


def _check_owners(urls: Sequence[tuple[str, Url]], public: Sequence[PathRule], problems: Problems) -> None:
    """Add a problem if two resources own the same path, even with different hosts, or if a resource is public.

    `Host` is attacker-controlled and must not select the resource (RFC 9728 section 7.3).
    """
    table = PathTable(["/"], public)
    owners: dict[str, Url] = {}
    for where, url in urls:
        prefix = canonical_path(url.path or "/")
        if prefix in owners:
            fix = "Use a different path for each resource, or protect them with two middlewares."
            problems.add(where, f"{url} has the same path as {owners[prefix]}.", fix)
        owners[prefix] = url
        if table.resolve("GET", prefix).public:
            what = f"The resource {url} itself would be public."
            problems.add("public_paths", what, f"Remove the entry that matches {show(prefix)}.")


def _check_rules(resources: Sequence[CompiledResource], problems: Problems) -> None:
    """Check that every path rule is below its own resource.

    A rule below another resource never applies: a problem. A rule below no resource may be a mistake: a warning.
    """
    table = PathTable([resource.owned_prefix for resource in resources])
    for index, resource in enumerate(resources):
        below = resource.owned_prefix.rstrip("/") + "/"
        for rule in resource.policy.rules:
            if table.resolve("GET", rule.path).owner != index:
                fix = "Move the rule to the resource that owns the path."
                problems.add("policy.paths", f"{show(rule.path)} is not a path of {resource.identifier}.", fix)
            elif not (rule.path + "/").startswith(below):
                fix = f"Write {show(below + rule.path.lstrip('/'))} if the rule is for that path."
                problems.warn("policy.paths", f"{show(rule.path)} is not below {resource.identifier}.", fix)


def _documents(resources: Sequence[CompiledResource]) -> dict[bytes, Document]:
    """Return the metadata documents by raw path, with and without a trailing slash.

    The document of a single resource is also at the root well-known path.
    """
    documents: dict[bytes, Document] = {}
    for resource in resources:
        path = urlsplit(resource.metadata_url).path.encode("ascii").rstrip(b"/")
        documents |= {path: resource.document, path + b"/": resource.document}
    if len(resources) == 1:
        root = PROTECTED_RESOURCE.encode("ascii")
        documents |= {root: resources[0].document, root + b"/": resources[0].document}
    return documents


def compile_config(
    given: object, options: Mapping[str, object], problems: Problems, *, loaded_modules: frozenset[str]
) -> CompiledConfig:
    """Return a whole configuration compiled.

    Args:
        given: One `ResourceServerConfig`, or several.
        options: The options of `MCPAuth`, complete.
        problems: Receives every problem.
        loaded_modules: Which of `_compat.servers.MODULES` are loaded.

    Raises:
        ConfigurationError: The configuration has problems; the exception lists all of them.
    """
    allow_http = bool(options["dangerously_allow_http"])
    republishes = bool(options["republish_server_metadata"])
    public = _public_paths(options["public_paths"], problems)
    fix = "Write scheme://host[:port] without a path, or '*' for any origin."
    origins = problems.parsed(options["allowed_origins"], "allowed_origins", _origin, "an origin", fix)
    fix = "Write host or host:port, without wildcards."
    hosts = problems.parsed(options["allowed_hosts"], "allowed_hosts", parse_authority, "a host", fix)
    transports = compile_transports(options["trusted_token_header"], options["websocket_subprotocol_tokens"], problems)
    certificates = compile_certificates(options["client_certificates"], problems)
    token = "a token (RFC 9110 section 5.6.2)"
    methods = problems.parsed(options["cors_methods"], "cors_methods", _token, token, "Write 'PATCH', or '*'.")
    headers = problems.parsed(options["cors_headers"], "cors_headers", _token, token, "Write 'x-tenant-id', or '*'.")
    context = _Context(
        options=options,
        origins=origins,
        cors_methods=[method.upper() for method in methods],
        cors_headers=[name.lower() for name in headers],
        certificates=certificates,
        allow_http=allow_http,
        loaded_modules=loaded_modules,
    )
    configs = _configs(given)
    if not configs:
        fix = "Pass at least one ResourceServerConfig."
        problems.add("protected_resources", "There is no protected resource.", fix)
    known: list[tuple[str, Url | None, ResourceServerConfig]] = []
    for index, config in enumerate(configs):
        where = f"protected_resources[{index}]"
        if not isinstance(config, ResourceServerConfig):
            fix = "Pass ResourceServerConfig(metadata=ResourceServerMetadata(resource=…, authorization_servers=[…]))."
            problems.add(where, f"{show(config)} is not a ResourceServerConfig.", fix)
            continue
        url = _resource_url(config.metadata.resource, f"{where}.metadata.resource", problems, allow_http=allow_http)
        known.append((where, url, config))
    urls = [(where, url) for where, url, _ in known if url is not None]
    _check_owners(urls, public, problems)
    on_origin = Counter(url.origin for _, url in urls)
    resources: list[CompiledResource] = []
    for where, url, config in known:
        alone = url is not None and on_origin[url.origin] == 1
        # A resource without a usable identifier is checked too, so that all problems are reported at once.
        resource = _compile_resource(config, url or PLACEHOLDER, where, problems, context, alone_on_origin=alone)
        if resource is not None:
            resources.append(resource)
    _check_rules(resources, problems)
    _check_fields(resources, transports, certificates, problems)
    issuers = {issuer.identifier for resource in resources for issuer in resource.trust.named}
    if republishes and len(issuers) > 1:
        fix = "Set republish_server_metadata=False, or configure a single issuer: its metadata names one issuer only."
        problems.add("republish_server_metadata", f"There are {len(issuers)} issuers.", fix)
    trusted = [issuer for resource in resources for issuer in resource.trust.named]
    exchanges = compile_exchanges(options["token_exchange"], trusted, problems, allow_http=allow_http)
    first = resources[0].url if resources else None
    trusts = [resource.trust for resource in resources]
    transmitters = compile_transmitters(options["event_transmitters"], trusts, first, problems, allow_http=allow_http)
    problems.raise_if_any()
    return CompiledConfig(
        exchanges=exchanges,
        transmitters=transmitters,
        configs=tuple(config for _, _, config in known),
        resources=tuple(resources),
        documents=_documents(resources),
        republishes=republishes,
        transports=transports,
        certificates=None if certificates is None or certificates.field is None else certificates,
        hosts=HostCheck([url for _, url in urls], hosts),
        paths=PathTable(
            [resource.owned_prefix for resource in resources],
            public,
            [resource.policy.rules for resource in resources],
            [resource.policy.non_mcp_paths for resource in resources],
        ),
    )
