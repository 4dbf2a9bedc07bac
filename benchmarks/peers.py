"""The middleware compared with its peers: in process around the same trivial app, and end to end with Envoy.

Measured region, in process: `await app(scope, receive, send)` on one asyncio loop, with a new scope for each call and
interleaved rounds; the control is the bare app. All peers get the same RS256 tokens of one issuer, which serves HTTP on
loopback; keys are fetched before the rounds, and logging is off. "Known" is one token repeatedly, "new" is a token that
the app has not seen. Each peer is set up as documented (the MCP SDK has no JWT verifier and gets one of PyJWT with
`PyJWKClient`). Each has to answer 200 to a good token, and 401 to an expired token, to a token for another audience, to
a bad signature and to no token. Further checks differ between the peers and are not compared.

Measured region, end to end: as in `end_to_end.py`, with one known token. Envoy's `jwt_authn` is in front of the bare
app. Envoy and the app share one core, which the app has to itself in the other cases.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from end_to_end import Run, Target, load
from exchanges import RESOURCE, SCOPE, FreshTokens, make_exchange, trivial_app
from gateway import envoy
from measuring import NOTHING, Case, Effort, Skip, Times, WrongAnswerError, added, measure, spread
from reporting import Cell, Report, Table
from serving import check_answers, issuer_at_work, mint_for_long, require_wrk, serve

from asgi_mcp_auth import MCPAuthMiddleware
from asgi_mcp_auth.testing import Issuer

__all__ = ("run",)

BARE = "control: the bare app"
OURS = "asgi-mcp-auth"
UVICORN = "uvicorn, h11, asyncio"


def ours(issuer: Issuer) -> Any:
    return MCPAuthMiddleware(
        trivial_app, resource=RESOURCE, authorization_servers=[issuer.url], required_scopes=[SCOPE]
    )


def ours_bridged(issuer: Issuer) -> Any:
    """Return our middleware with the MCP SDK loaded: the app gets the SDK's identity, as from the peers."""
    importlib.import_module("mcp.server.auth.middleware.auth_context")
    return ours(issuer)


def mcp_sdk(issuer: Issuer) -> Any:
    """Return the three middlewares that `MCPServer(auth=…, token_verifier=…)` puts around its endpoint."""
    import jwt
    from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
    from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
    from mcp.server.auth.provider import AccessToken
    from starlette.middleware.authentication import AuthenticationMiddleware

    keys = jwt.PyJWKClient(f"{issuer.url}/jwks")

    class PyJWTVerifier:
        async def verify_token(self, token: str) -> AccessToken | None:
            try:
                key = keys.get_signing_key_from_jwt(token)
                claims = jwt.decode(
                    token,
                    key.key,
                    algorithms=["RS256"],
                    audience=RESOURCE,
                    issuer=issuer.url,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
            except jwt.PyJWTError:
                return None
            return AccessToken(
                token=token,
                client_id=claims["client_id"],
                scopes=claims["scope"].split(),
                expires_at=claims["exp"],
                resource=RESOURCE,
                subject=claims["sub"],
                claims=claims,
            )

    required: Any = RequireAuthMiddleware(trivial_app, [SCOPE])
    return AuthenticationMiddleware(AuthContextMiddleware(required), backend=BearerAuthBackend(PyJWTVerifier()))


def fastmcp(issuer: Issuer) -> Any:
    """Return the middlewares that `FastMCP(auth=JWTVerifier(…)).http_app()` puts around its endpoint."""
    jwt: Any = importlib.import_module("fastmcp.server.auth.providers.jwt")
    required: Any = importlib.import_module("fastmcp.server.auth.middleware").RequireAuthMiddleware
    verifier = jwt.JWTVerifier(
        jwks_uri=f"{issuer.url}/jwks", issuer=issuer.url, audience=RESOURCE, required_scopes=[SCOPE]
    )
    app = required(trivial_app, [SCOPE])
    for middleware in reversed(verifier.get_middleware()):
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


def mcpauth(issuer: Issuer) -> Any:
    """Return `mcp_auth.bearer_auth_middleware("jwt", …)` around the trivial app."""
    module: Any = importlib.import_module("mcpauth")
    config: Any = importlib.import_module("mcpauth.config")
    metadata = {**issuer.metadata, "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"]}
    metadata["grant_types_supported"] = ["authorization_code"]
    server = config.AuthServerConfig(
        type=config.AuthServerType.OAUTH, metadata=config.AuthorizationServerMetadata(**metadata)
    )
    middleware = module.MCPAuth(server=server).bearer_auth_middleware("jwt", audience=RESOURCE, required_scopes=[SCOPE])
    return middleware(trivial_app)


PEERS: Mapping[str, tuple[Callable[[Issuer], Any], str]] = {
    OURS: (ours, "asgi_mcp_auth"),  # first, before a peer loads the MCP SDK
    f"{OURS}, MCP SDK bridge": (ours_bridged, "mcp"),
    "MCP SDK, PyJWT": (mcp_sdk, "mcp"),
    "fastmcp, JWTVerifier": (fastmcp, "fastmcp"),
    "mcpauth": (mcpauth, "mcpauth"),
}


