"""`asgi-mcp-auth demo`: an MCP server, an authorization server and a client on loopback, and every exchange explained.

All of them are real: the MCP SDK's server behind the middleware, the development authorization server, the MCP SDK's
client, and HTTP between them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import secrets
import sys
import threading

__all__ = ("run_demo",)

NEEDED = ("uvicorn", "mcp")
PORTS = (8765, 8766)


def run_demo(*, serve: bool = False, browser: bool = False) -> int:
    """Show the whole flow at work.

    Args:
        serve: Keep the servers up afterwards, and say what to paste into real clients.
        browser: Have you answer the consent pages in your browser, in place of a server that allows everything.

    Returns:
        0 only if every step did what it should.
    """
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        print(f"The demo needs {' and '.join(lacking)}: pip install 'asgi-mcp-auth[demo]'", file=sys.stderr)
        return 2
    for name in ("asgi_mcp_auth", "mcp"):  # their refusals are the show itself
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        good = _walk(browser=browser)
        if good and serve:
            _serve()
    except KeyboardInterrupt:
        return 130
    return 0 if good else 1


def _walk(*, browser: bool) -> bool:
    import anyio  # noqa: PLC0415 - the extras are known to be there only now

    from asgi_mcp_auth.cli.commands import console  # noqa: PLC0415
    from asgi_mcp_auth.cli.demo.client import person_at_the_browser, scripted_person  # noqa: PLC0415
    from asgi_mcp_auth.cli.demo.display import Display  # noqa: PLC0415
    from asgi_mcp_auth.cli.demo.servers import running  # noqa: PLC0415
    from asgi_mcp_auth.cli.demo.story import OPENING, tell_story  # noqa: PLC0415

    display = Display(console())
    person = person_at_the_browser(display.say) if browser else scripted_person
    display.act(OPENING)
    with running(display.tell, asks=browser) as servers:
        good = anyio.run(tell_story, servers, person, display)
    display.console.print("\nEvery step did what it should." if good else "\nA step did not do what it should.")
    return good


def _serve() -> None:
    from asgi_mcp_auth.cli.commands import console  # noqa: PLC0415
    from asgi_mcp_auth.cli.demo.display import Display  # noqa: PLC0415
    from asgi_mcp_auth.cli.demo.paste import CURL_CLIENT, lines_for  # noqa: PLC0415
    from asgi_mcp_auth.cli.demo.servers import READ, START_SECONDS, running, until  # noqa: PLC0415

    display = Display(console(), judge=False)
    secret = secrets.token_urlsafe(12)
    curl = {"client_id": CURL_CLIENT, "client_secret": secret, "grant_types": ["client_credentials"]}
    display.block("The servers start again, on ports that stay the same", ())
    with running(display.tell, asks=True, clients=[curl], ports=PORTS) as servers:
        until(lambda: display.has_shown("keys"), START_SECONDS)  # so that nothing comes between the lines
        place = servers.place
        display.console.print(f"\nMCP server             {place.resource}")
        display.console.print(f"Its metadata           {place.metadata_url}")
        display.console.print(f"Authorization server   {place.issuer}")
        for title, lines in lines_for(place.resource, f"{place.issuer}/token", secret, READ, "list_notes"):
            display.block(title, lines)
        display.console.print("\nWhat they do will be shown here. Ctrl-C stops.")
        sys.stdout.flush()
        _wait_for_ctrl_c()


def _wait_for_ctrl_c() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
