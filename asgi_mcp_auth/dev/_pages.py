"""The HTML pages of the server: consent, errors, home. Every value is escaped here.

The pages have no scripts and no external resources, and cannot be framed. Their Content-Security-Policy has no
`form-action`: Chromium applies `form-action` to the redirects after a form too, so it would block redirect URIs.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from asgi_mcp_auth._oauth.responses import Response
from asgi_mcp_auth.dev._clients import Client
from asgi_mcp_auth.dev._errors import PageError
from asgi_mcp_auth.dev._policy import OFFLINE, OPENID, ScopeSet
from asgi_mcp_auth.dev._redirects import is_loopback_redirect, redirect_host
from asgi_mcp_auth.dev._style import STYLE, STYLE_SOURCE

__all__ = ("Consent", "consent_page", "describe_scope", "error_page", "home_page")

MAX_TEXT = 300
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
    (b"referrer-policy", b"same-origin"),  # not no-referrer: it makes browsers send `Origin: null` with the form
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
    """Return a value as escaped HTML text or attribute value, shortened, without unprintable characters."""
    text = str(value)
    shown = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    # Control characters and characters that reverse the writing direction are not printable.
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in shown), quote=True)


def describe_scope(scope: str, descriptions: Mapping[str, str]) -> str:
    """Return what a scope allows in plain words: the configured description, or a guess from the name."""
    if descriptions.get(scope):
        return descriptions[scope]
    if scope == OFFLINE:
        return "Stay connected until you revoke the access"
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
        "This server signs in any user without a password.</div>\n"
        f"<main>\n{main}\n</main>\n<footer>Authorization server <code>{_text(issuer)}</code></footer>\n"
        "</body>\n</html>\n"
    ).encode("utf-8", "replace")
    return Response(status, (*HEADERS, (b"content-length", str(len(body)).encode("ascii"))), body)


class Consent(NamedTuple):
    """The values on the consent page."""

    client: Client
    redirect_uri: str
    resources: tuple[str, ...]
    requested: ScopeSet
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
    requested = consent.requested
    special = [name for name, there in ((OPENID, requested.openid), (OFFLINE, requested.offline)) if there]
    names = tuple(dict.fromkeys((*requested.scopes, *special)))
    if not names:
        return "<p>Sign you in. The application requests no scopes.</p>"
    items = (
        f"<li>{_text(describe_scope(name, consent.descriptions))} <code>{_text(name)}</code></li>\n" for name in names
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
    """Return the page that asks a person for consent. Enter presses the first button, which is Deny."""
    client = consent.client
    name, host, target = client.name or client.client_id, client.host, redirect_host(consent.redirect_uri)
    origin = (
        "The application chose this name itself. The name is not verified."
        if host is None
        else f"The application is described at <strong>{_text(host)}</strong>."
    )
    rows = [
        ("Application", f"{_text(name)}<br><code>{_text(client.client_id)}</code>"),
        ("Access to", "<br>".join(f"<code>{_text(resource)}</code>" for resource in consent.resources)),
        ("Sends you to", f"<code>{_text(target)}</code>"),
    ]
    if consent.acr is not None:
        rows.append(("Signs you in with", f"<code>{_text(consent.acr)}</code>"))
    warning = (
        '<p class="note" role="note"><strong>The answer goes to a program on this computer</strong> '
        f"({_text(target)}). Any program here can call itself “{_text(name)}”: "
        "allow this only if you started the program yourself.</p>"
        if is_loopback_redirect(consent.redirect_uri)
        else ""
    )
    return _page(
        200,
        f"Allow {name}?",
        f"<h1>Allow {_text(name)} to act for you?</h1>\n"
        f'<p class="soft">{origin}</p>\n{_rows(rows)}\n'
        f"<h2>It will be able to</h2>\n{_scopes(consent)}\n{warning}\n"
        f'<form method="post" action="{html.escape(consent.action, quote=True)}">\n'
        f'<input type="hidden" name="csrf" value="{html.escape(consent.csrf, quote=True)}">\n{_users(consent)}\n'
        '<div class="actions">\n<button type="submit" name="decision" value="deny">Deny</button>\n'
        '<button type="submit" name="decision" value="allow" class="primary">Allow</button>\n</div>\n</form>',
        issuer=consent.issuer,
    )


def error_page(error: PageError, *, issuer: str) -> Response:
    """Return the page that shows an error instead of an automatic redirect.

    The page links to the redirect URI if the URI is known. The person decides whether to follow the link.
    """
    if error.return_to is None:
        title = "This request cannot be answered"
        back = "<p>You were not sent back to the application, because its address is not known.</p>"
    else:
        title = "The application did not get access"
        link = f'<a href="{html.escape(error.return_to, quote=True)}">{_text(redirect_host(error.return_to))}</a>'
        back = (
            "<p>You were not sent back automatically, because any website can register an application here. "
            f"Return to the application only if you trust it: {link}</p>"
        )
    return _page(
        error.status,
        title,
        f"<h1>{title}</h1>\n<p>{_text(error.what)}</p>\n<p>{_text(error.fix)}</p>\n{back}\n"
        f"{_rows([('Error', f'<code>{_text(error.error)}</code>')])}",
        issuer=issuer,
    )


def home_page(metadata: Mapping[str, object], *, issuer: str, switches: Iterable[str]) -> Response:
    """Return the page at the issuer's URL, which lists the endpoints and the active faults."""
    rows = [
        ("Key set" if name == "jwks_uri" else name.removesuffix("_endpoint").capitalize(), f"<code>{_text(url)}</code>")
        for name, url in metadata.items()
        if name.endswith("_endpoint") or name == "jwks_uri"
    ]
    active = ", ".join(f"<code>{_text(name)}</code>" for name in sorted(switches))
    faults = f'<p class="note">Active faults: {active}</p>' if active else ""
    return _page(
        200,
        "Development authorization server",
        "<h1>Development authorization server</h1>\n"
        "<p>MCP clients discover the endpoints from this URL. You need not do anything on this page.</p>\n"
        f"{_rows(rows)}\n{faults}",
        issuer=issuer,
    )
