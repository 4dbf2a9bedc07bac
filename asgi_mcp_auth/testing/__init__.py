"""Tools for the tests of a protected app: an issuer without a network, in-process clients, and assertions.

    issuer = Issuer("https://auth.example.com")
    app = MCPAuthMiddleware(app, resource=..., authorization_servers=[issuer.url], http_client=issuer.http_client)
    token = issuer.mint(audience="https://api.example.com/mcp", scope="notes:read")
    issuer.fail("/jwks", status=500)
    issuer.heal()

- `Issuer` is an authorization server with real keys. It is also an ASGI app (metadata, key set, token endpoint), so it
  runs in process behind `http_client` or under a server. It grants every token request: use it in tests only.
- `without_network(auth, issuer)` replaces the issuers of an existing `MCPAuth` for the length of a block.
- `base_url(auth)` is the origin of the protected resource, for `TestClient(app, base_url=base_url(auth))`.
- `await call_tool(app, url, "add", {"a": 1})` calls a tool of an MCP server in process.
- `await walk_discovery(app, url, issuer)` follows the MCP authorization flow from the first 401 to a response.
- `httpx.AsyncClient(auth=DPoPAuth(token, key=issuer.proof_key))` is a client that signs each request (DPoP), and
  `issuer.prove("POST", url, token)` is one proof.
- `ClientCertificate()` is a certificate for certificate-bound tokens (mutual TLS), and its header field.
- `assert_challenge(response, 403, scopes="notes:write")` checks the challenge of a response.
- `await check_store(store)` is the contract of a `Store`, for a store of your own.
- `UpstreamAPI(url, issuer)` is an API that your app calls for its callers; it checks the tokens that arrive.
- `running(app)` runs the lifespan of an app around a block.
- `asgi_mcp_auth.testing.fixtures` has pytest fixtures. Import them explicitly; no other module here needs pytest.
"""

from asgi_mcp_auth._oauth.challenge import Challenge, parse_challenges
from asgi_mcp_auth.testing._assertions import assert_challenge
from asgi_mcp_auth.testing._certificates import ClientCertificate
from asgi_mcp_auth.testing._discovery import walk_discovery
from asgi_mcp_auth.testing._in_process import base_url, without_network
from asgi_mcp_auth.testing._issuer import Issuer
from asgi_mcp_auth.testing._keys import SigningKey
from asgi_mcp_auth.testing._lifespan import running
from asgi_mcp_auth.testing._proofs import DPoPAuth
from asgi_mcp_auth.testing._store import check_store
from asgi_mcp_auth.testing._tools import ToolCall, call_tool
from asgi_mcp_auth.testing._upstream_api import UpstreamAPI
from asgi_mcp_auth.testing._walk import Step, Walk, WalkError

__all__ = (
    "Challenge",
    "ClientCertificate",
    "DPoPAuth",
    "Issuer",
    "SigningKey",
    "Step",
    "ToolCall",
    "UpstreamAPI",
    "Walk",
    "WalkError",
    "assert_challenge",
    "base_url",
    "call_tool",
    "check_store",
    "parse_challenges",
    "running",
    "walk_discovery",
    "without_network",
)
