"""The dimensions that a configuration or its caches can grow in. `growth.py` measures each of them.

A dimension builds a `Case` for a size. The app of the case has already seen the tokens that it has to know. A size
counts the named things; everything else is as small as possible.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import httpx
from exchanges import (
    RESOURCE,
    SCOPE,
    FreshTokens,
    in_turn,
    make_body,
    make_exchange,
    reading_app,
    resource_config,
    trivial_app,
)
from measuring import Case

from asgi_mcp_auth import AuthServerConfig, MCPAuth, ResourceServerConfig
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = ("DIMENSIONS", "KNOWN", "MAKING", "Dimension")

ISSUER = Issuer("https://auth.example.com", algorithms=("Ed25519",))
KEY = ISSUER.keys[0]
MAKING: list[float] = []
"""The milliseconds that each configuration took to build."""
SERVER = AuthServerConfig(issuer=ISSUER.url, jwks=ISSUER.jwks())


class Dimension(NamedTuple):
    """A dimension; `build(size, calls)` returns the case for a size, with warm caches."""

    name: str
    build: Callable[[int, int], Awaitable[Case]]
    most: int = 10_000
    control: Callable[..., Any] = trivial_app


def mint(issuer: str = ISSUER.url, audience: str = RESOURCE, scope: str = SCOPE, **header: Any) -> str:
    """Return a token signed with `KEY`, which every issuer here publishes."""
    return ISSUER.mint(audience, iss=issuer, scope=scope, header=header or None)


def wrapped(
    config: ResourceServerConfig | Sequence[ResourceServerConfig], app: Any = trivial_app, **options: Any
) -> Any:
    """Return a protected app with static keys; a fetch is an error of the benchmark."""

    def refuse(request: httpx.Request) -> httpx.Response:
        msg = f"the benchmark must not fetch {request.url}"
        raise AssertionError(msg)

    client = lambda: httpx.AsyncClient(transport=httpx.MockTransport(refuse))  # noqa: E731
    started = time.perf_counter()
    made = MCPAuth(config, http_client=client, **options).wrap(app)
    MAKING.append((time.perf_counter() - started) * 1e3)
    return made


def timed(size: int, exchange: Callable[[], Awaitable[int]], expected: int = 200, **more: Any) -> Case:
    return Case(name=f"{size:,}", exchange=exchange, expected=expected, control="control", **more)


async def season(app: Any, tokens: Iterable[str], paths: Iterable[str] = ("/mcp",)) -> None:
    """Send each token once, with the paths in turn."""
    for token, path in zip(tokens, cycle(paths), strict=False):
        assert await make_exchange(app, token, path=path)() == 200


def some(values: Sequence[str]) -> list[str]:
    """Return about a hundred values, evenly spread: more would measure the processor's caches."""
    return list(values[:: max(1, len(values) // 100)])


async def resources(size: int, _calls: int) -> Case:
    """Known tokens of many resources with sibling paths."""
    paths = [f"/mcp/{number}" for number in range(size)]
    configs = [resource_config([SERVER], resource=f"https://mcp.example.com{path}") for path in paths]
    app, asked = wrapped(configs), some(paths)
    tokens = [mint(audience=f"https://mcp.example.com{path}") for path in asked]
    await season(app, tokens, asked)
    return timed(size, make_exchange(app, in_turn(tokens), path=in_turn(asked)))


async def unowned_path(size: int, _calls: int) -> Case:
    """A path that belongs to no resource: 404."""
    paths = ["/other", *(f"/mcp/{number}" for number in range(size))]  # a single resource would own every path
    configs = [resource_config([SERVER], resource=f"https://mcp.example.com{path}") for path in paths]
    return timed(size, make_exchange(wrapped(configs), path="/elsewhere/0"), 404)


async def public_paths(size: int, _calls: int) -> Case:
    """A known token, and many public paths."""
    listed = [f"/public/{number}/*" for number in range(size)]
    return timed(size, make_exchange(wrapped(resource_config([SERVER]), public_paths=listed), mint()))


async def odd_path(size: int, _calls: int) -> Case:
    """A path with an escape, which is checked in all its readings, and many public paths and path rules."""
    listed = [f"/public/{number}/*" for number in range(size)]
    rules = {f"/mcp/{number}/*": [SCOPE] for number in range(size)}
    app = wrapped(resource_config([SERVER], paths=rules), public_paths=listed)
    return timed(size, make_exchange(app, mint(), path=f"/mcp/{size - 1}/%61"))


async def path_rules(size: int, _calls: int) -> Case:
    """One of many path rules applies."""
    rules = {f"/mcp/{number}/*": [SCOPE] for number in range(size)}
    paths = some([f"/mcp/{number}/x" for number in range(size)])
    return timed(size, make_exchange(wrapped(resource_config([SERVER], paths=rules)), mint(), path=in_turn(paths)))


async def path_rule_refused(size: int, _calls: int) -> Case:
    """The scope of one of many path rules is missing: 403."""
    rules = {f"/mcp/{number}/*": [f"scope:{number}"] for number in range(size)}
    app = wrapped(resource_config([SERVER], paths=rules))
    return timed(size, make_exchange(app, mint(), path=f"/mcp/{size - 1}/x"), 403)


def ruled(size: int, name: str, scope: str = SCOPE) -> Callable[[], Awaitable[int]]:
    """Return a call of `add` with many tool rules: `name` (with a number in it), and one for `add`."""
    rules = {name.format(number): [scope.format(number)] for number in range(size)}
    if "*" not in name:
        rules |= {"add": [scope.format(0)]}
    app = wrapped(resource_config([SERVER], tools=rules), reading_app)
    return make_exchange(app, mint(), body=make_body(200))


async def tools(size: int, _calls: int) -> Case:
    """One of many tools that have rules."""
    return timed(size, ruled(size, "tool-{}"))


async def tool_patterns(size: int, _calls: int) -> Case:
    """A tool that matches no pattern."""
    return timed(size, ruled(size, "tool-{}-*"))


async def tool_refused(size: int, _calls: int) -> Case:
    """The scope of one of many tools is missing: 403."""
    return timed(size, ruled(size, "tool-{}", "scope:{}"), 403)


def many_named(size: int) -> Any:
    servers = [AuthServerConfig(issuer=f"https://{number}.example.com", jwks=ISSUER.jwks()) for number in range(size)]
    return wrapped(resource_config(servers))


async def issuers_new_token(size: int, calls: int) -> Case:
    """New tokens of one of many named issuers."""
    tokens = FreshTokens(lambda: mint(f"https://{size - 1}.example.com"), calls)
    return timed(size, make_exchange(many_named(size), tokens.next), prepare=tokens.prepare)


async def issuer_unknown(size: int, _calls: int) -> Case:
    """A token of an issuer that is not configured: 401."""
    return timed(size, make_exchange(many_named(size), mint("https://unknown.example.com")), 401)


async def issuer_patterns(size: int, _calls: int) -> Case:
    """A token of an issuer that matches no pattern: 401."""
    patterns = [AuthServerConfig(issuer_pattern=f"https://*.{number}.example.com") for number in range(size)]
    app = wrapped(resource_config([SERVER, *patterns]))
    return timed(size, make_exchange(app, mint("https://unknown.elsewhere.example")), 401)


async def issuers_admitted(size: int, calls: int) -> Case:
    """New tokens of many issuers that a resolver admitted."""

    def resolver(issuer: str) -> AuthServerConfig:
        return AuthServerConfig(issuer=issuer, jwks=ISSUER.jwks())

    app = wrapped(resource_config([SERVER, resolver]))
    every = [f"https://{number}.tenants.example.com" for number in range(size)]
    await season(app, map(mint, every))
    asked = in_turn(some(every))
    tokens = FreshTokens(lambda: mint(asked()), calls)
    return timed(size, make_exchange(app, tokens.next), prepare=tokens.prepare)


def with_keys(size: int, **options: Any) -> Any:
    others = [SigningKey("Ed25519").jwk for _ in range(size - 1)]
    server = AuthServerConfig(issuer=ISSUER.url, jwks={"keys": [*others, KEY.jwk]})
    return wrapped(resource_config([server]), **options)


async def keys(size: int, calls: int) -> Case:
    """New tokens whose kid is one of many in the key set."""
    tokens = FreshTokens(mint, calls)
    return timed(size, make_exchange(with_keys(size), tokens.next), prepare=tokens.prepare)


async def kid_unknown(size: int, _calls: int) -> Case:
    """A token whose kid is not in the key set: 401."""
    return timed(size, make_exchange(with_keys(size), mint(kid="unknown")), 401)


async def kid_missing(size: int, _calls: int) -> Case:
    """A token without kid of an issuer with many keys: 401."""
    token = ISSUER.sign({"alg": KEY.alg, "typ": "at+jwt"}, ISSUER.claims(RESOURCE, scope=SCOPE))
    return timed(size, make_exchange(with_keys(size + 1), token), 401)


async def cached_tokens(size: int, _calls: int) -> Case:
    """Many known tokens in turn."""
    app, tokens = wrapped(resource_config([SERVER])), [mint() for _ in range(size)]
    await season(app, tokens)
    return timed(size, make_exchange(app, in_turn(tokens)))


async def scopes(size: int, _calls: int) -> Case:
    """A known token that carries many scopes."""
    token = mint(scope=" ".join([SCOPE, *(f"s:{number}" for number in range(size - 1))]))
    return timed(size, make_exchange(wrapped(resource_config([SERVER])), token))


DIMENSIONS = (
    Dimension("resources", resources),
    Dimension("resources, an unowned path: 404", unowned_path, most=1000),
    Dimension("public paths", public_paths),
    Dimension("public paths and rules, an odd path", odd_path),
    Dimension("path rules", path_rules),
    Dimension("path rules: 403", path_rule_refused),
    Dimension("tools with a rule", tools, control=reading_app),
    Dimension("tools with a rule: 403", tool_refused, control=reading_app),
    Dimension("tool patterns", tool_patterns, control=reading_app),
    Dimension("named issuers, new token", issuers_new_token),
    Dimension("named issuers, unknown issuer: 401", issuer_unknown),
    Dimension("issuer patterns, unknown issuer: 401", issuer_patterns, most=1000),
    Dimension("admitted issuers, new token", issuers_admitted),
    Dimension("keys in the set, new token", keys, most=100),
    Dimension("keys in the set, unknown kid: 401", kid_unknown, most=100),
    Dimension("keys in the set, no kid: 401", kid_missing, most=99),
    Dimension("scopes of the token", scopes, most=1000),
    Dimension("cached tokens", cached_tokens),
)

KNOWN = mint()
