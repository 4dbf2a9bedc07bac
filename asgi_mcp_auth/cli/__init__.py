"""The command `asgi-mcp-auth`: subcommands do the work and return a number of failures; printing is theirs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="asgi-mcp-auth", description="OAuth 2.1 protection for MCP servers.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('asgi-mcp-auth')}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="show a protected app at work, over real HTTP on loopback")
    demo.add_argument("--serve", action="store_true", help="keep the app and its issuer up, and print how to call them")
    check = commands.add_parser("check-config", help="judge a configuration file, and show what it means")
    check.add_argument("file", nargs="?", help="a TOML file; without one, the MCP_AUTH_… variables are judged")
    commands.add_parser("config-schema", help="print the JSON Schema of a configuration file, for editors")
    arguments = parser.parse_args(argv)

    if arguments.command == "check-config":
        from asgi_mcp_auth.cli.check_config import check_config  # noqa: PLC0415 - importing the parser starts nothing

        return check_config(arguments.file)
    if arguments.command == "config-schema":
        from asgi_mcp_auth.cli.check_config import print_schema  # noqa: PLC0415

        return print_schema()
    from asgi_mcp_auth.cli.demo import run_demo  # noqa: PLC0415 - importing the parser starts nothing

    return run_demo(serve=arguments.serve)
