"""The values a user writes: issuers, resources, scope policies, and authorization server metadata.

The values hold what was written. `MCPAuth` checks and compiles them, and reports every problem at once. Names that the
documentation of the library mcpauth uses are the same here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from asgi_mcp_auth.errors import InvalidServerMetadata

if TYPE_CHECKING:
    from asgi_mcp_auth._keys.discovery import fetch_server_config, fetch_server_config_by_well_known_url

__all__ = (
    "DEFAULT_ALGORITHMS",
    "DEFAULT_SCOPE_CLAIMS",
    "DEFAULT_SUBJECT_CLAIMS",
    "AuthServerConfig",
    "AuthServerType",
    "AuthorizationServerMetadata",
    "IssuerResolver",
    "JWKSCacheSettings",
    "Profile",
    "ResourceServerConfig",
    "ResourceServerMetadata",
    "ScopePolicy",
    "ScopeRule",
    "ServerMetadataPaths",
    "TranspileData",
    "fetch_server_config",
    "fetch_server_config_by_well_known_url",
)

NEEDED_METADATA: Final = frozenset({"issuer", "jwks_uri"})
"""The members of authorization server metadata that decide which tokens are accepted."""

_STRINGS: Final = frozenset(
    {
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "registration_endpoint",
        "service_documentation",
        "op_policy_uri",
        "op_tos_uri",
        "revocation_endpoint",
        "introspection_endpoint",
        "userinfo_endpoint",
    }
)
_LISTS: Final = frozenset(
    {
        "scopes_supported",
        "response_types_supported",
        "response_modes_supported",
        "grant_types_supported",
        "token_endpoint_auth_methods_supported",
        "token_endpoint_auth_signing_alg_values_supported",
        "ui_locales_supported",
        "revocation_endpoint_auth_methods_supported",
        "revocation_endpoint_auth_signing_alg_values_supported",
        "introspection_endpoint_auth_methods_supported",
        "introspection_endpoint_auth_signing_alg_values_supported",
        "code_challenge_methods_supported",
        "protected_resources",
    }
)


class AuthorizationServerMetadata:
    """An authorization server's metadata (RFC 8414 section 2, OpenID Connect Discovery section 3).

    Only `issuer` is required. Every registered member is an attribute, which is None if the member is absent. `to_dict`
    returns unknown members too.

    Args:
        issuer: The issuer identifier, exactly as tokens carry it in `iss`.
        members: Other members of the document, such as `authorization_endpoint`, `token_endpoint`, `jwks_uri`,
            `registration_endpoint`, `response_types_supported`, `code_challenge_methods_supported`.

    Attributes:
        ignored_members: The names of published members that `from_dict` left out.

    Raises:
        InvalidServerMetadata: Registered members have the wrong JSON type; the message names them.
    """

    __slots__ = ("_members", "ignored_members")
    _members: dict[str, Any]
    ignored_members: tuple[str, ...]

    if TYPE_CHECKING:
        issuer: str
        authorization_endpoint: str | None
        token_endpoint: str | None
        jwks_uri: str | None
        registration_endpoint: str | None
        revocation_endpoint: str | None
        introspection_endpoint: str | None
        userinfo_endpoint: str | None
        service_documentation: str | None
        scopes_supported: list[str] | None
        response_types_supported: list[str] | None
        response_modes_supported: list[str] | None
        grant_types_supported: list[str] | None
        token_endpoint_auth_methods_supported: list[str] | None
        code_challenge_methods_supported: list[str] | None
        protected_resources: list[str] | None
        client_id_metadata_document_supported: bool | None

    def __init__(self, *, issuer: str, **members: Any) -> None:
        document = {"issuer": issuer, **members}
        self._fill(document, refused=_wrong_types(document))

    def _fill(self, document: Mapping[str, Any], refused: Iterable[str], ignored: Iterable[str] = ()) -> None:
        if names := ", ".join(sorted(refused)):
            msg = f"Authorization server metadata: wrong JSON type for {names}."
            raise InvalidServerMetadata(msg)
        ignored = tuple(sorted(ignored))
        kept = {str(name): value for name, value in document.items() if value is not None and name not in ignored}
        object.__setattr__(self, "_members", kept)
        object.__setattr__(self, "ignored_members", ignored)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, ignored: Iterable[str] = ()) -> AuthorizationServerMetadata:
        """Read a published metadata document.

        Verification needs only `issuer` and `jwks_uri`. Other members of the wrong JSON type are left out, because they
        must not stop the verification of tokens.

        Args:
            document: The document.
            ignored: Names of members that the caller has left out already.

        Raises:
            InvalidServerMetadata: `issuer` is missing, or `issuer` or `jwks_uri` has the wrong JSON type.
        """
        if "issuer" not in document:
            msg = "Authorization server metadata without an issuer."
            raise InvalidServerMetadata(msg)
        wrong = _wrong_types(document)
        metadata = cls.__new__(cls)
        # Not the constructor: a member may have the name `self`.
        metadata._fill(document, wrong & NEEDED_METADATA, {*ignored, *wrong})  # noqa: SLF001
        return metadata

    def to_dict(self) -> dict[str, Any]:
        """Return the members, unknown members included."""
        return dict(self._members)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if (
            name in self._members
            or name in _STRINGS
            or name in _LISTS
            or name == "client_id_metadata_document_supported"
        ):
            return self._members.get(name)
        msg = f"authorization server metadata has no member {name!r}"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: object) -> None:
        msg = "AuthorizationServerMetadata is immutable"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AuthorizationServerMetadata) and self._members == other._members

    def __hash__(self) -> int:
        return hash(self.issuer)

    def __repr__(self) -> str:
        return f"AuthorizationServerMetadata(issuer={self.issuer!r}, {len(self._members) - 1} more members)"


def _wrong_types(document: Mapping[str, Any]) -> set[str]:
    wrong = {name for name in _STRINGS if not isinstance(document.get(name), str | None)}
    wrong |= {name for name in _LISTS if document.get(name) is not None and not _is_string_list(document[name])}
    return wrong if isinstance(document["issuer"], str) else wrong | {"issuer"}


def _is_string_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in cast("Sequence[object]", value))


class AuthServerType(StrEnum):
    """Where an issuer's metadata is: RFC 8414 inserts the well-known path, OpenID Connect appends it."""

    OAUTH = "oauth"
    OIDC = "oidc"


