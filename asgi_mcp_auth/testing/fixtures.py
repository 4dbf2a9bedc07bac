"""pytest fixtures for the tests of a protected app. Load them explicitly in your `conftest.py`.

    pytest_plugins = ["asgi_mcp_auth.testing.fixtures"]

    @pytest.fixture(scope="session")
    def mcp_auth():
        return notes.auth  # the MCPAuth of your app; or MCPAuthMiddleware(...).auth

In a `conftest.py` below the topmost one, or in a test module, import the fixtures by name instead:
`from asgi_mcp_auth.testing.fixtures import mcp_base_url, mcp_bearer, mcp_issuer, mcp_token, mcp_url`.
This is the only module of the kit that needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache
from typing import Any

import pytest

from asgi_mcp_auth.auth import MCPAuth, protection_of
from asgi_mcp_auth.config import DEFAULT_ALGORITHMS
from asgi_mcp_auth.testing._in_process import base_url, first_resource, without_network
from asgi_mcp_auth.testing._issuer import Issuer
from asgi_mcp_auth.testing._keys import SigningKey

__all__ = ("mcp_auth", "mcp_base_url", "mcp_bearer", "mcp_issuer", "mcp_token", "mcp_url")


@cache
def _key(algorithm: str) -> SigningKey:
    """Return one key per process: making an RSA key is the slow part of an issuer."""
    return SigningKey(algorithm)


@pytest.fixture(scope="session")
def mcp_auth() -> MCPAuth:
    """Return the `MCPAuth` under test. Define a fixture with this name that returns yours."""
    msg = "define a fixture mcp_auth that returns the MCPAuth of your app, in conftest.py or in the test's module"
    raise pytest.UsageError(msg)


@pytest.fixture
def mcp_url(mcp_auth: MCPAuth) -> str:
    """Return the URL of the first resource of `mcp_auth`, for `call_tool` and `walk_discovery`."""
    return first_resource(mcp_auth)


@pytest.fixture
def mcp_base_url(mcp_auth: MCPAuth) -> str:
    """Return the origin of the first resource: `TestClient(app, base_url=mcp_base_url)` (see `base_url`)."""
    return base_url(mcp_auth)


@pytest.fixture
def mcp_issuer(mcp_auth: MCPAuth) -> Generator[Issuer]:
    """Yield the first issuer of `mcp_auth`, in process (see `without_network`), without faults for each test.

    The issuer signs with the first algorithm that the configuration allows, RS256 before others, and uses its clock.
    """
    first = protection_of(mcp_auth).config.resources[0].trust.named[0]
    algorithms = sorted(first.config.algorithms or DEFAULT_ALGORITHMS, key=lambda name: name != "RS256")
    issuer = Issuer(first.rules.issuer, algorithms=(), clock=protection_of(mcp_auth).clock)
    issuer.keys = [_key(algorithms[0])]
    issuer.metadata["issuer"] = first.template or issuer.url
    with without_network(mcp_auth, issuer):
        yield issuer


@pytest.fixture
def mcp_token(mcp_issuer: Issuer, mcp_url: str) -> Callable[..., str]:
    """Return a function that mints tokens for the first resource: `mcp_token("notes:read", sub="alice")`.

    The first argument has the scopes, in one string. Keyword arguments are claims, as for `Issuer.mint`; `aud=`
    replaces the audience.
    """

    def mint(scope: str = "", **claims: Any) -> str:
        return mcp_issuer.mint(mcp_url, scope=scope, **claims)

    return mint


@pytest.fixture
def mcp_bearer(mcp_token: Callable[..., str]) -> Callable[..., dict[str, str]]:
    """Return a function that mints tokens as header fields: `client.get(url, headers=mcp_bearer("notes:read"))`."""

    def bearer(scope: str = "", **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {mcp_token(scope, **claims)}"}

    return bearer
