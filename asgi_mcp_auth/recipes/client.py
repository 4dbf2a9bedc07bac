"""A client that signs in with the browser and calls a tool.

    python client.py http://127.0.0.1:8000/mcp add_note '{"text": "milk"}'

Needs fastmcp.
"""

import asyncio
import json
import sys

from fastmcp import Client


async def main(url: str, tool: str, arguments: str = "{}") -> None:
    """Sign in, call the tool, print its result."""
    async with Client(url, auth="oauth") as client:  # or auth="<access token>"
        result = await client.call_tool(tool, json.loads(arguments))
        print(result.data)


asyncio.run(main(*sys.argv[1:]))