class ServerMetadataPaths(StrEnum):
    """The well-known paths of authorization server metadata (RFC 8414 section 3, OpenID Connect Discovery 4)."""

    OAUTH = "/.well-known/oauth-authorization-server"
    OIDC = "/.well-known/openid-configuration"


Profile = Literal["jwt", "at+jwt", "no-aud"]
"""What a token has to look like: what most providers send, strict RFC 9068, or without an audience."""

DEFAULT_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),
    *("Ed25519", "Ed448", "EdDSA"),
)
"""Every algorithm that can be allowed: asymmetric only (RFC 8725 section 3.1)."""

MAX_LEEWAY: Final = 300.0
"""The largest `leeway` of an issuer, in seconds."""

DEFAULT_SCOPE_CLAIMS: Final = ("scope", "scp", "scopes")
DEFAULT_SUBJECT_CLAIMS: Final = ("sub",)

TranspileData = Callable[[dict[str, Any]], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Turns a provider's metadata document into one that conforms; sync or async."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JWKSCacheSettings:
    """Cache settings of an issuer's key set; all in seconds.

    Args:
        lifetime: How long a key set is fresh if its server states no lifetime (RFC 9111 section 4.2).
        min_lifetime, max_lifetime: The bounds of the lifetime that its server states.
        stale_if_error: How long an expired key set is still used while refreshing fails (RFC 5861 section 4); then
            requests get 503.
        max_backoff: The longest pause after failed fetches. The first pause is 1 s; each further failure doubles it.
    """

    lifetime: float = 600.0
    min_lifetime: float = 60.0
    max_lifetime: float = 86_400.0
    stale_if_error: float = 86_400.0
    max_backoff: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthServerConfig:
    """One trusted authorization server, and how its tokens differ from others'.

    Args:
        issuer: The issuer identifier, exactly as tokens carry it in `iss`. Optional with `metadata`, which names it.
            With `tenants` a template: `https://login.example.com/{tenantid}/v2.0`.
        issuer_pattern: Instead of `issuer`: trust every issuer that matches, `https://*.id.example.com` say, where
            `*` stands for one whole label of the host or one segment of the path. Not published to clients.
        preload: With `issuer_pattern`: issuers that match it and whose keys are fetched at start. They are served from
            the first request on, however many unknown issuers are tried meanwhile.
        tenants: The tenants to trust of a template. Each has its own issuer; they share the one key set found at
            `metadata_url` (whose document names the template as its issuer) or `jwks_uri`.
        tenant_claim: The claim that has to name the tenant in their tokens.
        token_issuers: The accepted values of `iss`, if tokens do not carry the issuer identifier: ADFS writes
            `http://fs.example.com/adfs/services/trust`. They may be any strings (RFC 7519 section 2), are compared
            exactly and never fetched. They replace `issuer` there: list it too if some tokens carry it.
        publish: Name the issuer to clients in the resource's metadata. With False, clients do not learn of the issuer,
            and its tokens are accepted. At least one issuer of a resource is published.
        type: Which well-known place to use; None probes all, in MCP's order.
        metadata: Metadata given by hand or fetched before; nothing is discovered then, unless it has no `jwks_uri`.
        metadata_url: Where the metadata is, instead of a well-known place.
        transpile_data: Applied to a fetched metadata document, sync or async; the issuer is compared after it.
        jwks_uri: Where the key set is; nothing is discovered then.
        jwks: A static key set, `{"keys": [...]}`; nothing is fetched then.
        profile: `"jwt"` (what most providers send), `"at+jwt"` (strict RFC 9068) or `"no-aud"` (tokens without
            `aud`; needs `allowed_clients` and a required scope that names the resource).
        extra_audiences: Accepted `aud` values in addition to the resource, compared exactly: the client id of an
            Entra ID application, for example.
        require_single_audience: Refuse tokens that have other audiences too (RFC 9700 section 2.3).
        algorithms: The accepted JWS algorithms.
        leeway: The allowed clock difference in seconds, at most 300.
        subject_claims: The claims that name the subject; the first that is present counts. `["sub", "client_id"]`
            accepts the tokens of machine clients without `sub`, and their `principal.is_client` is True.
        scope_claims: The claims that hold scopes, as a string, a list, or an object whose member names are the scopes.
            They replace the default. `realm_access.roles` is a member of a claim; write a backslash before a dot that
            belongs to a member's name. A claim that has the whole name wins.
        accept_nonce: Accept tokens that have a `nonce` and no scope claim: authentik issues such access tokens. Without
            this setting they are refused as ID tokens.
        allowed_clients: The accepted client ids; without a list, tokens of every client are accepted.
        max_keys_without_kid: How many keys to try for a token without `kid`, at most 4.
        jwks_cache: How long its key set is believed, and how often it is asked for.
    """

    issuer: str | None = None
    issuer_pattern: str | None = None
    preload: Sequence[str] = ()
    tenants: Sequence[str] = ()
    tenant_claim: str = "tid"
    token_issuers: Sequence[str] = ()
    publish: bool = True
    type: AuthServerType | None = None
    metadata: AuthorizationServerMetadata | None = None
    metadata_url: str | None = None
    transpile_data: TranspileData | None = None
    jwks_uri: str | None = None
    jwks: Mapping[str, Any] | None = None
    profile: Profile = "jwt"
    extra_audiences: Sequence[str] = ()
    require_single_audience: bool = False
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS
    leeway: float = 30.0
    subject_claims: Sequence[str] = DEFAULT_SUBJECT_CLAIMS
    scope_claims: Sequence[str] = DEFAULT_SCOPE_CLAIMS
    accept_nonce: bool = False
    allowed_clients: Sequence[str] = ()
    max_keys_without_kid: int = 1
    jwks_cache: JWKSCacheSettings = JWKSCacheSettings()


IssuerResolver = Callable[[str], AuthServerConfig | Awaitable[AuthServerConfig | None] | None]
"""From the `iss` of an unverified token to the configuration of a trusted issuer, or None; async, or sync and quick."""

Text = str | Mapping[str, str]
"""A human-readable value: one text, or texts by BCP 47 language tag with the default under `""`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceServerMetadata:
    """A protected resource's metadata (RFC 9728 section 2): what is published at its well-known place.

    Args:
        resource: The resource identifier: the URL clients use, and the `aud` tokens must carry.
        authorization_servers: Issuers to trust and to publish, in the order clients should try them; the first 100 are
            published. Beside them an `AuthServerConfig` with an `issuer_pattern`, or one function that is asked about
            issuers nobody named, and answers with an `AuthServerConfig` or None: for thousands of tenants.
        scopes_supported: Default: the required scopes. Keep it to the baseline: clients may ask for all of it.
        jwks_uri: This resource's own keys, for what it signs (`signed_metadata`); not the issuer's.
        bearer_methods_supported: Only `["header"]`, which is what is enforced.
        resource_name, resource_documentation, resource_policy_uri, resource_tos_uri: For people; a text or
            texts by language tag (RFC 9728 section 2.1).
        signed_metadata: A JWT you signed; its claims must equal the plain members. See also `metadata_signer`.
        extra: Members this library does not know, published as they are.
    """

    resource: str
    authorization_servers: Sequence[str | AuthServerConfig | IssuerResolver] = ()
    scopes_supported: Sequence[str] | None = None
    jwks_uri: str | None = None
    bearer_methods_supported: Sequence[str] | None = None
    resource_signing_alg_values_supported: Sequence[str] | None = None
    resource_name: Text | None = None
    resource_documentation: Text | None = None
    resource_policy_uri: Text | None = None
    resource_tos_uri: Text | None = None
    tls_client_certificate_bound_access_tokens: bool | None = None
    authorization_details_types_supported: Sequence[str] | None = None
    dpop_signing_alg_values_supported: Sequence[str] | None = None
    dpop_bound_access_tokens_required: bool | None = None
    signed_metadata: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRule:
    """What a rule asks for, where a list of scopes does not say it all.

    Args:
        scopes: Scopes beside the baseline.
        acr_values: Accepted authentication context classes (`acr`), in order of preference (RFC 9470).
        max_age: Seconds since the user authenticated (`auth_time`), at most; the issuer's leeway is added.
    """

    scopes: Sequence[str] = ()
    acr_values: Sequence[str] = ()
    max_age: int | None = None


Rules = Mapping[str, Sequence[str] | ScopeRule]
"""Rules by what they apply to: a list of scopes each, or a `ScopeRule` (in a file: a table of its fields)."""


def _no_rules() -> Rules:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopePolicy:
    """Which scopes a request needs: the baseline, and what the rules for its path and its operation add.

    An exact name wins over patterns, and of patterns (`*` for any characters) the pattern with more literal characters;
    two patterns that tie are a configuration error. Rules for operations read the bodies of POST requests as JSON-RPC.

    Args:
        default: The baseline: every request to the resource needs all of these.
        paths: More scopes by path: `"/x"` (exact), `"/x/*"` (`/x` and all below), `"POST /x/*"`. The most
            specific rule wins: the longest path, exact before `/*`, a named method before any.
        tools: More scopes by tool. A call of a fastmcp app's address (`__<hash>_<tool>`) needs the scopes of both
            names; if neither name is listed exactly, it needs the scopes of all rules.
        resources: More scopes by resource URI; URI templates are patterns too: `{name}` matches within a segment.
            Rules and requests are compared in canonical form; a URI that servers read in ways with different rules is
            refused. The rules of a URI and of the URI without query and fragment add up.
        prompts: More scopes by prompt.
        rpc_methods: More scopes by JSON-RPC method, in addition to those for the tool, resource or prompt.
        proxies: Tools that reach other targets: by tool, the argument that names a target and its kind (`"tool"`,
            `"resource"`, `"prompt"`): `{"call_tool": {"name": "tool"}}`, `{"bulk": {"calls[].tool": "tool"}}`. Such a
            call needs the scopes of its targets too, and is refused if it names none. Kind `"any"` is for a tool that
            reaches anything (it runs code, say): it needs the scopes of all rules, unless the tool itself is listed
            exactly. `"*_call_tool"` is for the tool below any namespace. fastmcp's own proxy tools are known while
            fastmcp is loaded; `{}` says that a tool of such a name is none.
        unlisted: What has no rule needs the `"baseline"`, or is denied (`"deny"`); `initialize`, `ping`, lists,
            notifications and the like need the baseline in either case.
        public_methods: JSON-RPC methods without a target that need no token. A bad token is 401 all the same.
        non_mcp_paths: Paths below the resource, written as in `paths`, whose bodies are not JSON-RPC and not read.
        headers_only: Decide by `Mcp-Method` and `Mcp-Name` alone and read no body. Only for an app that refuses
            bodies that contradict them, and only for MCP 2026-07-28: without that version it is a 400. A proxy tool
            needs the scopes of all rules then.
        allow_batches: Accept a batch also without the version header, which clients of 2025-03-26 do not send.
        scope_strategy: What a challenge names in addition to what is needed: `"minimal"` nothing, `"cumulative"` the
            known scopes that the token has, `"auto"` as the client's revision expects (cumulative before 2026-07-28).
        filter_lists: Take tools, resources and prompts that the caller may not use out of the app's lists.
        annotate_lists: What to add to the entries of filtered lists. `"required_scopes"`: keep entries that more
            scopes would open, with these scopes in `_meta`.
        implies: Scopes that include others, transitively: `{"notes:admin": ["notes:write"]}`.
        request_scope_names: Token scope → the name clients must request, where a provider has two (Entra: `api://…/x`).
        challenge_scopes: What a first 401 asks for; default: the baseline.
    """

    default: Sequence[str] = ()
    paths: Rules = field(default_factory=_no_rules)
    tools: Rules = field(default_factory=_no_rules)
    resources: Rules = field(default_factory=_no_rules)
    prompts: Rules = field(default_factory=_no_rules)
    rpc_methods: Rules = field(default_factory=_no_rules)
    proxies: Mapping[str, Mapping[str, Literal["tool", "resource", "prompt", "any"]]] = field(
        default_factory=dict[str, Mapping[str, Literal["tool", "resource", "prompt", "any"]]]
    )
    unlisted: Literal["baseline", "deny"] = "baseline"
    public_methods: Sequence[str] = ()
    non_mcp_paths: Sequence[str] = ()
    headers_only: bool = False
    allow_batches: bool = False
    scope_strategy: Literal["auto", "minimal", "cumulative"] = "auto"
    filter_lists: bool = False
    annotate_lists: Iterable[Literal["required_scopes"]] = ()
    implies: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    request_scope_names: Mapping[str, str] = field(default_factory=dict[str, str])
    challenge_scopes: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceServerConfig:
    """One protected resource: its metadata and its scope policy."""

    metadata: ResourceServerMetadata
    policy: ScopePolicy = field(default_factory=ScopePolicy)


def __getattr__(name: str) -> Any:
    """Mcpauth's documentation imports these two from here as well; they wait on the network, so they live elsewhere."""
    if name in ("fetch_server_config", "fetch_server_config_by_well_known_url"):
        from asgi_mcp_auth._keys import discovery  # noqa: PLC0415 - it is built on this module

        return getattr(discovery, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
