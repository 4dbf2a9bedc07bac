"""The options of `asgi-mcp-auth dev-server`, and its help; what they name is loaded only when it is needed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

__all__ = ("dev_server",)


def _faults() -> Mapping[str, str]:
    from asgi_mcp_auth.dev import Switch  # noqa: PLC0415

    return {switch.value: switch.meaning for switch in Switch}


def _dialects() -> Mapping[str, str]:
    from asgi_mcp_auth.dev import DIALECTS  # noqa: PLC0415

    return dict.fromkeys(DIALECTS, "")


if TYPE_CHECKING:
    NameType = click.ParamType[str]
else:
    NameType = click.ParamType  # generic in newer versions only


class _Named(NameType):
    """One of some names, which are loaded when one is given, completed or explained."""

    def __init__(self, name: str, load: Callable[[], Mapping[str, str]]) -> None:
        self.name = name
        self._load = load

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, if there is such a one."""
        known = self._load()
        if value not in known:
            self.fail(f"there is no {self.name} {value!r}: choose among {', '.join(known)}.", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """The names that begin so."""
        return [CompletionItem(name, help=why) for name, why in self._load().items() if name.startswith(incomplete)]


class _WithTables(click.Command):
    """A command whose help ends with what the names of faults and dialects mean."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples and the tables."""
        with formatter.section("Examples"):
            formatter.write_dl(
                [
                    ("any MCP server on this machine", "asgi-mcp-auth dev-server"),
                    ("yours", "… --resource http://127.0.0.1:8000/mcp --scope notes:read"),
                    ("without the consent page, for tests", "… --auto-approve"),
                    ("tokens shaped like Entra's", "… --dialect entra-v2"),
                    ("a server without PKCE metadata", "… --fault no-pkce"),
                ]
            )
        with formatter.section('Faults, also at run time: POST {issuer}/dev/faults with {"on": ["no-iss"]}'):
            formatter.write_dl(list(_faults().items()))
        with formatter.section("Dialects"):
            width = formatter.width - formatter.current_indent
            for line in textwrap.wrap(", ".join(_dialects()), width, break_on_hyphens=False):
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


@click.command("dev-server", cls=_WithTables, short_help="Run an authorization server for development.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The loopback address or name to listen on.")
@click.option("--port", default=9000, show_default=True, type=click.IntRange(0, 65535), help="0 for a free one.")
@click.option("--path", default="", metavar="/PATH", help="A path for the issuer, such as /tenant1.")
@click.option("--issuer", metavar="URL", help="The issuer identifier, where it is not http://HOST:PORT/PATH.")
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
    help="A scope to grant, and what it means for people; repeatable. Default: any.",
)
@click.option(
    "--default-scope",
    "default_scopes",
    multiple=True,
    metavar="NAME",
    help="What a request gets that names none; repeatable. Default: the first --scope.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME",
    default=("alice", "bob"),
    show_default=True,
    help="Who can sign in; repeatable.",
)
@click.option(
    "--auto-approve",
    is_flag=True,
    help="Show no consent page: approve as the first user, or as the one in login_hint. "
    "Any web page can get tokens then: for tests.",
)
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    metavar="ALG",
    default=("RS256", "ES256"),
    show_default=True,
    help="A signing key for each; the first one signs.",
)
@click.option(
    "--dialect",
    type=_Named("dialect", _dialects),
    metavar="NAME",
    help="Shape access tokens as a provider does; see below.",
)
@click.option(
    "--fault",
    "faults",
    type=_Named("fault", _faults),
    multiple=True,
    metavar="NAME",
    help="Do something wrong; repeatable; see below.",
)
@click.option(
    "--token-lifetime",
    default=600,
    show_default=True,
    type=click.IntRange(1),
    metavar="SECONDS",
    help="Of access tokens.",
)
@click.option(
    "--refresh-lifetime",
    default=86_400,
    show_default=True,
    type=click.IntRange(1),
    metavar="SECONDS",
    help="Of refresh tokens.",
)
@click.option(
    "--code-lifetime",
    default=60,
    show_default=True,
    type=click.IntRange(1, 60),
    metavar="SECONDS",
    help="Of authorization codes.",
)
@click.option(
    "--clients",
    "clients_file",
    type=click.File("rb"),
    metavar="FILE",
    help="Clients that need not register: a JSON list of metadata as for registration (RFC 7591), "
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
    help="Let no client register itself.",
)
@click.option(
    "--default-auth-method",
    type=click.Choice(["client_secret_basic", "client_secret_post", "none"]),
    default="client_secret_basic",
    show_default=True,
    help="Of a registration that names none.",
)
@click.option(
    "--no-cimd",
    "no_client_documents",
    is_flag=True,
    help="Accept no client id metadata documents.",
)
@click.option(
    "--insecure-cimd", "insecure_client_documents", is_flag=True, help="Accept those at http URLs of this machine too."
)
@click.option(
    "--no-private-schemes",
    "no_private_schemes",
    is_flag=True,
    help="Refuse redirect URIs with an app's own scheme (cursor://…).",
)
@click.option("--strict-application-type", is_flag=True, help="Refuse loopback redirect URIs to clients of type web.")
@click.option("--no-oidc", "no_oidc", is_flag=True, help="Serve no OpenID Connect documents.")
@click.option(
    "--dangerously-allow-remote",
    "--i-know",
    is_flag=True,
    help="Listen beyond this machine. Everybody who reaches the server can be anybody.",
)
def dev_server(**options: Any) -> int:
    """Run an authorization server for development, on this machine.

    It does what an MCP client asks of one: metadata, registration, client id metadata documents, a consent page,
    PKCE, resource indicators, refresh tokens, introspection, revocation. It asks for no password and keeps everything
    in memory. Point your app at its issuer, and your client at your app.
    """
    from asgi_mcp_auth.cli.dev_server import run_dev_server  # noqa: PLC0415

    for name in ("registration", "client_documents", "private_schemes", "oidc"):
        options[name] = not options.pop(f"no_{name}")
    return run_dev_server(**options)
