"""pytest fixtures for the tests of a protected app. Nothing loads them by itself: ask for them in your `conftest.py`.

    pytest_plugins = ["asgi_mcp_auth.testing.fixtures"]

    @pytest.fixture(scope="session")
    def mcp_auth():
        return notes.auth  # the MCPAuth of your app; or MCPAuthMiddleware(...).auth

or, in any `conftest.py` or test module, `from asgi_mcp_auth.testing.fixtures import mcp_bearer, mcp_issuer, mcp_token`.
This is the only module here that needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache
from typing import Any

import pytest

from asgi_mcp_auth.auth import MCPAuth, protection_of
from asgi_mcp_auth.config import DEFAULT_ALGORITHMS
from asgi_mcp_auth.testing.in_process import without_network
from asgi_mcp_auth.testing.issuer import Issuer
from asgi_mcp_auth.testing.keys import SigningKey

__all__ = ("mcp_auth", "mcp_bearer", "mcp_issuer", "mcp_token")


@cache
def _key(algorithm: str) -> SigningKey:
    """One for the process: making an RSA key is the slow part of an issuer."""
    return SigningKey(algorithm)


@pytest.fixture(scope="session")
def mcp_auth() -> MCPAuth:
    """The configuration under test, an `MCPAuth`. Define a fixture of this name that returns yours."""
    msg = "define a fixture mcp_auth that returns the MCPAuth of your app, in conftest.py or in the test's module"
    raise pytest.UsageError(msg)


@pytest.fixture
def mcp_issuer(mcp_auth: MCPAuth) -> Generator[Issuer]:
    """The issuer that `mcp_auth` names first, in process (see `without_network`): fresh and healthy for each test.

    It signs with the first algorithm that the configuration allows, RS256 before others, and tells the time by its
    clock.
    """
    first = protection_of(mcp_auth).config.resources[0].trust.named[0]
    algorithms = sorted(first.config.algorithms or DEFAULT_ALGORITHMS, key=lambda name: name != "RS256")
    issuer = Issuer(first.rules.issuer, algorithms=(), clock=protection_of(mcp_auth).clock)
    issuer.keys = [_key(algorithms[0])]
    issuer.metadata["issuer"] = first.template or issuer.url
    with without_network(mcp_auth, issuer):
        yield issuer


@pytest.fixture
def mcp_token(mcp_auth: MCPAuth, mcp_issuer: Issuer) -> Callable[..., str]:
    """A function that mints tokens: `mcp_token("notes:read", sub="alice")`.

    The scopes come first, as one string; claims follow, as for `Issuer.mint`. The audience is the first resource of
    `mcp_auth`, `aud=` another.
    """
    audience = protection_of(mcp_auth).config.resources[0].identifier

    def mint(scope: str = "", **claims: Any) -> str:
        return mcp_issuer.mint(audience, scope=scope, **claims)

    return mint


@pytest.fixture
def mcp_bearer(mcp_token: Callable[..., str]) -> Callable[..., dict[str, str]]:
    """The same as header fields: `client.get("/notes", headers=mcp_bearer("notes:read", sub="alice"))`."""

    def bearer(scope: str = "", **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {mcp_token(scope, **claims)}"}

    return bearer