async def check(name: str, app: Any, issuer: Issuer) -> None:
    """Check that good tokens get 200 and bad ones 401.

    Raises:
        WrongAnswerError: A status is another one.
    """
    good = issuer.mint(RESOURCE, scope=SCOPE)
    signed, _, signature = good.rpartition(".")
    asked = {
        "a good token": (good, 200),
        "an expired token": (issuer.mint(RESOURCE, scope=SCOPE, exp=int(issuer.clock()) - 3600), 401),
        "a token for another audience": (issuer.mint("https://other.example.com/mcp", scope=SCOPE), 401),
        "a bad signature": (f"{signed}.{signature[:-8]}AAAAAAAA", 401),
        "no token": (None, 401),
    }
    for what, (token, expected) in asked.items():
        status = await make_exchange(app, token)()
        if status != expected:
            msg = f"{name} answers {status} to {what}, not {expected}"
            raise WrongAnswerError(msg)


async def in_process(issuer: Issuer, effort: Effort) -> tuple[Table, list[str]]:
    calls = effort.of(100, 2)
    known = mint_for_long(issuer)
    cases, notes = [NOTHING, Case(name=BARE, exchange=make_exchange(trivial_app, known))], list[str]()
    there: list[str] = []
    for name, (build, module) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            notes.append(f"{name} is not installed: pip install '.[bench]'.")
            continue
        app = build(issuer)
        await check(name, app, issuer)
        there.append(name)
        tokens = FreshTokens.of(issuer, issuer.keys[0], calls)
        cases += [
            Case(name=f"{name}: known", exchange=make_exchange(app, known), control=BARE),
            Case(name=f"{name}: new", exchange=make_exchange(app, tokens.next), control=BARE, prepare=tokens.prepare),
            Case(name=f"{name}: none", exchange=make_exchange(app), expected=401, control=BARE),
        ]
    times = await measure(cases, rounds=effort.of(20, 2), calls=calls)
    columns = (
        "in process, µs added",
        "known token",
        "ratio to ours",
        "new RS256 token",
        "ratio to ours",
        "no token: 401",
    )
    rows = [row_of(name, times) for name in there]
    return Table(title="In process, around a trivial app", columns=columns, rows=rows, plotted=1), notes


def row_of(name: str, times: Times) -> tuple[Cell, ...]:
    """Return the costs of one peer, and their ratios to ours."""

    def cost(of: str, what: str) -> list[float]:
        return [one - none for one, none in zip(times[f"{of}: {what}"], times[BARE], strict=True)]

    def beside(what: str) -> Cell:
        ratios = spread(one / own for one, own in zip(cost(name, what), cost(OURS, what), strict=True))
        return f"{ratios.median:.1f} times"

    none = added(times[f"{name}: none"], times[BARE])
    return name, spread(cost(name, "known")), beside("known"), spread(cost(name, "new")), beside("new"), none


def end_to_end(issuer: Issuer, effort: Effort) -> Table:
    """Return a table of the bare app, our middleware, and Envoy in front of the bare app."""
    with ExitStack() as stack:
        bare, own = (stack.enter_context(serve(UVICORN, "hello", issuer, shield)) for shield in ("none", "ours"))
        gateway = stack.enter_context(envoy(bare, issuer, RESOURCE))
        fields = {"authorization": f"Bearer {mint_for_long(issuer)}"}
        serving = {"uvicorn, the bare app": bare, f"uvicorn, {OURS}": own, "Envoy jwt_authn, uvicorn": gateway}
        runs: dict[str, list[Run]] = {name: [] for name in serving}
        for served in serving.values():
            check_answers(f"{served.url}/mcp", fields, None, "ok", refuses=served is not bare)
        for _ in range(effort.of(10, 1)):
            for name, served in serving.items():
                runs[name].append(load(Target(served, f"{served.url}/mcp", fields, None)))
    base = runs["uvicorn, the bare app"]
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            spread(run.per_second for run in own),
            spread(100 * run.per_second / bare.per_second for run, bare in zip(own, base, strict=True)),
            spread(run.cpu - bare.cpu for run, bare in zip(own, base, strict=True)),
        )
        for name, own in runs.items()
    ]
    title = "End to end at saturation, hello world, one core for all that serves"
    return Table(title=title, columns=("what serves", "requests/s", "% of bare", "CPU µs added"), rows=rows, plotted=1)


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    with issuer_at_work() as issuer:
        table, notes = asyncio.run(in_process(issuer, effort))
        tables = [table]
        try:
            require_wrk()
            tables.append(end_to_end(issuer, effort))
        except Skip as skip:
            notes.append(f"End to end: {skip}")
    return Report(name="peers", tables=tables, notes=notes)
