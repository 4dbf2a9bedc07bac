"""For tests and demonstrations: an issuer with real keys and faults on demand, and reading challenges.

    issuer = Issuer("https://auth.example.com")
    app = MCPAuthMiddleware(app, resource=..., authorization_servers=[issuer.url], http_client=issuer.http_client)
    token = issuer.mint(audience="https://api.example.com/mcp", scope="notes:read")
    issuer.fail("/jwks", status=500)
    issuer.heal()

The issuer is an ASGI app too (metadata, key set, a token endpoint that grants whatever is asked), so it can run
in process behind `http_client` or under a server. It is for loopback and tests only: it trusts everybody.
"""

from asgi_mcp_auth._protocol.challenge import Challenge, parse_challenges
from asgi_mcp_auth.testing.issuer import Issuer
from asgi_mcp_auth.testing.keys import SigningKey

__all__ = ("Challenge", "Issuer", "SigningKey", "parse_challenges")
