"""What differs by provider: the common authorization servers as data, one row per kind of token that they issue.

`recognise` finds the rows for an issuer. The doctor's advice and the dialects of the development server are made of
them; the table in the README is held to them by a test. They were gathered from documents and dated reports, not from
the live services.
"""

from asgi_mcp_auth.providers.lookup import by_slug, recognise
from asgi_mcp_auth.providers.provider import Discovery, Provider, ResourceSupport
from asgi_mcp_auth.providers.table import PROVIDERS

__all__ = ("PROVIDERS", "Discovery", "Provider", "ResourceSupport", "by_slug", "recognise")
