"""The command `asgi-mcp-auth`; its output needs click and rich, which the extra `cli` installs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 if the command found errors, 2 for a wrong command."""
    try:
        from asgi_mcp_auth.cli._commands import run  # noqa: PLC0415 - needs the extra `cli`
    except ModuleNotFoundError as missing:
        package = str(missing.name).partition(".")[0]
        if package not in ("click", "rich"):
            raise
        print(f"asgi-mcp-auth needs {package}. In a clone, run: pip install '.[cli]'", file=sys.stderr)
        return 2
    return run(argv)
