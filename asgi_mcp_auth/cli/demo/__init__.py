"""`asgi-mcp-auth demo`: an MCP server, an authorization server and a client on loopback, and every exchange explained.

All parts are real: the MCP SDK's server behind the middleware, the development authorization server, the MCP SDK's
client, and HTTP between them.
"""

from __future__ import annotations

import importlib.util

from asgi_mcp_auth.cli._terminal import console, write

__all__ = ("run_demo",)

NEEDED = ("uvicorn", "mcp")


def run_demo(*, serve: bool = False, browser: bool = False) -> int:
    """Run the demo.

    Args:
        serve: Keep the servers running afterwards, and print what to paste into real clients.
        browser: Ask for consent in the browser, instead of approving every request.

    Returns:
        0 if every step succeeded, 1 if one failed, 2 if a package is missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = f"The demo needs {' and '.join(missing)}. In a clone, run: pip install '.[demo]'"
        write(console(stderr=True), message, hanging=2)
        return 2
    from asgi_mcp_auth.cli.demo._run import run  # noqa: PLC0415 - imports the packages checked above

    return run(serve=serve, browser=browser)
