"""Every option of `MCPAuth` and `MCPAuthMiddleware`, declared once: name, type, default, check and meaning.

The check of a call, the reader of files and of the environment, the JSON Schema and the parameter documentation derive
from these declarations. Annotations are evaluated (no `from __future__ import annotations`), so that reading them
resolves nothing.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, cast

from asgi_mcp_auth._keys.http import ClientFactory
from asgi_mcp_auth._option_checks import (
    Check,
    a_bool,
    a_hook,
    a_list_of_observers,
    a_list_of_operations,
    a_revocation_hook,
    a_secret,
    a_store,
    a_verifier,
    an_audit_mode,
    an_audit_sink,
    anything,
    at_least,
    check_together,
    seconds,
    telemetry_that_is_installed,
)
from asgi_mcp_auth._policy.problems import Problems
from asgi_mcp_auth._signals.receiver import OnSecurityEvent
from asgi_mcp_auth._verify.hooks import Authorize
from asgi_mcp_auth._verify.verifier import IsRevoked, Verifier
from asgi_mcp_auth.config import (
    AuthServerConfig,
    Choose,
    ClientCertificates,
    DPoPMode,
    DPoPSettings,
    EventTransmitter,
    IssuerResolver,
    ResourceServerConfig,
    Rules,
    ScopePolicy,
    TokenExchange,
    TrustedTokenHeader,
)
from asgi_mcp_auth.decisions import Observer
from asgi_mcp_auth.stores import Store

__all__ = (
    "MCPAuthOptions",
    "MiddlewareOptions",
    "Option",
    "Settings",
    "ShorthandOptions",
    "check_options",
    "declared",
    "documentation",
)


MetadataSigner = Callable[[dict[str, Any]], str]


class Option(NamedTuple):
    """What is declared about one option beside its name and type."""

    default: object
    meaning: str
    check: Check = anything


class MCPAuthOptions(TypedDict, total=False):
    """The keyword options of `MCPAuth`."""

    public_paths: Annotated[
        Sequence[str],
        Option((), 'Paths that the app serves without a token: exact, or `"/x/*"` for `/x` and every path below it.'),
    ]
    identify_public: Annotated[
        bool,
        Option(
            False,
            "Verify a token that is sent to a public path, and pass its claims to the app; a bad token is refused. "
            "Without this option, public paths are not touched.",
            a_bool,
        ),
    ]
    allowed_origins: Annotated[
        Sequence[str],
        Option(
            (),
            "Web origins that may call, in addition to the resource's own origin and, for a loopback resource, "
            'loopback origins; `["*"]` allows any origin. A request without `Origin` is not affected.',
        ),
    ]
    allowed_hosts: Annotated[
        Sequence[str],
        Option(
            (),
            "Accepted `Host` values, `host` or `host:port`. The check is on if this option is set or a resource is a "
            "loopback URL. Public paths are not checked, because health checks call by address.",
        ),
    ]
    cors_methods: Annotated[
        Sequence[str],
        Option(
            (),
            'Methods that preflights of an allowed origin may request, in addition to GET, POST and DELETE; `"*"` '
            "allows any method.",
        ),
    ]
    cors_headers: Annotated[
        Sequence[str],
        Option(
            (),
            "Header fields that preflights of an allowed origin may request, in addition to the fields of MCP, `DPoP`, "
            '`traceparent`, `tracestate`, `baggage` and `x-request-id`; `"*"` allows any field.',
        ),
    ]
    websockets: Annotated[bool, Option(True, "False rejects websockets, also with a valid token.", a_bool)]
    expose_token: Annotated[
        bool,
        Option(
            False,
            "True passes the raw token to the app: in the header, in `AuthInfo.token` and in the SDK's `AccessToken`. "
            "Never send the token to an upstream API (MCP: no token passthrough).",
            a_bool,
        ),
    ]
    reject_query_token: Annotated[
        bool, Option(False, "Answer 400 to `?access_token=` instead of ignoring the parameter.", a_bool)
    ]
    republish_server_metadata: Annotated[
        bool,
        Option(
            False,
            "Serve the authorization server's metadata at the resource's own well-known path, for clients of MCP "
            "2025-03-26. Needs exactly one issuer.",
            a_bool,
        ),
    ]
    metadata_signer: Annotated[
        MetadataSigner | None,
        Option(
            None,
            "Makes `signed_metadata`: a callable from the claims, `iss` included, to a compact JWS.",
            a_hook("a callable from the claims to a JWS"),
        ),
    ]
    verifier: Annotated[
        Verifier | Choose | None,
        Option(
            None,
            "The verifier of the credentials of all resources that have none of their own: `Choose(...)` for opaque "
            "tokens, or a verifier of your own instead of the JWT verification. The decision of a verifier of your own "
            "is final: the verifier itself must check issuer, audience and expiry.",
            a_verifier,
        ),
    ]
    dpop: Annotated[
        DPoPMode,
        Option(
            "off",
            'Whether resources accept tokens that are bound to a key of the client (DPoP, RFC 9449): `"allowed"` in '
            'addition to bearer tokens, `"required"` instead of them. Bound tokens '
            "are never accepted as bearer tokens.",
        ),
    ]
    dpop_settings: Annotated[DPoPSettings, Option(DPoPSettings(), "How DPoP proofs are verified; see `DPoPSettings`.")]
    client_certificates: Annotated[
        ClientCertificates | None,
        Option(
            None,
            "Accept tokens that are bound to a client certificate (mutual TLS, RFC 8705), and where the certificate of "
            "a request comes from; see `ClientCertificates`. Without this option, such tokens are refused.",
        ),
    ]
    shared_secret: Annotated[
        str | None,
        Option(
            None,
            "A secret of at least 32 characters that all processes of a server share. It makes the nonces of DPoP, "
            "signs `key_cache`, and encrypts `shared_cache`. In a file, refer to it with `from_env` or `from_file`.",
            a_secret,
        ),
    ]
    trusted_token_header: Annotated[
        TrustedTokenHeader | None,
        Option(
            None,
            "A header field in which a proxy of yours sends the access token, in addition to `Authorization`, such as "
            "`Cf-Access-Jwt-Assertion`.",
        ),
    ]
    websocket_subprotocol_tokens: Annotated[
        bool,
        Option(
            False,
            "Accept an access token as the websocket subprotocol `bearer.<token>`: browsers cannot set `Authorization` "
            "for a websocket. The app does not see the token. Access logs of proxies may contain it.",
            a_bool,
        ),
    ]
    token_exchange: Annotated[
        Sequence[TokenExchange],
        Option(
            (),
            "Token exchange for calls of upstream APIs, one `TokenExchange` for each issuer. `auth.exchange(...)` and "
            "`auth.exchange_auth(...)` use it.",
        ),
    ]
    is_revoked: Annotated[
        IsRevoked | None,
        Option(
            None,
            "Called about every accepted token, sync or async. Any answer but False rejects the token; an exception is "
            "answered 503. For revocation by subject, session or token use `revocation`, which asks nothing.",
            a_revocation_hook,
        ),
    ]
    revocation: Annotated[
        bool,
        Option(
            False,
            "Refuse the tokens that `await auth.revoke(...)` revoked in any process that shares `store`. Tokens then "
            "need `iat` and `exp`. See [Revocation](#revocation).",
            a_bool,
        ),
    ]
    max_token_lifetime: Annotated[
        float,
        Option(
            86_400.0,
            "With `revocation`: the longest time in seconds between `iat` and `exp` of an accepted token; another one "
            "is refused (`token_lifetime_too_long`). A revocation is kept that long, and then no token needs it.",
            seconds(60.0, 2_592_000.0),
        ),
    ]
    event_transmitters: Annotated[
        Sequence[EventTransmitter],
        Option(
            (),
            "The transmitters whose security events and logout tokens `auth.events_app()` accepts, a list of "
            "`EventTransmitter`. Needs `revocation`.",
        ),
    ]
    on_security_event: Annotated[
        OnSecurityEvent | None,
        Option(
            None,
            "Called with each accepted security event, a `SecurityEvent`, sync or async. If the function raises, the "
            "transmitter delivers the event again.",
            a_hook("a callable that takes a SecurityEvent"),
        ),
    ]
    revocation_stale_if_error: Annotated[
        float,
        Option(
            300.0,
            "Seconds for which a process goes on with the revocations that it knows while `store` fails; then requests "
            "are answered 503. At least 5 seconds pass.",
            seconds(0.0, 86_400.0),
        ),
    ]
    authorize: Annotated[
        Authorize | None,
        Option(
            None,
            "Called about every operation that the scopes allow, sync or async; see `asgi_mcp_auth.authorization`. An "
            "exception is answered 503. If the hook is set, the bodies of POST requests are read.",
            a_hook("a callable (auth_info, operation, request) to Allow, Deny or NeedScopes"),
        ),
    ]
    max_body_size: Annotated[
        int,
        Option(
            1_048_576,
            "The largest body, in bytes, that is read for its operation. A larger body is answered 413.",
            at_least(0, "bytes"),
        ),
    ]
    store: Annotated[
        Store | None,
        Option(
            None,
            "State that all processes of a server share: a `RedisStore`, or the URL of a database in a file. A "
            "`MemoryStore` is for a single process.",
            a_store,
        ),
    ]
    store_timeout: Annotated[
        float,
        Option(
            0.25,
            "Seconds that one operation of the store may take. After three failures, requests that need the store are "
            "answered 503 `store_unavailable` at once, and one a second tries again.",
            seconds(0.001, 10.0),
        ),
    ]
    key_cache: Annotated[
        str | None,
        Option(
            None,
            "Keep the key sets of the issuers that the configuration names beyond this process, so that a new process "
            'needs no issuer: a directory with mode 0700 that belongs to the user of the process, or `"store"` for '
            "`store`. Needs `shared_secret`, which signs the entries.",
        ),
    ]
    session_binding: Annotated[
        bool,
        Option(
            False,
            "Bind each `Mcp-Session-Id` (MCP up to 2025-11-25) to the caller that created the session, in `store`. For "
            "servers without a binding of their own; the MCP SDK and fastmcp have one.",
            a_bool,
        ),
    ]
    hook_timeout: Annotated[
        float,
        Option(
            5.0,
            "Seconds that `is_revoked`, `authorize` or a verifier of your own may take for one request; then "
            "503 `hook_failed`. A function that blocks the event loop cannot be interrupted.",
            seconds(0.001, 300.0),
        ),
    ]
    post_stream_grace: Annotated[
        float,
        Option(
            3600.0,
            "Seconds after `exp` that an event stream which answers a POST may stay open, so that the result of a call "
            "that was authorized in time arrives. Other event streams and websockets end with the token.",
            seconds(0.0, 86_400.0),
        ),
    ]
    on_decision: Annotated[
        Sequence[Observer],
        Option(
            (), "Observers; each is called with one `Decision` per request and must not block.", a_list_of_observers
        ),
    ]
    telemetry: Annotated[
        bool,
        Option(
            False,
            "Report metrics, and attributes of the current span, through the OpenTelemetry API (extra `otel`).",
            telemetry_that_is_installed,
        ),
    ]
    audit: Annotated[
        Literal["best_effort", "required"] | None,
        Option(
            None,
            "Write one JSON line about each refusal, and about the allowed requests of `audit_operations`. "
            '`"required"` answers 503 instead of running the app if the sink raises; `"best_effort"` logs the failure.',
            an_audit_mode,
        ),
    ]
    audit_operations: Annotated[
        Sequence[str],
        Option(
            (),
            'The allowed operations that the audit log records, such as `"tools/call purge*"`; `"*"` for all requests. '
            "If the option is set, the bodies of POST requests are read.",
            a_list_of_operations,
        ),
    ]
    audit_sink: Annotated[
        Callable[[str], object] | None,
        Option(
            None,
            "Called with each line of the audit log, before the app runs; must not block for long. Default: the logger "
            "`asgi_mcp_auth.audit`.",
            an_audit_sink,
        ),
    ]
    http_client: Annotated[
        ClientFactory | None,
        Option(
            None,
            "A zero-argument factory of an `httpx.AsyncClient`, which is used for one fetch and closed.",
            a_hook("a callable that makes a client, for example httpx.AsyncClient itself"),
        ),
    ]
    token_cache_size: Annotated[
        int,
        Option(10_000, "How many verified tokens to cache per resource; 0 disables the cache.", at_least(0, "tokens")),
    ]
    token_cache_bytes: Annotated[
        int,
        Option(
            67_108_864,
            "How much memory the cached tokens of one resource may use. The estimate is never too low.",
            at_least(0, "bytes"),
        ),
    ]
    issuer_pool_size: Annotated[
        int,
        Option(
            10_000,
            "How many issuers that a pattern or a resolver admitted to hold per resource.",
            at_least(1, "issuers"),
        ),
    ]
    unproven_fetches_per_minute: Annotated[
        int,
        Option(
            60,
            "Fetches per minute, in total, for issuers that match a pattern and whose keys were never fetched. If it "
            "is used up, their tokens are answered 503. An issuer takes 2 to 4 fetches.",
            at_least(4, "fetches"),
        ),
    ]
    require_warm_up: Annotated[
        bool,
        Option(
            False,
            "Delay the app's lifespan start-up until the keys of every named issuer are fetched, for at most "
            "`warm_up_timeout`. Then the app starts without them, and the readiness app answers 503.",
            a_bool,
        ),
    ]
    warm_up_timeout: Annotated[float, Option(30.0, "Seconds that `require_warm_up` waits.", seconds(1, 3600))]
    dangerously_exit_when_cold: Annotated[
        bool,
        Option(
            False,
            "With `require_warm_up`: fail the start-up after `warm_up_timeout`. Gunicorn and `uvicorn --workers` then "
            "stop all workers as soon as one of them cannot fetch the keys.",
            a_bool,
        ),
    ]
    clock: Annotated[
        Callable[[], float],
        Option(time.time, "Seconds since the epoch, for tests.", a_hook("a callable that returns seconds")),
    ]
    dangerously_allow_http: Annotated[
        bool,
        Option(
            False,
            "Accept http issuers and resources that are not loopback. Tokens and keys then cross the network in the "
            "clear.",
            a_bool,
        ),
    ]
    dangerously_allow_private_addresses: Annotated[
        bool,
        Option(
            False,
            "Fetch from private, loopback and link-local addresses also if the configuration does not name the host. "
            "The author of an issuer's metadata can then make this server call any host of its network.",
            a_bool,
        ),
    ]


class ShorthandOptions(TypedDict, total=False):
    """The shorthand for one resource."""

    resource: Annotated[
        str, Option("", "The resource identifier: the URL that clients use, and the `aud` that tokens must contain.")
    ]
    authorization_servers: Annotated[
        Sequence[str | AuthServerConfig | IssuerResolver], Option((), "The issuers to trust and to publish.")
    ]
    required_scopes: Annotated[Sequence[str], Option((), "The scopes that every request needs.")]
    policy: Annotated[
        ScopePolicy, Option(ScopePolicy(), "The scope policy; `required_scopes` are its `default` if it has none.")
    ]
    tools: Annotated[Rules, Option({}, "Scopes by tool, in addition to `required_scopes`: `policy.tools`.")]
    public_tools: Annotated[Sequence[str], Option((), "The tools that need no token: `policy.public_tools`.")]


class MiddlewareOptions(ShorthandOptions, MCPAuthOptions, total=False):
    """The keyword options of `MCPAuthMiddleware`."""


class Settings(MiddlewareOptions, total=False):
    """The settings of a file."""

    protected_resources: Annotated[
        ResourceServerConfig | Iterable[ResourceServerConfig],
        Option(
            (),
            "One `ResourceServerConfig` or several. A single resource owns every path. Of several, the resource with "
            "the longest path prefix owns a path, and a path that no resource owns is answered 404.",
        ),
    ]


def declared(options: type[object]) -> dict[str, Option]:
    """Return the options that a `TypedDict` declares, by name."""
    return {name: hint.__metadata__[0] for name, hint in options.__annotations__.items()}


def check_options(options: Mapping[str, object], protected_resources: object, problems: Problems) -> MCPAuthOptions:
    """Check the options of `MCPAuth`, and return them complete with defaults."""
    known = declared(MCPAuthOptions)
    for name in options:
        if name not in known:
            close = get_close_matches(name, [*known, *declared(ShorthandOptions)], 1)
            fix = f"Did you mean {close[0]}?" if close else f"Known options: {', '.join(known)}."
            problems.add(name, "Unknown option.", fix)
    complete: dict[str, object] = {name: options.get(name, option.default) for name, option in known.items()}
    for name, option in known.items():
        option.check(complete[name], name, problems)
    check_together(complete, protected_resources, problems)
    return cast("MCPAuthOptions", complete)


def documentation(options: type[object]) -> str:
    """Return the options as the lines of an `Args:` section."""
    return "\n".join(f"    {name}: {option.meaning}" for name, option in declared(options).items())
