"""For the tests of protected apps: an issuer without a network, with faults on demand, and what to assert.

    issuer = Issuer("https://auth.example.com")
    app = MCPAuthMiddleware(app, resource=..., authorization_servers=[issuer.url], http_client=issuer.http_client)
    token = issuer.mint(audience="https://api.example.com/mcp", scope="notes:read")
    issuer.fail("/jwks", status=500)
    issuer.heal()

- `Issuer` is an ASGI app too (metadata, key set, a token endpoint that grants whatever is asked), so it can run in
  process behind `http_client` or under a server. It is for loopback and tests only: it trusts everybody.
- `without_network(auth, issuer)` puts it in the place of the issuer of an `MCPAuth` that is there already.
- `assert_challenge(response, 403, scopes="notes:write")` reads what a response asks of its client.
- `await walk_discovery(app, url, issuer)` is a client that finds its way from a 401 to an answer.
- `asgi_mcp_auth.testing.fixtures` has pytest fixtures; it has to be asked for, and nothing else here needs pytest.
"""

from asgi_mcp_auth._oauth.challenge import Challenge, parse_challenges
from asgi_mcp_auth.testing.assertions import assert_challenge
from asgi_mcp_auth.testing.discovery import walk_discovery
from asgi_mcp_auth.testing.in_process import without_network
from asgi_mcp_auth.testing.issuer import Issuer
from asgi_mcp_auth.testing.keys import SigningKey
from asgi_mcp_auth.testing.walk import Step, Walk, WalkError

__all__ = (
    "Challenge",
    "Issuer",
    "SigningKey",
    "Step",
    "Walk",
    "WalkError",
    "assert_challenge",
    "parse_challenges",
    "walk_discovery",
    "without_network",
)
