"""Signing keys change at a certified authorization server that is restarted with others, under load and under attack.

The server is a process; the protected app is called in process, with a clock that can be put ahead of the real one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Any

import anyio
import anyio.to_thread
import pytest
from harness import R, RecordingApp, bearer, call
from jwt.algorithms import ECAlgorithm
from processes import AuthorizationServer, authorization_server, free_port, require_authorization_server

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth.testing import SigningKey

pytestmark = pytest.mark.anyio

REFILL = 31.0  # seconds until an empty bucket for unknown kids allows a fetch, and one more


def new_key() -> dict[str, Any]:
    """A private JWK."""
    key = SigningKey("ES256")
    return {**ECAlgorithm.to_jwk(key.private, as_dict=True), "kid": key.kid, "alg": "ES256", "use": "sig"}


class Server:
    """The authorization server, from its operator's point of view."""

    def __init__(self, stack: contextlib.ExitStack, keys: Sequence[dict[str, Any]]) -> None:
        self._port = free_port()
        self._process = stack.enter_context(contextlib.ExitStack())
        self.restart(keys)

    def restart(self, keys: Sequence[dict[str, Any]], ahead: float = 0.0) -> None:
        """The same server with these keys, the signing key first; its clock is put where the app's is."""
        self._process.close()
        started = authorization_server(alg="ES256", ttl=3600, port=self._port, keys=keys, ahead=ahead)
        self.now: AuthorizationServer = self._process.enter_context(started)

    async def mint(self) -> str:
        return await anyio.to_thread.run_sync(lambda: self.now.client_credentials(resource=R))

    async def fetches(self) -> int:
        return (await anyio.to_thread.run_sync(self.now.stats)).get("/jwks", 0)


class CompiledConfig:
    """A protected app with its clock."""

    def __init__(self, issuer: str) -> None:
        self.ahead = 0.0
        metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer])
        config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"]))
        self.auth = MCPAuth(config, clock=lambda: time.time() + self.ahead, token_cache_size=0)
        self.app = self.auth.wrap(RecordingApp())

    async def ask(self, token: str) -> int:
        answer = await call(self.app, headers=bearer(token))
        assert (answer.status == 503) == (answer.header("retry-after") is not None)
        return answer.status


@pytest.fixture
def first() -> dict[str, Any]:
    return new_key()


@pytest.fixture
def server(first: dict[str, Any]) -> Generator[Server]:
    require_authorization_server()
    with contextlib.ExitStack() as stack:
        yield Server(stack, [first])


def guess(token: str, site: CompiledConfig) -> str:
    """A token of a random kid, which may be as new as can be or old."""

    def encode(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    _, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["iat"] = int(time.time() + site.ahead) - secrets.choice([0, 1000])
    header = {"alg": "ES256", "typ": "at+jwt", "kid": secrets.token_urlsafe(8)}
    return f"{encode(header)}.{encode(claims)}.{signature}"


@pytest.mark.requirement("DC-10", "RS-77")
async def test_no_good_token_is_refused_while_keys_change(server: Server, first: dict[str, Any]) -> None:
    site = CompiledConfig(server.now.issuer)
    goods = [await server.mint() for _ in range(5)]
    sample = goods[0]
    assert await site.ask(sample) == 200
    load: Counter[int] = Counter()
    flood: Counter[int] = Counter()

    async def keep_asking() -> None:
        while True:
            for token in tuple(goods):
                status = await site.ask(token)
                if token in goods:  # one of a key that has left since is no good one
                    load[status] += 1
            await anyio.sleep(0.001)

    async def keep_guessing() -> None:
        while True:
            for _ in range(20):
                flood[await site.ask(guess(sample, site))] += 1
            await anyio.sleep(0.001)

    keys = [first]
    async with anyio.create_task_group() as group:
        group.start_soon(keep_asking)
        group.start_soon(keep_guessing)
        # Twice the key from before stays published; then all are replaced at once, without notice.
        for kept in (1, 1, 0):
            keys = [new_key(), *keys[:kept]]
            goods[:] = goods[-5 * kept :] if kept else []  # those of keys that stay
            await anyio.to_thread.run_sync(server.restart, keys, site.ahead)
            tokens = [await server.mint() for _ in range(5)]
            assert {await site.ask(token) for token in tokens} <= {200, 503}
            site.ahead += REFILL
            assert await site.ask(tokens[0]) == 200  # the first one that the bucket allows
            goods += tokens
            assert {await site.ask(token) for token in tokens} == {200}
            assert await server.fetches() <= 3  # two of the bucket after the restart, and one now
        before = load.total()
        with anyio.fail_after(10):
            while load.total() < before + 100:  # noqa: ASYNC110 - nothing to wait for
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert load == {200: load.total()}
    assert set(flood) <= {401, 503}
    assert flood.total() > 1000


@pytest.mark.requirement("DC-10")
async def test_keys_published_before_they_are_used_cost_no_fetch(server: Server, first: dict[str, Any]) -> None:
    site, second = CompiledConfig(server.now.issuer), new_key()
    assert await site.ask(await server.mint()) == 200
    site.ahead += 700  # the usual refresh
    await anyio.to_thread.run_sync(server.restart, [first, second], site.ahead)
    assert await site.ask(await server.mint()) == 200
    with anyio.fail_after(10):
        while site.auth.status().issuers[0].key_set.state != "fresh":  # noqa: ASYNC110 - nothing to wait for
            await anyio.sleep(0.01)
    assert await server.fetches() == 1
    await anyio.to_thread.run_sync(server.restart, [second, first], site.ahead)
    assert {await site.ask(await server.mint()) for _ in range(10)} == {200}
    assert await server.fetches() == 0


@pytest.mark.requirement("DC-10")
@pytest.mark.every_loop
async def test_a_new_key_passes_on_its_first_request(server: Server) -> None:
    site = CompiledConfig(server.now.issuer)
    assert await site.ask(await server.mint()) == 200
    for _ in range(2):
        await anyio.to_thread.run_sync(server.restart, [new_key()], site.ahead)
        assert await site.ask(await server.mint()) == 200
        assert await server.fetches() == 1
