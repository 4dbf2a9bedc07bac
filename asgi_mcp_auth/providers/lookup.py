"""Finding rows: by issuer, and by their short name."""

from __future__ import annotations

from asgi_mcp_auth.providers.provider import Provider
from asgi_mcp_auth.providers.table import PROVIDERS

__all__ = ("by_slug", "recognise")


def recognise(issuer: str) -> tuple[Provider, ...]:
    """The rows whose issuer has this shape, in their order; custom domains are not recognised."""
    return tuple(provider for provider in PROVIDERS if provider.issues(issuer))


def by_slug(slug: str) -> Provider | None:
    """The row of that name, if there is one."""
    return next((provider for provider in PROVIDERS if provider.slug == slug), None)
