"""The options of `asgi-mcp-auth dev-server`, and its help.

The names of faults and dialects are imported when an option, its completion or the help needs them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from asgi_mcp_auth.cli._dev_server import run_dev_server
from asgi_mcp_auth.dev import DIALECTS, Switch

__all__ = ("dev_server",)

EXAMPLES = (
    ("for any MCP server on this machine", "asgi-mcp-auth dev-server"),
    (
        "for one MCP server, with one scope",
        "asgi-mcp-auth dev-server --resource http://127.0.0.1:8000/mcp --scope a:read",
    ),
    ("without the consent page, for tests", "asgi-mcp-auth dev-server --auto-approve"),
    ("with tokens like those of Entra", "asgi-mcp-auth dev-server --dialect entra-v2"),
    ("with metadata that does not announce PKCE", "asgi-mcp-auth dev-server --fault no-pkce"),
)


def _faults() -> Mapping[str, str]:
    return {switch.value: switch.meaning for switch in Switch}


def _dialects() -> Mapping[str, str]:
    return dict.fromkeys(DIALECTS, "")


if TYPE_CHECKING:
    NameType = click.ParamType[str]
else:
    NameType = click.ParamType  # generic in newer versions only


class _Named(NameType):
    """A name from a table that is loaded when the name is parsed, completed or explained."""

    def __init__(self, name: str, load: Callable[[], Mapping[str, str]]) -> None:
        self.name = name
        self._load = load

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name if the table has it; report the known names otherwise."""
        known = self._load()
        if value not in known:
            self.fail(f"there is no {self.name} {value!r}: choose one of {', '.join(known)}.", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Return the names that begin with the typed text, each with its meaning."""
        return [CompletionItem(name, help=why) for name, why in self._load().items() if name.startswith(incomplete)]


class _WithTables(click.Command):
    """A command whose help ends with examples, the faults with their meanings, and the dialects."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples and the tables."""
        with formatter.section("Examples"):
            for meaning, command in EXAMPLES:
                formatter.write(f"{' ' * formatter.current_indent}# {meaning}\n")
                formatter.write(f"{' ' * formatter.current_indent}{command}\n")
        with formatter.section("Faults (while it runs: POST {issuer}/dev/faults)"):
            formatter.write_dl(list(_faults().items()))
        with formatter.section("Dialects"):
            width = formatter.width - formatter.current_indent
            for line in textwrap.wrap(", ".join(_dialects()), width, break_on_hyphens=False):
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


@click.command("dev-server", cls=_WithTables, short_help="Run an authorization server for development.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The loopback address or name to listen on.")
@click.option(
    "--port", default=9000, show_default=True, type=click.IntRange(0, 65535), help="The port; 0 for a free one."
)
@click.option("--path", default="", metavar="/PATH", help="A path for the issuer, such as /tenant1.")
@click.option("--issuer", metavar="URL", help="The issuer identifier. Default: http://HOST:PORT/PATH.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="URL",
    help="The URL of an MCP endpoint to issue tokens for; repeatable. Default: any on this machine.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="NAME[=WORDS]",
    help="A scope to grant, and its text for the consent page; repeatable. Default: any.",
)
@click.option(
    "--default-scope",
    "default_scopes",
    multiple=True,
    metavar="NAME",
    help="A scope for requests that name none; repeatable. Default: the first --scope.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME",
    default=("alice", "bob"),
    show_default=True,
    help="A user who can sign in; repeatable.",
)
@click.option(
    "--auto-approve",
    is_flag=True,
    help="Show no consent page: approve as the first user, or as the user in login_hint. "
    "For tests only: any web page can then get tokens.",
)
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    metavar="ALG",
    default=("RS256", "ES256"),
    show_default=True,
    help="Make a signing key for this algorithm; repeatable. The first key signs.",
)
@click.option(
    "--dialect",
    type=_Named("dialect", _dialects),
    metavar="NAME",
    help="Make access tokens like those of a provider; see below.",
)
@click.option(
    "--fault",
    "faults",
    type=_Named("fault", _faults),
    multiple=True,
    metavar="NAME",
    help="Misbehave in this way; repeatable; see below.",
)
@click.option(
    "--token-lifetime",
    default=600,
    show_default=True,
    type=click.IntRange(1),
    metavar="SECONDS",
    help="The lifetime of access tokens.",
)
@click.option(
    "--refresh-lifetime",
    default=86_400,
    show_default=True,
    type=click.IntRange(1),
    metavar="SECONDS",
    help="The lifetime of refresh tokens.",
)
@click.option(
    "--code-lifetime",
    default=60,
    show_default=True,
    type=click.IntRange(1, 60),
    metavar="SECONDS",
    help="The lifetime of authorization codes.",
)
@click.option(
    "--clients",
    "clients_file",
    type=click.File("rb"),
    metavar="FILE",
    help="Clients that are registered from the start: a JSON list of client metadata (RFC 7591) "
    "with client_id and client_secret.",
)
@click.option(
    "--curl-secret",
    metavar="SECRET",
    help="The client secret in the printed curl command. Default: a new one at every start.",
)
@click.option(
    "--state",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Keep keys, registered clients and grants in this file, so that they survive a restart. Default: memory only.",
)
@click.option(
    "--no-registration",
    "no_registration",
    is_flag=True,
    help="Reject dynamic client registration.",
)
@click.option(
    "--default-auth-method",
    type=click.Choice(["client_secret_basic", "client_secret_post", "none"]),
    default="client_secret_basic",
    show_default=True,
    help="The token endpoint authentication method of a registration that names none.",
)
@click.option(
    "--no-cimd",
    "no_client_documents",
    is_flag=True,
    help="Reject client id metadata documents (CIMD).",
)
@click.option(
    "--insecure-cimd", "insecure_client_documents", is_flag=True, help="Also accept CIMD at http URLs of this machine."
)
@click.option(
    "--no-private-schemes",
    "no_private_schemes",
    is_flag=True,
    help="Reject redirect URIs with a private-use scheme (cursor://…).",
)
@click.option("--strict-application-type", is_flag=True, help="Reject loopback redirect URIs of clients of type web.")
@click.option("--no-oidc", "no_oidc", is_flag=True, help="Serve no OpenID Connect documents.")
@click.option(
    "--dangerously-allow-remote",
    "--i-know",
    is_flag=True,
    help="Listen beyond this machine. Any client that reaches the server can then sign in as any user.",
)
def dev_server(**options: Any) -> int:
    """Run an authorization server for development, on this machine.

    The server has what an MCP client needs: metadata, registration, client id metadata documents, a consent page,
    PKCE, resource indicators, refresh tokens, introspection, revocation. It asks for no password and keeps everything
    in memory. Point your app at its issuer, and your client at your app.
    """
    for name in ("registration", "client_documents", "private_schemes", "oidc"):
        options[name] = not options.pop(f"no_{name}")
    return run_dev_server(**options)
