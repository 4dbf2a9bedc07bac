"""A client of `dpop_server.py`: it makes a key, gets a token that is bound to the key, and signs each request.

    CLIENT_SECRET=SECRET python dpop_client.py http://127.0.0.1:8000/mcp http://127.0.0.1:9000

Then a thief tries the same token. `DPoPAuth` is of the testing kit: for production, use an OAuth library with DPoP,
such as the MCP TypeScript SDK. Needs fastmcp.
"""

import asyncio
import base64
import os
import sys

import httpx
import httpx2
from fastmcp import Client

from asgi_mcp_auth.testing import DPoPAuth


class Auth(DPoPAuth, httpx2.Auth):
    """For both: fastmcp uses httpx2."""


async def main(url: str, issuer: str) -> None:
    """Get a token, call the tool, and show that the token alone is worth nothing."""
    auth = Auth()  # a new key
    form = {"grant_type": "client_credentials", "resource": url, "scope": "notes:read"}
    secret = base64.b64encode(f"curl:{os.environ['CLIENT_SECRET']}".encode()).decode()
    async with httpx.AsyncClient(auth=auth) as http:  # signs the token request: the token is bound to the key
        response = await http.post(f"{issuer}/token", data=form, headers={"authorization": f"Basic {secret}"})
        auth.token = response.raise_for_status().json()["access_token"]
    async with Client(url, auth=auth) as client:  # signs each request, and answers nonces
        print((await client.call_tool("whoami")).data)
    async with httpx.AsyncClient(auth=DPoPAuth(auth.token)) as thief:  # the token, with another key
        print(f"A thief without the key gets {(await thief.post(url)).status_code}.")


asyncio.run(main(*sys.argv[1:]))
