"""Every code that a finding may have, by group, in the order of the README."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.doctor import issuer_codes, key_codes, resource_codes

__all__ = ("CODES", "GROUPS")

GROUPS: Final = {
    "at any URL": issuer_codes.ANYWHERE,
    "an issuer": issuer_codes.ISSUER,
    "its keys": key_codes.KEYS,
    "a resource": resource_codes.RESOURCE,
    "its challenges": resource_codes.CHALLENGE,
    "its metadata": resource_codes.METADATA,
    "a configuration": resource_codes.CONFIG,
}
"""By what is examined."""

CODES: Final = tuple(code for group in GROUPS.values() for code in group)
"""All of them; a name is never used for something else."""
