"""A development authorization server: everything that an MCP client asks of one, on this machine, without a password.

    from asgi_mcp_auth.dev import DevServer

    server = DevServer("http://127.0.0.1:9000", resources=["http://127.0.0.1:8000/mcp"], scopes=["notes:read"])

It is an ASGI app for any ASGI server, and an `asgi_mcp_auth.testing.Issuer` in all else: it mints tokens, rotates
keys and fails on demand. Not for production: it trusts everybody, remembers nothing, and answers this machine only.
"""

from asgi_mcp_auth.dev.dialects import DIALECTS, Dialect
from asgi_mcp_auth.dev.server import DevServer, Exchange
from asgi_mcp_auth.dev.switches import Switch

__all__ = ("DIALECTS", "DevServer", "Dialect", "Exchange", "Switch")
