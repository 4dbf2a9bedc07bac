"""What many issuers cost one process: `python benchmarks/issuers.py`.

Each issuer is admitted by a pattern, discovered, and holds a key set of two RSA keys of 2048 bits (distinct for each
issuer), fetched through an in-process transport. Bytes per issuer: what `tracemalloc` sees in the resource's pool
after all of them verified a token, divided by their number; a second figure is the growth of the process as the
kernel counts it (Linux), which holds OpenSSL's memory too. Hit cost: the time of one verification of a token never
seen before, of an issuer whose keys are held, the token cache off; the median over the rounds, the issuers taken in
turn. Not measured: the network, the server, the fetching.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import secrets
import statistics
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from asgi_mcp_auth import AuthServerConfig, MCPAuth, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth._protocol.credentials import Credential
from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth.testing import Issuer, SigningKey

RESOURCE = "https://mcp.example.com/mcp"
SIGNER = SigningKey("RS256", kid="signer")
REQUEST = Request({"type": "http", "method": "POST", "path": "/mcp", "raw_path": b"/mcp", "headers": []})


def other_key() -> dict[str, Any]:
    """A public RSA key of its own for each issuer, of which nobody knows the private half; making one is slow."""
    modulus = bytearray(secrets.token_bytes(256))
    modulus[0] |= 0x80
    modulus[-1] |= 1
    text = base64.urlsafe_b64encode(bytes(modulus)).rstrip(b"=").decode()
    return {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": secrets.token_urlsafe(16), "n": text, "e": "AQAB"}


def answer(request: httpx.Request) -> httpx.Response:
    """Any host is an issuer: metadata as long as a real one's, and two keys."""
    issuer = f"https://{request.url.host}"
    if urlsplit(str(request.url)).path == "/jwks":
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


def name_of(number: int) -> str:
    return f"https://customer-{number}.id.example.com"


def resident_bytes() -> int:
    """The process's memory as the kernel counts it; 0 where it cannot be read."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def measure(count: int, rounds: int) -> tuple[float, float, float]:
    """Bytes per issuer by tracemalloc and by the kernel, and seconds per hit."""
    minter = Issuer(algorithms=())

    def mint(number: int) -> bytes:
        issuer = name_of(number)
        header = {"kid": f"{issuer}-1"}
        return minter.mint(RESOURCE, key=SIGNER, header=header, iss=issuer, scope="mcp:read").encode("ascii")

    config = ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource=RESOURCE,
            authorization_servers=[
                "https://auth.example.com",
                AuthServerConfig(issuer_pattern="https://*.id.example.com"),
            ],
        )
    )
    auth = MCPAuth(
        config,
        http_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)),
        token_cache_size=0,
        issuer_pool_size=max(count, 1),
        new_issuers_per_minute=1_000_000,
    )
    verify = auth.verifiers[0].verify

    async def passes(token: bytes) -> None:
        verified = await verify(Credential(b"bearer", token), REQUEST)
        assert getattr(verified, "auth_info", None) is not None, verified

    gc.collect()
    resident = resident_bytes()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        await passes(mint(number))
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    grown = resident_bytes() - resident
    pool = auth.status().resources[0].pool
    assert pool is not None
    assert pool.entries == count
    times: list[float] = []
    for index in range(rounds):
        token = mint(index * 7919 % count)
        start = time.perf_counter()
        await passes(token)
        times.append(time.perf_counter() - start)
    return traced / count, grown / count, statistics.median(times)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1, 100, 10_000], help="how many issuers")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    await measure(10, 100)  # loads what is loaded on first use
    for count in arguments.counts:
        traced, grown, hit = await measure(count, arguments.rounds)
        row = {"issuers": count, "bytes_per_issuer": round(traced), "resident": round(grown), "hit_us": hit * 1e6}
        if arguments.json:
            print(json.dumps(row))
        else:
            print(f"{count:6} issuers: {traced:9,.0f} bytes each ({grown:9,.0f} resident), {hit * 1e6:6.1f} us per hit")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
