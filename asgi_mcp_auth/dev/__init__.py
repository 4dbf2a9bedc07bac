"""A development authorization server: what an MCP client needs from an authorization server, without passwords.

    from asgi_mcp_auth.dev import DevServer

    server = DevServer("http://127.0.0.1:9000", resources=["http://127.0.0.1:8000/mcp"], scopes=["notes:read"])

A `DevServer` is an ASGI app for any ASGI server. It extends `asgi_mcp_auth.testing.Issuer`, so it mints tokens, rotates
keys and fails on demand. Do not use it in production: any user name signs in without a password, and the server answers
only requests from this machine.
"""

from asgi_mcp_auth.dev._dialects import DIALECTS, Dialect
from asgi_mcp_auth.dev._server import DevServer, Exchange
from asgi_mcp_auth.dev._switches import Switch

__all__ = ("DIALECTS", "DevServer", "Dialect", "Exchange", "Switch")
