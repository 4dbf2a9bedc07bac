"""The server of mcpauth's tutorial "Build a todo manager", with the import of mcpauth changed.

In short words, as far as it concerns auth. Changed besides: the placeholders (the issuer and the
resource come from the environment), and what mcp 2 calls otherwise than the mcp<2 of the tutorial:
`mcp.server.fastmcp.FastMCP` is `mcp.server.mcpserver.MCPServer`, and the options `stateless_http`
and `streamable_http_path` have moved from its constructor to `streamable_http_app`.

Run by tests/test_mcpauth_documentation.py: uvicorn todo_manager:app
"""

import contextlib
import os
from collections.abc import AsyncGenerator
from typing import Any

from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from asgi_mcp_auth import MCPAuth
from asgi_mcp_auth.config import AuthServerType
from asgi_mcp_auth.exceptions import BearerAuthExceptionCode, MCPAuthBearerAuthException
from asgi_mcp_auth.types import AuthInfo, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.utils import fetch_server_config

mcp = MCPServer(name="Todo Manager")

# At import, while uvicorn's event loop is running.
auth_server_config = fetch_server_config(os.environ["MCP_AUTH_ISSUER"], AuthServerType.OIDC)
resource_id = os.environ["RESOURCE"]
mcp_auth = MCPAuth(
    protected_resources=[
        ResourceServerConfig(
            metadata=ResourceServerMetadata(
                resource=resource_id,
                authorization_servers=[auth_server_config],
                scopes_supported=["create:todos", "read:todos", "delete:todos"],
            )
        )
    ]
)

todos: dict[str, dict[str, Any]] = {}


def assert_user_id(auth_info: AuthInfo | None) -> str:
    if not auth_info or not auth_info.subject:
        msg = "Invalid auth info"
        raise ValueError(msg)
    return auth_info.subject


def may(scope: str) -> bool:
    auth_info = mcp_auth.auth_info
    return scope in (auth_info.scopes if auth_info else [])


@mcp.tool()
def create_todo(content: str) -> dict[str, Any]:
    """Create a todo; needs create:todos."""
    user_id = assert_user_id(mcp_auth.auth_info)
    if not may("create:todos"):
        raise MCPAuthBearerAuthException(BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES)
    todo = {"id": str(len(todos) + 1), "content": content, "ownerId": user_id}
    todos[todo["id"]] = todo
    return todo


@mcp.tool()
def get_todos() -> dict[str, Any]:
    """List one's own todos, or everybody's with read:todos."""
    user_id = assert_user_id(mcp_auth.auth_info)
    everybody = may("read:todos")
    return {"todos": [todo for todo in todos.values() if everybody or todo["ownerId"] == user_id]}


@mcp.tool()
def delete_todo(id: str) -> dict[str, Any]:  # noqa: A002 - the tutorial's name
    """Delete one's own todo, or anybody's with delete:todos."""
    user_id = assert_user_id(mcp_auth.auth_info)
    todo = todos.get(id)
    if todo is None or (todo["ownerId"] != user_id and not may("delete:todos")):
        return {"error": "Failed to delete todo"}
    return {"message": f"Todo {id} deleted", "details": todos.pop(id)}


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[None]:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(mcp.session_manager.run())
        yield


bearer_auth = Middleware(mcp_auth.bearer_auth_middleware("jwt", resource=resource_id, audience=resource_id))
app = Starlette(
    routes=[
        *mcp_auth.resource_metadata_router().routes,
        Mount(
            "/",
            app=mcp.streamable_http_app(stateless_http=True, streamable_http_path="/"),
            middleware=[bearer_auth],
        ),
    ],
    lifespan=lifespan,
)
