"""The values of a configuration that are about credentials: which are accepted, from whom, and what is done with them.

`asgi_mcp_auth.config` is the import path of all values of a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = (
    "DEFAULT_ALGORITHMS",
    "DPOP_MODES",
    "ApiKeys",
    "AssertionAudience",
    "CertificateFormat",
    "Choose",
    "ClientCertificates",
    "DPoPMode",
    "DPoPSettings",
    "EventTransmitter",
    "Introspection",
    "IntrospectionMethod",
    "TokenExchange",
    "TrustedTokenHeader",
)

DEFAULT_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),
    *("Ed25519", "Ed448", "EdDSA"),
)
"""The JWS algorithms that are allowed by default; only asymmetric algorithms (RFC 8725 section 3.1)."""

AssertionAudience = Literal["issuer", "endpoint"]
IntrospectionMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "bearer"]
"""How a resource authenticates at the introspection endpoint (RFC 7662 section 2.1, RFC 6749 section 2.3)."""

DPoPMode = Literal["off", "allowed", "required"]
"""Whether a resource accepts DPoP-bound tokens, and whether it still accepts bearer tokens."""

DPOP_MODES: Final[tuple[DPoPMode, ...]] = ("off", "allowed", "required")

CertificateFormat = Literal["rfc9440", "xfcc", "escaped-pem"]
"""The forms of a client certificate in a header field: `Client-Cert`, `X-Forwarded-Client-Cert`, and nginx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """Verification of opaque access tokens: the authorization server is asked about each token (RFC 7662).

    Args:
        issuer: The issuer whose tokens are opaque, as `authorization_servers` names it. Default: None, for the only
            issuer of the resource.
        client_id: The client id of this resource at the authorization server. Required unless `bearer_token` is set.
            Default: None.
        client_secret: The client secret. In a file, refer to it: `{from_env = "NAME"}` or `{from_file = "path"}`.
            Default: None.
        private_key: The private key in PEM, for `private_key_jwt` (RFC 7523). Default: None.
        key_id: The `kid` of the private key. Default: None.
        algorithm: The algorithm of the private key. Default: `"RS256"`.
        assertion_audience: The audience of the assertion of `private_key_jwt`: `"issuer"`, the issuer identifier
            (draft-ietf-oauth-rfc7523bis), or `"endpoint"`, the URL of the introspection endpoint, for a server that
            accepts its endpoints alone. Default: `"issuer"`.
        bearer_token: An access token of this resource for the introspection endpoint. Default: None.
        auth_method: `"client_secret_basic"`, `"client_secret_post"`, `"private_key_jwt"` or `"bearer"`. Default: None,
            which follows from the secret and from the metadata of the issuer.
        endpoint: The URL of the introspection endpoint. Default: None, for `introspection_endpoint` of the metadata.
        signed: Whether to require signed answers (RFC 9701). Default: False.
        issuer_checks_audience: Whether the authorization server calls a token active only for its own resource; then
            an answer without `aud` is accepted if it has a `token_type`. Default: False, which requires `aud`.
        always: Whether to ask about JWTs of this issuer too, after their local verification, so that a revoked token
            is rejected within `ttl`. Default: False.
        ttl: Seconds for which an active answer is cached, at most until `exp`; 0 to 300. Default: 60.
        inactive_ttl: Seconds for which an inactive answer is cached; 0 to 60. Default: 10.
        shared_cache: Whether active answers are kept in `store` too, encrypted with `shared_secret`, so that the
            processes of a fleet ask once about a token. If the store fails, each process asks. Default: False.
        cache_size: The largest number of cached active answers; as many inactive ones are cached in addition.
            Default: 10,000.
        timeout: Seconds that one call may take, from 0.1 to 10. Default: 5.
        max_concurrency: Calls at once on each event loop, from 1 to 1,000. Default: 64.
        max_queue: Tokens that may wait for a call, from 0 to 10,000; further requests are answered 503. Default: 1,000.
    """

    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    key_id: str | None = None
    algorithm: str = "RS256"
    assertion_audience: AssertionAudience = "issuer"
    bearer_token: str | None = field(default=None, repr=False)
    auth_method: IntrospectionMethod | None = None
    endpoint: str | None = None
    signed: bool = False
    issuer_checks_audience: bool = False
    always: bool = False
    ttl: float = 60.0
    inactive_ttl: float = 10.0
    shared_cache: bool = False
    cache_size: int = 10_000
    timeout: float = 5.0
    max_concurrency: int = 64
    max_queue: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeys:
    """API keys and personal access tokens, in addition to access tokens. Only digests are stored.

    A key is sent as a bearer token with `prefix`, or in the field `header`; never in a query. Its principal has the
    issuer `urn:asgi-mcp-auth:api-key`, which no authorization server can have.

    Args:
        file: The path of a file with one record for each key, which `asgi-mcp-auth api-key` writes. It is read again
            when it changes. Default: None.
        store: Instead of `file`: a `Store`, with the record of each key under `api-key:` and the digest of the key.
            Default: None.
        prefix: The beginning of the keys that are sent as bearer tokens; None accepts none. Default: `"pat_"`.
        header: The field in which keys are sent; None accepts none. Default: `"x-api-key"`.
        pepper: A secret of this server; HMACs of the keys are stored then. In a file, refer to it with `from_env` or
            `from_file`. Default: None.
    """

    file: str | None = None
    store: object | None = None
    prefix: str | None = "pat_"
    header: str | None = "x-api-key"
    pepper: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """One verifier for each kind of credential. The shape of a credential alone decides; no second one is tried.

    Args:
        jwt: The verifier of compact JWS tokens: True for the verification of JWTs of the resource's issuers, a verifier
            of your own, for example one that calls `auth.jwt_verifier()`, or False. With False, a JWS counts as an
            opaque token. Default: True.
        opaque: The verifier of other tokens: an `Introspection`, or a verifier of your own. Default: None, which
            rejects such tokens.
        keys: The API keys that are accepted too. Default: None.
    """

    jwt: bool | object = True
    opaque: Introspection | object | None = None
    keys: ApiKeys | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedTokenHeader:
    """A header field in which a proxy sends the access token, such as `Cf-Access-Jwt-Assertion` of Cloudflare Access.

    The token is verified like any other one. The field is removed before the app runs; from any other peer it is
    removed unread.

    Args:
        name: The name of the field.
        proxies: The addresses and networks of the proxies that may set the field, as the server reports the peer of a
            connection; `"unix"` for a Unix socket. A server that replaces the peer by `X-Forwarded-For` reports the
            client instead, and the field is then not read.
    """

    name: str
    proxies: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificates:
    """Where the certificate of a client comes from, for tokens that are bound to one (RFC 8705).

    Without `header`, the server reports the certificate in the ASGI TLS extension, `client_cert_chain`.

    Args:
        header: The name of the header field in which a proxy reports the certificate, such as `Client-Cert`. Default:
            None, for the TLS extension.
        format: The form of the field: `"rfc9440"`, `"xfcc"` (Envoy, Istio), or `"escaped-pem"` for nginx's
            `$ssl_client_escaped_cert`. Default: None, which follows from the names `Client-Cert` and
            `X-Forwarded-Client-Cert`.
        proxies: The addresses and networks of the proxies that may set the field, as the server reports the peer of a
            connection; `"unix"` for a Unix socket. The field is dropped from the requests of all other peers. A server
            that replaces the peer by `X-Forwarded-For` reports the client instead, and the field is then dropped.
            Default: empty.
    """

    header: str | None = None
    format: CertificateFormat | None = None
    proxies: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DPoPSettings:
    """How DPoP proofs are verified (RFC 9449), on all resources that accept them.

    Args:
        algorithms: The accepted algorithms of proofs, which challenges and metadata name, a list. Default: `["ES256"]`.
        window: How many seconds the `iat` of a proof may differ from the clock, from 1 to 300. Default: 300, on which
            the MCP extension lets clients rely.
        require_nonce: Whether a proof needs a nonce of this server, so that no proof can be made in advance. The nonces
            need no storage, but `shared_secret`. Default: False.
        on_store_failure: What happens if `store` cannot say whether a proof was used before: 503 (`"refuse"`), or the
            request passes (`"accept"`). Default: `"refuse"`.
    """

    algorithms: Sequence[str] = ("ES256",)
    window: float = 300.0
    require_nonce: bool = False
    on_store_failure: Literal["refuse", "accept"] = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTransmitter:
    """A transmitter of security events (OpenID Shared Signals), of back-channel logout, or of both.

    Args:
        issuer: The `iss` of its events and logout tokens. Required.
        audiences: The accepted `aud` of its security events, a list of strings. Default: empty, which accepts none.
        client_ids: The accepted `aud` of its logout tokens: client ids. Default: empty, which accepts none.
        token_issuers: The issuers whose tokens it may revoke, as `AuthInfo.issuer` has them. Events about subjects of
            other issuers are refused. Default: empty, for `issuer`.
        metadata_url: The URL of its metadata document, such as `https://…/.well-known/ssf-configuration`. Default:
            None, for a well-known URL of an authorization server.
        jwks_uri: The URL of its key set. There is no discovery then. Default: None.
        jwks: A static key set. Nothing is fetched then. Default: None.
        algorithms: The accepted JWS algorithms. Default: all of `DEFAULT_ALGORITHMS`.
        leeway: The allowed clock difference in seconds, from 0 to 300. Default: 30.
        email_claim: The claim of access tokens that subjects of the format `email` are compared with, without regard
            to case. Default: None: such events revoke nothing.
        authorization: The value of the field `Authorization` that its requests must have. In a file, refer to it with
            `from_env` or `from_file`. Default: None, for any.
        verification_state: The `state` that verification events must have. Default: None, for any.
        poll_endpoint: The URL from which security events are fetched (RFC 8936), by one process of the fleet, once the
            lifespan of the app has started. Default: None, for push delivery only.
        poll_token: The bearer token for `poll_endpoint`. In a file, refer to it with `from_env` or `from_file`.
            Default: None.
    """

    issuer: str
    audiences: Sequence[str] = ()
    client_ids: Sequence[str] = ()
    token_issuers: Sequence[str] = ()
    metadata_url: str | None = None
    jwks_uri: str | None = None
    jwks: Mapping[str, Any] | None = None
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS
    leeway: float = 30.0
    email_claim: str | None = None
    authorization: str | None = field(default=None, repr=False)
    verification_state: str | None = field(default=None, repr=False)
    poll_endpoint: str | None = None
    poll_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExchange:
    """Token exchange with one issuer: the app calls upstream APIs for the issuer's users (RFC 8693).

    Args:
        issuer: The issuer, as `authorization_servers` names it. Default: None, for the only issuer.
        client_id: The client id of this server at the issuer. Required. Default: None.
        client_secret: The client secret. In a file, refer to it: `{from_env = "NAME"}` or `{from_file = "path"}`.
            Default: None.
        private_key: The private key in PEM, for `private_key_jwt` (RFC 7523). Default: None.
        key_id: The `kid` of the private key. Default: None.
        algorithm: The algorithm of the private key. Default: `"RS256"`.
        assertion_audience: The audience of the assertion of `private_key_jwt`: `"issuer"`, the issuer identifier
            (draft-ietf-oauth-rfc7523bis), or `"endpoint"`, the URL of the token endpoint, which Microsoft Entra ID
            documents and some older servers require. Default: `"issuer"`.
        auth_method: `"client_secret_basic"`, `"client_secret_post"` or `"private_key_jwt"`. Default: None, which
            follows from the secret and from the metadata of the issuer.
        endpoint: The URL of the token endpoint. Default: None, for `token_endpoint` of the metadata.
        grant: `"token_exchange"` (RFC 8693), or `"on_behalf_of"` for Microsoft Entra ID. Default: `"token_exchange"`.
        margin: Seconds by which a cached token is used shorter than it is valid; 0 to 300. Default: 30.
        cache_size: The largest number of cached tokens. Default: 10,000.
        timeout: Seconds that one call may take, from 0.1 to 10. Default: 5.
        max_concurrency: Calls at once on each event loop, from 1 to 1,000. Default: 64.
        max_queue: Exchanges that may wait for a call, from 0 to 10,000; further ones fail. Default: 1,000.
    """

    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    key_id: str | None = None
    algorithm: str = "RS256"
    assertion_audience: AssertionAudience = "issuer"
    auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt"] | None = None
    endpoint: str | None = None
    grant: Literal["token_exchange", "on_behalf_of"] = "token_exchange"
    margin: float = 30.0
    cache_size: int = 10_000
    timeout: float = 5.0
    max_concurrency: int = 64
    max_queue: int = 1000
