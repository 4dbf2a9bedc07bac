"""Provider data: common authorization servers, one row per kind of access token.

`recognise(issuer)` finds the rows of an issuer. The doctor's advice, the dialects of the development server and the
table in this package's README come from the rows. Sources are documents, source code and dated reports of the
providers, not their live services. The package imports nothing of `asgi_mcp_auth`.
"""

from asgi_mcp_auth.providers._provider import Discovery, Provider, ResourceSupport
from asgi_mcp_auth.providers._table import PROVIDERS, by_slug, recognise

__all__ = ("PROVIDERS", "Discovery", "Provider", "ResourceSupport", "by_slug", "recognise")
