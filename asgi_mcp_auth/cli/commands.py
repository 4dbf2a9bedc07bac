"""The commands and their options; a command's work is in a module of its own, loaded when it runs.

A command returns its exit status. Colours, where there are any, are for terminals only.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import click
import rich.console

from asgi_mcp_auth.cli.dev_options import dev_server

__all__ = (
    "check_config",
    "commands",
    "completion",
    "config_schema",
    "console",
    "demo",
    "dev_server",
    "doctor",
    "explain",
    "run",
)

PROGRAM = "asgi-mcp-auth"
SHELLS = ("bash", "zsh", "fish")


def console(*, stderr: bool = False) -> rich.console.Console:
    """Where people read: coloured on a terminal, unless NO_COLOR is set, plain and never folded elsewhere."""
    return rich.console.Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; an error is one line that says what to do next."""
    try:
        status: Any = commands.main(argv, prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as no_arguments:
        no_arguments.show()
        return no_arguments.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = PROGRAM if context is None else context.command_path
        message = " ".join(error.format_message().split())  # click folds some
        stop = "." if message[-1:].isalnum() else ""
        click.echo(f"{command}: {message}{stop} See '{command} --help'.", err=True)
        return error.exit_code
    except click.Abort:
        return 130  # as a shell says it of an interrupted program
    return int(status or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version(PROGRAM), prog_name=PROGRAM, message="%(prog)s %(version)s")
def commands() -> None:
    """OAuth 2.1 protection for MCP servers: try it, configure it, find out what is wrong."""


@commands.command(short_help="Show the whole flow at work, exchange by exchange.")
@click.option(
    "--serve", is_flag=True, help="Keep the servers up afterwards, and print what to paste into real clients."
)
@click.option("--browser", is_flag=True, help="Have you answer the consent pages, in your browser.")
def demo(*, serve: bool, browser: bool) -> int:
    """Show the whole flow at work: every exchange of a real client, and what it means.

    On loopback, over real HTTP: an MCP server with two tools of different scopes, the development authorization server
    and the MCP SDK's own client. The exit status is 0 only if every step did what it should.
    """
    from asgi_mcp_auth.cli.demo import run_demo  # noqa: PLC0415

    return run_demo(serve=serve, browser=browser)


@commands.command("check-config")
@click.argument("file", required=False)
def check_config(file: str | None) -> int:
    """Judge a configuration FILE (TOML), and show what it means.

    Without a file, the MCP_AUTH_… variables of the environment are judged.
    """
    from asgi_mcp_auth.cli.check_config import check_config as check  # noqa: PLC0415

    return check(file)


@commands.command("config-schema")
def config_schema() -> int:
    """Print the JSON Schema of a configuration file, for editors.

    For Even Better TOML, say: asgi-mcp-auth config-schema > mcp-auth.schema.json, and in the file's first line
    #:schema ./mcp-auth.schema.json
    """
    from asgi_mcp_auth.cli.check_config import print_schema  # noqa: PLC0415

    return print_schema()


@commands.command(
    short_help="Find out what will make MCP clients fail.",
    epilog="\b\nasgi-mcp-auth doctor https://auth.example.com\nasgi-mcp-auth doctor https://api.example.com/mcp\n"
    "asgi-mcp-auth doctor mcp-auth.toml --json",
)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--as", "kind", type=click.Choice(["issuer", "resource", "config"]), help="What the targets are.")
@click.option("--token", metavar="-", help="Explain the token on standard input instead; only '-' is allowed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
def doctor(targets: tuple[str, ...], kind: Any, token: str | None, *, as_json: bool, strict: bool) -> int:
    """Find out what will make MCP clients fail, and how to mend it.

    A TARGET is the URL of an issuer, the URL of a live protected server, or a configuration file. Which one, is told by
    what answers. What a target names is examined too: the issuers of a server, the issuers and servers of a file.

    Nothing is changed, and no token of yours is sent. Exit status: 0, or 1 for errors, or 2 for a wrong command.
    """
    from asgi_mcp_auth.cli import doctor as printing  # noqa: PLC0415

    if token is not None:
        return printing.run_explain(printing.token_from(token), targets, kind, as_json=as_json)
    return printing.run_doctor(targets, kind, as_json=as_json, strict=strict)


@commands.command(
    short_help="Explain an access token, step by step.",
    epilog="\b\nasgi-mcp-auth explain --config mcp-auth.toml\n"
    "wl-paste | asgi-mcp-auth explain --resource https://api.example.com/mcp",
)
@click.argument("surplus", nargs=-1, metavar="< TOKEN")
@click.option("--config", help="A configuration file; without one, the MCP_AUTH_… variables, or the options below.")
@click.option("--resource", help="The resource to judge it for.")
@click.option("--issuer", "issuers", multiple=True, help="An issuer to trust; default: those that the resource names.")
@click.option("--scope", "scopes", multiple=True, help="A scope that every request needs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def explain(
    surplus: tuple[str, ...],
    config: str | None,
    resource: str | None,
    issuers: tuple[str, ...],
    scopes: tuple[str, ...],
    *,
    as_json: bool,
) -> int:
    """Explain an access token: what it says, and each step of its verification.

    The token is read from standard input (on a terminal, it is asked for), never from an argument: arguments end up in
    the history of your shell, and every user of the machine can see them. Its signature is never shown. Exit status: 0
    accepted, 1 refused.
    """
    from asgi_mcp_auth.cli import doctor as printing  # noqa: PLC0415

    token = printing.token_from("" if surplus else "-")
    return printing.explain_with(token, config, resource, issuers, scopes, as_json=as_json)


@commands.command(
    epilog='\b\neval "$(asgi-mcp-auth completion bash)"\neval "$(asgi-mcp-auth completion zsh)"\n'
    "asgi-mcp-auth completion fish | source"
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print the completion script of a SHELL."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is None:
        click.echo(f"{PROGRAM}: click knows no {shell}.", err=True)
        return 2
    try:
        click.echo(found(commands, {}, PROGRAM, "_ASGI_MCP_AUTH_COMPLETE").source())
    except RuntimeError as too_old:  # bash before 4.4
        click.echo(f"{PROGRAM}: {too_old}", err=True)
        return 1
    return 0


commands.add_command(dev_server)
