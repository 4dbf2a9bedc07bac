"""Tests of the tools of fastmcp_scopes.py, in process.

They need no server, no network and no authorization server.

    pytest test_tools.py

Needs fastmcp and pytest, and fastmcp_scopes.py in the same folder.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from fastmcp_scopes import app as protected

from asgi_mcp_auth import MCPAuth
from asgi_mcp_auth.testing import assert_challenge, call_tool, running

pytest_plugins = ["asgi_mcp_auth.testing.fixtures"]
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run the tests on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def mcp_auth() -> MCPAuth:
    """Return the configuration whose issuer the fixtures of the kit replace."""
    return protected.auth


@pytest.fixture(scope="module")
async def app() -> AsyncGenerator[Any]:
    """Start the app once: the session manager of an MCP server starts once only."""
    async with running(protected) as started:
        yield started


async def test_callers_see_their_own_notes(app: Any, mcp_url: str, mcp_token: Callable[..., str]) -> None:
    """Data is kept by `principal.key`."""
    alice = mcp_token("notes:read notes:write", sub="alice")
    bob = mcp_token("notes:read", sub="bob")
    await call_tool(app, mcp_url, "create_note", {"text": "milk"}, token=alice)
    for token, notes in ((alice, ["milk"]), (bob, [])):
        call = await call_tool(app, mcp_url, "list_notes", token=token)
        assert call.result["structuredContent"] == {"result": notes}


async def test_purge_needs_its_own_scope(app: Any, mcp_url: str, mcp_token: Callable[..., str]) -> None:
    """A token without `notes:admin` gets 403, with the scopes to ask for."""
    call = await call_tool(app, mcp_url, "purge", token=mcp_token("notes:read"))
    assert_challenge(call, 403, error="insufficient_scope", scopes="notes:read notes:admin")
