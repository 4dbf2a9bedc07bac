"""The memory of one process per cached token and per issuer.

Measured region: the memory allocated while many tokens, or tokens of many issuers, are verified for the first time,
divided by their number. `tracemalloc` counts Python's bytes. The growth of the process (Linux) includes OpenSSL's
memory and pages that are not returned to the system. Each figure comes from a process of its own. The tokens themselves
are not kept, as in a server. The control is the same number of verifications that keep nothing: tokens with the token
cache off, or one issuer repeatedly. Each issuer is admitted by a pattern and discovered through an in-process
transport, and has two RSA keys of 2048 bits.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import multiprocessing
import secrets
import tracemalloc
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import httpx
from exchanges import RESOURCE, SCOPE, make_exchange, resource_config, trivial_app
from measuring import Effort, WrongAnswerError, resident_bytes
from reporting import Cell, Report, Table

from asgi_mcp_auth import AuthServerConfig, MCPAuth
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = ("run",)

SIGNER = SigningKey("RS256", kid="signer")
QUICK = Issuer("https://auth.example.com", algorithms=("Ed25519",))
MINTER = Issuer("https://auth.example.com", algorithms=())
TOKENS, ISSUERS, WARM = 10_000, 2_000, 5

Verify = Callable[[int], Awaitable[None]]
Made = tuple[MCPAuth, Verify]


def other_key() -> dict[str, Any]:
    """Return a random public RSA modulus as a JWK without a private key: generating a key pair is slow."""
    modulus = bytearray(secrets.token_bytes(256))
    modulus[0] |= 0x80
    modulus[-1] |= 1
    text = base64.urlsafe_b64encode(bytes(modulus)).rstrip(b"=").decode()
    return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": secrets.token_urlsafe(16), "n": text, "e": "AQAB"}


def answer(request: httpx.Request) -> httpx.Response:
    """Answer as the issuer of any host: metadata of realistic length, and two keys."""
    issuer = f"https://{request.url.host}"
    if request.url.path == "/jwks":
        return httpx.Response(200, json={"keys": [{**SIGNER.jwk, "kid": f"{issuer}-1"}, other_key()]})
    document = {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/jwks",
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "registration_endpoint": f"{issuer}/register",
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "private_key_jwt"],
        "client_id_metadata_document_supported": True,
    }
    return httpx.Response(200, json=document)


def verifying(auth: MCPAuth, mint: Callable[[int], str]) -> Made:
    app = auth.wrap(trivial_app)

    async def verify(number: int) -> None:
        if (status := await make_exchange(app, mint(number))()) != 200:
            msg = f"token {number} was answered {status}"
            raise WrongAnswerError(msg)

    return auth, verify


def tokens(*, kept: bool) -> Made:
    """Return an app for distinct tokens of one issuer, with common claims."""
    server = AuthServerConfig(issuer=QUICK.url, jwks=QUICK.jwks())
    auth = MCPAuth(resource_config([server]), token_cache_size=TOKENS if kept else 0)
    return verifying(auth, lambda _: QUICK.mint(RESOURCE, scope=f"{SCOPE} mcp:write"))


def issuers(*, kept: bool) -> Made:
    """Return an app for tokens of many issuers, with the token cache off."""
    servers: list[Any] = [QUICK.url, AuthServerConfig(issuer_pattern="https://*.id.example.com")]
    auth = MCPAuth(
        resource_config(servers),
        http_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)),
        token_cache_size=0,
        issuer_pool_size=ISSUERS,
        unproven_fetches_per_minute=3_000_000,
    )

    def mint(number: int) -> str:
        issuer = f"https://customer-{number if kept else 0}.id.example.com"
        return MINTER.mint(RESOURCE, key=SIGNER, header={"kid": f"{issuer}-1"}, iss=issuer, scope=SCOPE)

    return verifying(auth, mint)


async def grow(kind: str, count: int, *, kept: bool, traced: bool) -> float:
    """Return the memory growth per verification over `count` verifications, after a few to warm up."""
    make, held = KINDS[kind]
    auth, verify = make(kept=kept)
    for number in range(WARM):
        await verify(number)
    gc.collect()
    if traced:
        tracemalloc.start()
    used = traced_bytes if traced else resident_bytes
    before = used()
    for number in range(WARM, count + WARM):
        await verify(number)
    gc.collect()
    grown = used() - before
    if kept and held(auth) != count + WARM:
        msg = f"{held(auth)} {kind} are held, not {count + WARM}"
        raise WrongAnswerError(msg)
    return grown / count


def traced_bytes() -> int:
    return tracemalloc.get_traced_memory()[0]


def grow_alone(kind: str, count: int, kept: bool, traced: bool) -> float:
    """Return the growth in a new process: this process would reuse freed memory, which is not counted."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_grow_here, kind, count, kept, traced).result()


def _grow_here(kind: str, count: int, kept: bool, traced: bool) -> float:
    return asyncio.run(grow(kind, count, kept=kept, traced=traced))


def held_tokens(auth: MCPAuth) -> int:
    cache = auth.status().resources[0].token_cache
    return 0 if cache is None else cache.entries


def held_issuers(auth: MCPAuth) -> int:
    pool = auth.status().resources[0].pool
    return 0 if pool is None else pool.entries


KINDS = {"tokens": (tokens, held_tokens), "issuers": (issuers, held_issuers)}


def run(effort: Effort) -> Report:
    """Run the benchmark."""
    rows: list[tuple[Cell, ...]] = []
    for kind, count in (("tokens", effort.of(TOKENS - WARM, 20)), ("issuers", effort.of(ISSUERS - WARM, 20))):
        for kept in (False, True):
            name = f"{count + WARM:,} {kind}" if kept else f"control: as many {kind}, not kept"
            measure = _grow_here if effort.smoke else grow_alone
            rows.append((name, *(measure(kind, count, kept, traced) for traced in (True, False))))
    columns = ("held", "bytes of Python's each", "bytes of the process each")
    return Report(name="memory", tables=[Table(title="Memory", columns=columns, rows=rows)])
