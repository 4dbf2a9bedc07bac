"""The ways to construct `MCPAuth` that read plain values; what reads them is imported when one is called.

Most servers are configured in Python, and importing the readers takes as long as all of `_protocol.claims` to `urls`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

if TYPE_CHECKING:
    from asgi_mcp_auth._options import MCPAuthOptions

__all__ = ("FromSettings",)


class FromSettings:
    """The ways to construct `MCPAuth` that read plain values."""

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], **options: Unpack[MCPAuthOptions]) -> Self:
        """Construct from plain values, as JSON or TOML say them.

        Args:
            settings: The parameters of the constructor by name, nested dataclasses as mappings; or the shorthand
                `resource`, `authorization_servers`, `required_scopes` instead of `protected_resources`. A hook is
                an import string `"module:attribute"` or `"module:factory()"`. In place of any value, `{"from_env":
                "NAME"}` or `{"from_file": "path"}` is the text of a variable or a file, which no message shows.
            options: Parameters of the constructor that are not in `settings`, hooks as objects above all.

        Raises:
            ConfigurationError: Unknown keys, wrong types and wrong values, all at once, each with its place.
        """
        from asgi_mcp_auth._settings.loader import from_mapping  # noqa: PLC0415

        return from_mapping(cls, settings, options)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **options: Unpack[MCPAuthOptions]) -> Self:
        """Construct from a TOML file; see `from_mapping`. `from_file` is relative to the file's folder.

        Raises:
            ConfigurationError: The file cannot be read; or as `from_mapping`, each with its line.
        """
        from asgi_mcp_auth._settings.loader import from_toml  # noqa: PLC0415

        return from_toml(cls, path, options)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Unpack[MCPAuthOptions]) -> Self:
        """Construct from environment variables: `MCP_AUTH_CONFIG` names a TOML file, or the settings stand there.

        `MCP_AUTH_RESOURCE`, `MCP_AUTH_AUTHORIZATION_SERVERS`, `MCP_AUTH_REQUIRED_SCOPES`, and every parameter of the
        constructor in capitals after `MCP_AUTH_`. Lists of texts are separated by spaces; the rest is JSON.

        Args:
            environ: The variables; default: those of the process, now.
            options: As `from_mapping`.

        Raises:
            ConfigurationError: As `from_mapping`; an unknown `MCP_AUTH_…` or an empty one is a problem too.
        """
        from asgi_mcp_auth._settings.loader import from_env  # noqa: PLC0415

        return from_env(cls, environ, options)
