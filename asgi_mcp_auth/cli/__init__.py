"""The command `asgi-mcp-auth`. Its arguments and output are click's and rich's, of the extra `cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for what was found wrong, 2 for a wrong command."""
    try:
        from asgi_mcp_auth.cli.commands import run  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        package = str(missing.name).partition(".")[0]
        if package not in ("click", "rich"):
            raise
        print(f"asgi-mcp-auth needs {package}: pip install 'asgi-mcp-auth[cli]'", file=sys.stderr)
        return 2
    return run(argv)
