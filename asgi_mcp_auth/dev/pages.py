"""The pages for people: consent, errors, and what is here. Values in, HTML out; every value is escaped here.

No script, nothing loaded, no frame around it. The policy has no `form-action`: Chromium applies that to the redirects
after a form too, and so to every place that an application goes on to after its callback.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from asgi_mcp_auth._policy.responses import Response
from asgi_mcp_auth.dev.clients import Client
from asgi_mcp_auth.dev.errors import PageRefused
from asgi_mcp_auth.dev.policy import OFFLINE, OPENID, ScopesAsked
from asgi_mcp_auth.dev.redirects import is_loopback_redirect, redirect_host
from asgi_mcp_auth.dev.style import STYLE, STYLE_SOURCE

__all__ = ("Consent", "consent_page", "error_page", "home_page", "scope_in_words")

LONGEST = 300
HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src %s; img-src data:; base-uri 'none'; frame-ancestors 'none'"
        % STYLE_SOURCE.encode("ascii"),
    ),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # not no-referrer, with which a browser hides where a form comes from
)
VERBS: Final = {
    "read": "Read",
    "list": "List",
    "write": "Change",
    "edit": "Change",
    "create": "Create",
    "update": "Change",
    "delete": "Delete",
    "export": "Export",
    "admin": "Manage",
    "manage": "Manage",
}


def _text(value: object) -> str:
    """A value as HTML text, in an attribute or outside: without what cannot be seen, and not without end."""
    text = str(value)
    shown = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    # Controls, and the characters that turn the direction of writing round, are not printable.
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in shown), quote=True)


def scope_in_words(scope: str, descriptions: Mapping[str, str]) -> str:
    """What a scope allows, in plain words: described in the configuration, guessed from its name, or quoted."""
    if descriptions.get(scope):
        return descriptions[scope]
    if scope == OFFLINE:
        return "Stay connected until you take it back"
    if scope == OPENID:
        return "Know who you are"
    for separator in (":", ".", "/"):
        thing, found, verb = scope.rpartition(separator)
        if found and verb.lower() in VERBS and thing and "://" not in thing:
            return f"{VERBS[verb.lower()]} {thing.replace(':', ' ').replace('.', ' ').replace('/', ' ')}"
    return "Use the permission"


def _page(status: int, title: str, main: str, *, issuer: str) -> Response:
    body = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<div class="banner" role="note"><strong>DEVELOPMENT ONLY.</strong> '
        "This server lets everybody in, without a password.</div>\n"
        f"<main>\n{main}\n</main>\n<footer>Authorization server <code>{_text(issuer)}</code></footer>\n"
        "</body>\n</html>\n"
    ).encode("utf-8", "replace")
    return Response(status, (*HEADERS, (b"content-length", str(len(body)).encode("ascii"))), body)


class Consent(NamedTuple):
    """What the consent page shows."""

    client: Client
    redirect_uri: str
    resources: tuple[str, ...]
    asked: ScopesAsked
    acr: str | None
    users: tuple[str, ...]
    user: str
    csrf: str
    action: str
    issuer: str
    descriptions: Mapping[str, str]


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>\n" + "".join(f"<div><dt>{_text(name)}</dt><dd>{shown}</dd></div>\n" for name, shown in rows) + "</dl>"


def _scopes(consent: Consent) -> str:
    asked = consent.asked
    special = [name for name, there in ((OPENID, asked.openid), (OFFLINE, asked.offline)) if there]
    names = tuple(dict.fromkeys((*asked.scopes, *special)))
    if not names:
        return "<p>Nothing beyond a sign-in: it asks for no scope.</p>"
    items = (
        f"<li>{_text(scope_in_words(name, consent.descriptions))} <code>{_text(name)}</code></li>\n" for name in names
    )
    return f"<ul>\n{''.join(items)}</ul>"


def _users(consent: Consent) -> str:
    choices = "".join(
        f'<label><input type="radio" name="user" value="{html.escape(user, quote=True)}"'
        f"{' checked' if user == consent.user else ''}> {_text(user)}</label>\n"
        for user in consent.users
    )
    return f'<fieldset>\n<legend>Sign in as</legend>\n<div class="users">\n{choices}</div>\n</fieldset>'


def consent_page(consent: Consent) -> Response:
    """Ask a person whether a client may have what it asks for. Denying is the first button, which Enter presses."""
    client = consent.client
    name, host, back = client.name or client.client_id, client.host, redirect_host(consent.redirect_uri)
    checked = (
        "The application gives itself this name. Nobody has checked it."
        if host is None
        else f"The application is described at <strong>{_text(host)}</strong>."
    )
    rows = [
        ("Application", f"{_text(name)}<br><code>{_text(client.client_id)}</code>"),
        ("Access to", "<br>".join(f"<code>{_text(resource)}</code>" for resource in consent.resources)),
        ("Sends you to", f"<code>{_text(back)}</code>"),
    ]
    if consent.acr is not None:
        rows.append(("Signs you in with", f"<code>{_text(consent.acr)}</code>"))
    warning = (
        f'<p class="note" role="note"><strong>The answer goes to a program on this computer</strong> ({_text(back)}). '
        f"Any program here can call itself “{_text(name)}”: go on only if you have just started it yourself.</p>"
        if is_loopback_redirect(consent.redirect_uri)
        else ""
    )
    return _page(
        200,
        f"Allow {name}?",
        f"<h1>Allow {_text(name)} to act for you?</h1>\n"
        f'<p class="soft">{checked}</p>\n{_rows(rows)}\n'
        f"<h2>It will be able to</h2>\n{_scopes(consent)}\n{warning}\n"
        f'<form method="post" action="{html.escape(consent.action, quote=True)}">\n'
        f'<input type="hidden" name="csrf" value="{html.escape(consent.csrf, quote=True)}">\n{_users(consent)}\n'
        '<div class="actions">\n<button type="submit" name="decision" value="deny">Deny</button>\n'
        '<button type="submit" name="decision" value="allow" class="primary">Allow</button>\n</div>\n</form>',
        issuer=consent.issuer,
    )


def error_page(refused: PageRefused, *, issuer: str) -> Response:
    """Say what is wrong with a request that cannot be sent back to where it came from."""
    return _page(
        refused.status,
        refused.TITLE,
        f"<h1>{_text(refused.TITLE)}</h1>\n<p>{_text(refused.what)}</p>\n<p>{_text(refused.fix)}</p>\n"
        f'<p class="soft">You were not sent back to the application, because it is not sure where that is.</p>\n'
        f"{_rows([('Error', f'<code>{_text(refused.error)}</code>')])}",
        issuer=issuer,
    )


def home_page(metadata: Mapping[str, object], *, issuer: str, switches: Iterable[str]) -> Response:
    """What is here, for whoever opens the issuer's URL in a browser."""
    rows = [
        ("Key set" if name == "jwks_uri" else name.removesuffix("_endpoint").capitalize(), f"<code>{_text(url)}</code>")
        for name, url in metadata.items()
        if name.endswith("_endpoint") or name == "jwks_uri"
    ]
    in_force = ", ".join(f"<code>{_text(name)}</code>" for name in sorted(switches))
    faults = f'<p class="note">Faults in force: {in_force}</p>' if in_force else ""
    return _page(
        200,
        "Development authorization server",
        "<h1>Development authorization server</h1>\n"
        "<p>MCP clients find everything from the issuer. There is nothing to do here.</p>\n"
        f"{_rows(rows)}\n{faults}",
        issuer=issuer,
    )
