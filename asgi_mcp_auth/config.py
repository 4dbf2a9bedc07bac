"""The values of a configuration: issuers, resources, scope policies, and authorization server metadata.

The values are not checked when they are made. `MCPAuth` checks and compiles them, and reports all problems at once.
The names that the documentation of the library `mcpauth` uses have the same meaning here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from asgi_mcp_auth._credential_settings import (
    DEFAULT_ALGORITHMS,
    DPOP_MODES,
    ApiKeys,
    AssertionAudience,
    Choose,
    ClientCertificates,
    DPoPMode,
    DPoPSettings,
    EventTransmitter,
    Introspection,
    IntrospectionMethod,
    TokenExchange,
    TrustedTokenHeader,
)
from asgi_mcp_auth.errors import InvalidServerMetadata

if TYPE_CHECKING:
    from asgi_mcp_auth._keys.discovery import fetch_server_config, fetch_server_config_by_well_known_url

__all__ = (
    "DEFAULT_ALGORITHMS",
    "DEFAULT_SCOPE_CLAIMS",
    "DEFAULT_SUBJECT_CLAIMS",
    "DPOP_MODES",
    "ApiKeys",
    "AssertionAudience",
    "AuthServerConfig",
    "AuthServerType",
    "AuthorizationServerMetadata",
    "Choose",
    "ClientCertificates",
    "DPoPMode",
    "DPoPSettings",
    "EventTransmitter",
    "Introspection",
    "IntrospectionMethod",
    "IssuerResolver",
    "JWKSCacheSettings",
    "Profile",
    "ResourceServerConfig",
    "ResourceServerMetadata",
    "ScopePolicy",
    "ScopeRule",
    "ServerMetadataPaths",
    "TokenExchange",
    "TranspileData",
    "TrustedTokenHeader",
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
    """An authorization server's metadata document (RFC 8414 section 2, OpenID Connect Discovery section 3).

    Every registered member is an attribute: a string, a list of strings or a boolean, and None if it is absent.
    `to_dict` returns all members, unknown ones included. A value is immutable.

    Args:
        issuer: The issuer identifier, a URL, exactly as tokens contain it in `iss`. Required.
        members: Any other members of the document, for example `authorization_endpoint`, `token_endpoint`,
            `jwks_uri`, `registration_endpoint`, `response_types_supported`, `code_challenge_methods_supported`.

    Attributes:
        ignored_members: The names of published members that `from_dict` left out.

    Raises:
        InvalidServerMetadata: Registered members have wrong JSON types; the message names them.
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
            raise InvalidServerMetadata(f"The authorization server metadata has wrong JSON types for {names}.")
        ignored = tuple(sorted(ignored))
        kept = {str(name): value for name, value in document.items() if value is not None and name not in ignored}
        object.__setattr__(self, "_members", kept)
        object.__setattr__(self, "ignored_members", ignored)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, ignored: Iterable[str] = ()) -> AuthorizationServerMetadata:
        """Return a published metadata document as a value.

        Verification needs only `issuer` and `jwks_uri`. Other members of the wrong JSON type are left out, because they
        must not stop the verification of tokens.

        Args:
            document: The document.
            ignored: Names of members that the caller has left out already.

        Raises:
            InvalidServerMetadata: `issuer` is missing, or `issuer` or `jwks_uri` has the wrong JSON type.
        """
        if "issuer" not in document:
            raise InvalidServerMetadata("The authorization server metadata has no issuer.")
        wrong = _wrong_types(document)
        metadata = cls.__new__(cls)
        # Not the constructor: a member may have the name `self`.
        metadata._fill(document, wrong & NEEDED_METADATA, {*ignored, *wrong})  # noqa: SLF001
        return metadata

    def to_dict(self) -> dict[str, Any]:
        """Return the members as a dict, unknown ones included."""
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
        raise AttributeError(f"authorization server metadata has no member {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("AuthorizationServerMetadata is immutable")

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
    """The well-known URL of an issuer's metadata.

    `OAUTH` inserts the well-known path before the issuer's path (RFC 8414 section 3). `OIDC` appends it to the
    issuer's path (OpenID Connect Discovery section 4).
    """

    OAUTH = "oauth"
    OIDC = "oidc"


class ServerMetadataPaths(StrEnum):
    """The well-known paths of authorization server metadata (RFC 8414 section 3, OpenID Connect Discovery 4)."""

    OAUTH = "/.well-known/oauth-authorization-server"
    OIDC = "/.well-known/openid-configuration"


Profile = Literal["jwt", "at+jwt", "no-aud"]
"""The required form of a token.

`jwt`: the JWTs of most providers. `at+jwt`: RFC 9068, with `typ: at+jwt` and all required claims. `no-aud`: a JWT
without `aud`.
"""


MAX_LEEWAY: Final = 300.0
"""The largest `leeway` of an issuer, in seconds."""

DEFAULT_SCOPE_CLAIMS: Final = ("scope", "scp", "scopes")
"""The claims that contain scopes: RFC 9068 section 2.2.3, Microsoft Entra ID and Okta, and other providers."""
DEFAULT_SUBJECT_CLAIMS: Final = ("sub",)
"""The claims that contain the subject (RFC 9068 section 2.2)."""

TranspileData = Callable[[dict[str, Any]], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""A sync or async function that takes a fetched metadata document and returns one that conforms to RFC 8414."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JWKSCacheSettings:
    """Cache settings of an issuer's key set; all values are in seconds.

    Args:
        lifetime: How long a key set is fresh if its server states no lifetime (RFC 9111 section 4.2). Default: 600.
        min_lifetime: The lower bound of the lifetime that the server states. Default: 60.
        max_lifetime: The upper bound of the lifetime that the server states. Default: 86,400 (one day).
        stale_if_error: How long an expired key set is still used while refreshing fails (RFC 5861 section 4); then
            requests get 503. Default: 86,400 (one day).
        max_backoff: The longest pause after failed fetches. The first pause is 1 s; each further failure doubles it.
            Default: 30.
    """

    lifetime: float = 600.0
    min_lifetime: float = 60.0
    max_lifetime: float = 86_400.0
    stale_if_error: float = 86_400.0
    max_backoff: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthServerConfig:
    """One trusted authorization server, and the form of its tokens.

    Args:
        issuer: The issuer identifier, a URL, exactly as tokens contain it in `iss` (RFC 8414 section 2). Optional with
            `metadata`, which contains it. With `tenants` a template: `https://login.example.com/{tenantid}/v2.0`.
            Default: None.
        issuer_pattern: Instead of `issuer`: a pattern, for example `https://*.id.example.com`. Every issuer that
            matches is trusted and none is published to clients. `*` matches one whole label of the host or one whole
            segment of the path. Default: None.
        preload: With `issuer_pattern`: matching issuers whose keys are fetched at start, a list of URLs. Their tokens
            are accepted from the first request on, even while many unknown issuers are tried. Default: empty.
        tenants: The trusted tenants of a template, a list of ids without `/`. Each tenant has its own issuer; all share
            the key set found at `metadata_url` (whose document names the template as its issuer) or `jwks_uri`.
            Default: empty.
        tenant_claim: The name of the claim that must contain the tenant. Default: `"tid"` (Microsoft Entra ID).
        token_issuers: The accepted values of `iss`, a list of strings, if tokens do not contain the issuer identifier:
            ADFS writes `http://fs.example.com/adfs/services/trust`. Any strings are allowed (RFC 7519 section 2). They
            are compared exactly and never fetched. They replace `issuer` in the check of `iss`: list `issuer` too if
            some tokens contain it. Default: empty, for `issuer`.
        publish: Whether the resource's metadata names the issuer to clients. Its tokens are accepted in either case. At
            least one issuer of a resource must be published. Default: True.
        type: The well-known URL of the metadata, an `AuthServerType` (in a file: `"oauth"` or `"oidc"`). Default:
            None, which tries every URL in the order of the MCP specification.
        metadata: The metadata, written by hand or fetched before. There is no discovery then, unless it has no
            `jwks_uri`. Default: None.
        metadata_url: The URL of the metadata document, if it is not a well-known URL of the issuer. Default: None.
        transpile_data: A sync or async function that corrects a fetched metadata document. The issuer is compared
            with its result. Default: None.
        jwks_uri: The URL of the key set (RFC 8414 section 2). There is no discovery then. Default: None.
        jwks: A static key set, `{"keys": [...]}` (RFC 7517 section 5). Nothing is fetched then. Default: None.
        profile: The required form of a token: `"jwt"` (most providers), `"at+jwt"` (RFC 9068), or `"no-aud"` (tokens
            without `aud`; needs `allowed_clients` and a required scope that names the resource). Default: `"jwt"`.
        extra_audiences: Accepted `aud` values in addition to the resource, a list of strings, compared exactly: the
            client id of an Entra ID application, for example. Default: empty.
        require_single_audience: Whether to reject tokens with more than one audience (RFC 9700 section 2.3).
            Default: False.
        algorithms: The accepted JWS algorithms, a list of names from `DEFAULT_ALGORITHMS` (RFC 8725 section 3.1), or
            `"ML-DSA-44"`, `"ML-DSA-65"`, `"ML-DSA-87"` (RFC 9964). Default: `DEFAULT_ALGORITHMS`.
        leeway: The allowed clock difference in seconds, from 0 to 300 (RFC 7519 section 4.1.4). Default: 30.
        subject_claims: The claims that contain the subject, a list of names; the first that is present counts.
            `["sub", "client_id"]` accepts the tokens of machine clients without `sub`, and their `principal.is_client`
            is True. Default: `sub`.
        scope_claims: The claims that contain scopes, a list of names. A claim is a string, a list, or an object whose
            member names are the scopes. `realm_access.roles` is a member of a claim; write a backslash before a dot
            that belongs to a member's name. A claim that has the whole name wins. Default: `scope`, `scp` and `scopes`.
        accept_nonce: Whether to accept tokens that have a `nonce` and no scope claim, as authentik issues them. They
            are rejected as ID tokens otherwise. Default: False.
        allowed_clients: The accepted client ids, a list of strings. Default: empty, which accepts all clients.
        max_keys_without_kid: How many keys are tried for a token without `kid`, from 1 to 4. Default: 1.
        jwks_cache: The cache settings of the key set, a `JWKSCacheSettings` (in a file: a table of its fields).
            Default: `JWKSCacheSettings()`.
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
"""A function that takes the unverified `iss` of a token and returns the configuration of a trusted issuer, or None.

It is async, or sync if it does not block. The `iss` is attacker-controlled.
"""

Text = str | Mapping[str, str]
"""A text for people: a string, or strings by BCP 47 language tag with the default under `""` (RFC 9728 section 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceServerMetadata:
    """A protected resource's metadata document (RFC 9728 section 2), published at its well-known URL.

    Args:
        resource: The resource identifier: the URL that clients use, and the `aud` that tokens must contain. Required.
        authorization_servers: The issuers to trust and to publish, a list of URLs and `AuthServerConfig`, in the order
            in which clients should try them; the first 100 are published. The list may also contain an
            `AuthServerConfig` with an `issuer_pattern`, and one function that takes an issuer which the list does not
            name and returns an `AuthServerConfig` or None. At least one issuer is required.
        scopes_supported: The published scopes, a list of strings. Clients may request all of them, so list the baseline
            only. Default: None, which publishes the required scopes.
        jwks_uri: The URL of the resource's own keys, with which it signs `signed_metadata`; not the issuer's keys.
            Default: None.
        bearer_methods_supported: The ways to send a token. Only `["header"]` is allowed. Default: `["header"]`.
        resource_signing_alg_values_supported: The JWS algorithms of the resource's signed responses, a list of names.
            Default: None.
        resource_name: The name of the resource, a text or texts by language tag. Default: None.
        resource_documentation: The URL of the developer documentation, a text or texts by language tag. Default: None.
        resource_policy_uri: The URL of the policy for clients, a text or texts by language tag. Default: None.
        resource_tos_uri: The URL of the terms of service, a text or texts by language tag. Default: None.
        tls_client_certificate_bound_access_tokens: Set by `client_certificates`: a value other than False is a problem
            here. Default: None.
        authorization_details_types_supported: The supported `authorization_details` types (RFC 9396), a list of
            strings. Default: None.
        dpop_signing_alg_values_supported: Set by `dpop`: a list with values is a problem here. Default: None.
        dpop_bound_access_tokens_required: Set by `dpop`: a value other than False is a problem here. Default: None.
        signed_metadata: A JWT that contains exactly the other members (RFC 9728 section 2.2); the option
            `metadata_signer` makes it from the members. Default: None.
        extra: Members that this library does not know, by name; published unchanged. Default: empty.
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
    """The requirements of a rule: scopes and the user's authentication (RFC 9470).

    Args:
        scopes: The scopes in addition to the baseline, a list of strings. Default: empty.
        any_of: Lists of scopes of which the token needs one, in addition to `scopes`. Challenges name the first list.
            Default: empty.
        acr_values: The accepted values of the claim `acr`, a list in order of preference. Default: empty, for any.
        max_age: The largest age of the authentication (`auth_time`) in seconds; the issuer's leeway is added. Default:
            None, for any.
    """

    scopes: Sequence[str] = ()
    any_of: Sequence[Sequence[str]] = ()
    acr_values: Sequence[str] = ()
    max_age: int | None = None


Rules = Mapping[str, Sequence[str] | ScopeRule]
"""Rules by their targets; each is a list of scopes or a `ScopeRule` (in a file: a table of its fields)."""


def _no_rules() -> Rules:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopePolicy:
    """The scopes that requests need: the baseline, and the rules for paths and operations.

    An exact name wins over patterns, and of patterns (`*` for any characters) the pattern with more literal characters;
    two patterns that tie are a configuration error. Rules for operations read the bodies of POST requests as JSON-RPC.

    Args:
        default: The baseline: the scopes that every request to the resource needs, a list of strings. Default: empty.
        paths: More scopes by path: `"/x"` (exact), `"/x/*"` (`/x` and all paths below it), `"POST /x/*"`. The most
            specific rule wins: the longest path, exact before `/*`, a named method before any. Default: empty.
        tools: More scopes by tool. A call of a fastmcp app's address (`__<hash>_<tool>`) needs the scopes of both
            names; if neither name is listed exactly, it needs the scopes of all rules. Default: empty.
        resources: More scopes by resource URI. URI templates are patterns too: `{name}` matches within a segment.
            Rules and requests are compared in canonical form. A URI that servers read in several ways with different
            rules is rejected. The rules of a URI and of the URI without query and fragment add up. Default: empty.
        prompts: More scopes by prompt. Default: empty.
        rpc_methods: More scopes by JSON-RPC method, in addition to those for the tool, resource or prompt.
            Default: empty.
        proxies: Tools that reach other targets: by tool, the argument that names a target and its kind (`"tool"`,
            `"resource"`, `"prompt"`): `{"call_tool": {"name": "tool"}}`, `{"bulk": {"calls[].tool": "tool"}}`. A call
            needs the scopes of its targets too, and is rejected if it names no target. Kind `"any"` is for a tool that
            can reach every target, for example because it runs code: it needs the scopes of all rules, unless the tool
            itself is listed exactly. `"*_call_tool"` means the tool below any namespace. The proxy tools of fastmcp
            are known while fastmcp is loaded; `{}` means that a tool with such a name is not a proxy. Default: empty.
        unlisted: What an operation without a rule needs: `"baseline"`, or nothing suffices (`"deny"`). `initialize`,
            `ping`, lists and notifications need the baseline in either case. Default: `"baseline"`.
        public_tools: The tools that need no token, a list of names and patterns as in `tools`. A rule that is more
            specific than the entry here keeps the tool protected. A token that is present is verified, and has to meet
            the tool's own rule. Calls through proxy tools need every target to be public. With any public tool,
            resource or prompt, `initialize`, `notifications/initialized`, `server/discover`, `ping` and the lists are
            public too. Default: empty.
        public_resources: The resources that need no token, a list of URIs, patterns and templates as in `resources`.
            Default: empty.
        public_prompts: The prompts that need no token, a list of names and patterns as in `prompts`. Default: empty.
        public_methods: More JSON-RPC methods without a target that need no token, a list of names. Default: empty.
        challenge_style: How a `tools/call` without a token, or with too few scopes, is answered: with an HTTP status
            (`"http"`), with a tool result that contains the challenge (`"tool_result"`, OpenAI Apps SDK), or as the
            User-Agent of the client expects (`"auto"`: a tool result for ChatGPT). Default: `"http"`.
        non_mcp_paths: The paths below the resource whose bodies are not JSON-RPC and are not read, a list written as in
            `paths`. Default: empty.
        headers_only: Whether to decide by `Mcp-Method` and `Mcp-Name` alone and read no body. Only for an app that
            rejects bodies that contradict them, and only for MCP 2026-07-28: a request without that version is
            answered 400. A proxy tool needs the scopes of all rules then. Default: False.
        allow_batches: Whether to accept a batch without the version header, which clients of MCP 2025-03-26 do not
            send. Default: False.
        scope_strategy: What a challenge names in addition to the required scopes: nothing (`"minimal"`), the known
            scopes of the token (`"cumulative"`), or what the client's protocol revision expects (`"auto"`: cumulative
            before 2026-07-28). Default: `"auto"`.
        filter_lists: Whether to remove tools, resources and prompts that the caller may not use from the app's lists.
            Default: False.
        annotate_lists: What to add to the entries of lists, a list. `"required_scopes"` keeps entries of filtered lists
            that more scopes would allow, with these scopes in `_meta`. `"security_schemes"` adds `securitySchemes` to
            tools, also in `_meta` (OpenAI Apps SDK, SEP-1488). Default: empty.
        implies: The scopes that include others, transitively: `{"notes:admin": ["notes:write"]}`. Default: empty.
        request_scope_names: The name that clients must request, by scope, if the provider has two names for a scope
            (Microsoft Entra ID: `api://…/x`). Default: empty.
        challenge_scopes: The scopes that the challenge of a 401 names, a list of strings (RFC 6750 section 3).
            Default: None, for the baseline.
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
    public_tools: Sequence[str] = ()
    public_resources: Sequence[str] = ()
    public_prompts: Sequence[str] = ()
    public_methods: Sequence[str] = ()
    challenge_style: Literal["http", "tool_result", "auto"] = "http"
    non_mcp_paths: Sequence[str] = ()
    headers_only: bool = False
    allow_batches: bool = False
    scope_strategy: Literal["auto", "minimal", "cumulative"] = "auto"
    filter_lists: bool = False
    annotate_lists: Iterable[Literal["required_scopes", "security_schemes"]] = ()
    implies: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    request_scope_names: Mapping[str, str] = field(default_factory=dict[str, str])
    challenge_scopes: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceServerConfig:
    """One protected resource.

    Args:
        metadata: The metadata document of the resource. Required.
        policy: The scope policy of the resource. Default: `ScopePolicy()`, which requires a valid token and no scopes.
        verifier: The verifier of the credentials of this resource: a `Choose` or a verifier of your own. Default:
            None, for the option `verifier` of `MCPAuth`.
        dpop: Whether tokens that are bound to a key are accepted (`"allowed"`), or no other tokens (`"required"`), or
            not at all (`"off"`). Default: None, for the option `dpop` of `MCPAuth`.
        client_certificates: Whether tokens that are bound to a client certificate are accepted. True needs the option
            `client_certificates` of `MCPAuth`. Default: None, which accepts them if that option is set.
    """

    metadata: ResourceServerMetadata
    policy: ScopePolicy = field(default_factory=ScopePolicy)
    verifier: Choose | object | None = None
    dpop: DPoPMode | None = None
    client_certificates: bool | None = None


if not TYPE_CHECKING:  # a type checker knows every name, and reports others

    def __getattr__(name: str) -> Any:
        """Return `fetch_server_config…`: `mcpauth` documents this import path, but the functions use the network."""
        if name in ("fetch_server_config", "fetch_server_config_by_well_known_url"):
            from asgi_mcp_auth._keys import discovery  # noqa: PLC0415 - discovery imports this module

            return getattr(discovery, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
