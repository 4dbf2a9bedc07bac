"""The commands and their options. The work of each command is in a module of its own.

A command returns its exit status.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import click

from asgi_mcp_auth.cli import _doctor
from asgi_mcp_auth.cli._api_keys import api_key
from asgi_mcp_auth.cli._check_config import check_config as check
from asgi_mcp_auth.cli._check_config import print_schema
from asgi_mcp_auth.cli._dev_options import dev_server
from asgi_mcp_auth.cli._recipes import print_recipe, print_recipes, recipe_names
from asgi_mcp_auth.cli._terminal import console, write
from asgi_mcp_auth.cli.demo import run_demo

__all__ = ("check_config", "commands", "completion", "config_schema", "demo", "doctor", "explain", "recipe", "run")

PROGRAM = "asgi-mcp-auth"
SHELLS = ("bash", "zsh", "fish")
INTERRUPTED = 130  # 128 + SIGINT, as shells report an interrupted program


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; an error is one paragraph that names the next step."""
    try:
        status: Any = commands.main(argv, prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as no_arguments:
        no_arguments.show()
        return no_arguments.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = PROGRAM if context is None else context.command_path
        message = " ".join(error.format_message().split())  # click folds some messages
        stop = "." if message[-1:].isalnum() else ""
        write(console(stderr=True), f"{command}: {message}{stop} See '{command} --help'.", hanging=2)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    return int(status or 0)


def _examples(*lines: str) -> str:
    """Return the epilog of a command: its examples, which click is not to fold."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _import_from_working_directory() -> None:
    """Let a configuration name modules of the working directory, as uvicorn and gunicorn do.

    A console script has its own directory in `sys.path` instead. A configuration is as trusted as the program.
    """
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_examples(f"{PROGRAM} demo", f"{PROGRAM} doctor https://api.example.com/mcp", f"{PROGRAM} doctor --help"),
)
@click.version_option(version(PROGRAM), prog_name=PROGRAM, message="%(prog)s %(version)s")
def commands() -> None:
    """OAuth 2.1 protection for MCP servers: try it, configure it, find out what is wrong."""


@commands.command(
    short_help="Run the whole flow and explain every exchange.",
    epilog=_examples(f"{PROGRAM} demo", f"{PROGRAM} demo --browser", f"{PROGRAM} demo --serve"),
)
@click.option(
    "--serve", is_flag=True, help="Keep the servers running afterwards, and print what to paste into real clients."
)
@click.option("--browser", is_flag=True, help="Ask for your consent in your browser, instead of approving for you.")
def demo(*, serve: bool, browser: bool) -> int:
    """Run the whole flow on this machine, and explain every HTTP exchange.

    The demo starts, on loopback: an MCP server with two tools that need different scopes, the development authorization
    server and the MCP SDK's own client. The exit status is 0 only if every step succeeded.
    """
    return run_demo(serve=serve, browser=browser)


@commands.command(
    "check-config",
    short_help="Check a configuration and show what it means.",
    epilog=_examples(f"{PROGRAM} check-config mcp-auth.toml", f"MCP_AUTH_CONFIG=mcp-auth.toml {PROGRAM} check-config"),
)
@click.argument("file", required=False)
def check_config(file: str | None) -> int:
    """Check a configuration FILE (TOML), and show every setting that differs from its default.

    Without a file, the MCP_AUTH_… variables of the environment are checked. Modules that the configuration names are
    also found in the working directory. Exit status: 0, or 1 for a configuration that cannot be used.
    """
    _import_from_working_directory()
    return check(file)


@commands.command("config-schema", epilog=_examples(f"{PROGRAM} config-schema > mcp-auth.schema.json"))
def config_schema() -> int:
    """Print the JSON Schema of a configuration file, for editors.

    For Even Better TOML, save the schema next to the file, and begin the file with the line
    "#:schema ./mcp-auth.schema.json".
    """
    return print_schema()


@commands.command(
    short_help="Find out what will make MCP clients fail.",
    epilog=_examples(
        f"{PROGRAM} doctor https://auth.example.com",
        f"{PROGRAM} doctor https://api.example.com/mcp",
        f"{PROGRAM} doctor mcp-auth.toml --json",
    ),
)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--as", "kind", type=click.Choice(["issuer", "resource", "config"]), help="The kind of the targets.")
@click.option("--token", metavar="-", help="Explain the token on standard input instead; only '-' is allowed.")
@click.option(
    "--send-token",
    metavar="-",
    help="Send the token on standard input to the targets that are resources, to check the app behind the middleware.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
def doctor(
    targets: tuple[str, ...], kind: Any, token: str | None, send_token: str | None, *, as_json: bool, strict: bool
) -> int:
    """Find out what will make MCP clients fail, and how to fix it.

    A TARGET is the URL of an issuer, the URL of a running protected server, or a configuration file. The kind of a URL
    is detected from its responses. What a target names is examined too: the issuers of a server, the issuers and
    servers of a file.

    Nothing is changed, and no token of yours is sent without --send-token. Exit status: 0, or 1 for errors, or 2 for a
    wrong command.
    """
    if kind == "config" or not all(map(_doctor.is_url, targets)):
        _import_from_working_directory()
    if token is not None and send_token is not None:
        raise click.UsageError("--token and --send-token cannot be combined. Remove one of them.")
    if token is not None:
        return _doctor.run_explain(_doctor.read_token(token), targets, kind, as_json=as_json)
    sent = None if send_token is None else _doctor.read_token(send_token)
    return _doctor.run_doctor(targets, kind, sent, as_json=as_json, strict=strict)


@commands.command(
    short_help="Explain an access token, step by step.",
    epilog=_examples(
        f"{PROGRAM} explain --config mcp-auth.toml",
        f"wl-paste | {PROGRAM} explain --resource https://api.example.com/mcp",
    ),
)
@click.argument("surplus", nargs=-1, metavar="< TOKEN")
@click.option("--config", help="A configuration file. Default: the MCP_AUTH_… variables, or the options below.")
@click.option("--resource", help="The resource to verify the token for.")
@click.option("--issuer", "issuers", multiple=True, help="A trusted issuer. Default: the issuers of the resource.")
@click.option("--scope", "scopes", multiple=True, help="A scope that every request needs.")
@click.option("--proof", help="A DPoP proof for a request to the resource. Verifying it uses it up.")
@click.option("--method", default="POST", help="The method of that request.", show_default=True)
@click.option("--certificate", type=click.File(), help="A PEM file with the client certificate of that request.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def explain(  # noqa: PLR0917 - one parameter for each option of the command
    surplus: tuple[str, ...],
    config: str | None,
    resource: str | None,
    issuers: tuple[str, ...],
    scopes: tuple[str, ...],
    proof: str | None,
    method: str,
    certificate: IO[str] | None,
    *,
    as_json: bool,
) -> int:
    """Explain an access token: its content, and each step of its verification.

    The token is read from standard input (on a terminal, it is asked for), never from an argument: arguments end up in
    the history of your shell, and every user of the machine can see them. Its signature is never shown. Exit status: 0
    if the token is accepted, 1 if it is rejected, 2 for a wrong command.
    """
    _import_from_working_directory()
    token = _doctor.read_token("" if surplus else "-")
    sent = _doctor.Proof(proof, method, None if certificate is None else certificate.read())
    return _doctor.explain_with(token, config, resource, issuers, scopes, as_json=as_json, sent=sent)


def _complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    del ctx, param
    return [name for name in recipe_names() if name.startswith(incomplete)]


@commands.command(
    short_help="List complete files to copy, or print one.",
    epilog=_examples(f"{PROGRAM} recipe", f"{PROGRAM} recipe fastmcp_scopes.py > server.py"),
)
@click.argument("name", required=False, shell_complete=_complete_recipe)
def recipe(name: str | None) -> int:
    """Print the recipe NAME: a complete file to copy. Without a name, list all recipes.

    The recipes are servers, clients, tests, and configurations of proxies, gunicorn, Docker Compose and Kubernetes.
    """
    return print_recipes() if name is None else print_recipe(name)


@commands.command(
    epilog=_examples(
        f'eval "$({PROGRAM} completion bash)"',
        f'eval "$({PROGRAM} completion zsh)"',
        f"{PROGRAM} completion fish | source",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print the completion script of a SHELL."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    found = get_completion_class(shell)
    if found is None:
        write(console(stderr=True), f"{PROGRAM}: click has no completion for {shell}.", hanging=2)
        return 2
    try:
        click.echo(found(commands, {}, PROGRAM, "_ASGI_MCP_AUTH_COMPLETE").source())
    except RuntimeError as unsupported:  # bash before 4.4
        write(console(stderr=True), f"{PROGRAM}: {unsupported}", hanging=2)
        return 1
    return 0


commands.add_command(dev_server)
commands.add_command(api_key)
