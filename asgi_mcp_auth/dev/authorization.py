"""The authorization endpoint and the consent page's answer (OAuth 2.1 section 4.1, RFC 9207, RFC 9470).

A request is judged in an order that is a matter of safety: who asks and where the answer would go, before anything
that may be answered by sending the browser there.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from asgi_mcp_auth._policy.responses import Header, Response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.clients import Client
from asgi_mcp_auth.dev.core import Core, Reply
from asgi_mcp_auth.dev.errors import OAuthError, PageRefused
from asgi_mcp_auth.dev.forms import FORM, Params, header_lines, media_type, read_params
from asgi_mcp_auth.dev.memory import Bounded, Code, Grant
from asgi_mcp_auth.dev.pages import Consent, consent_page
from asgi_mcp_auth.dev.policy import ScopesAsked
from asgi_mcp_auth.dev.redirects import find_redirect, redirect_host, with_params
from asgi_mcp_auth.dev.switches import Switch
from asgi_mcp_auth.dev.tokens import is_challenge

__all__ = ("Interaction", "Wanted")

MAX_QUERY = 16 * 1024
PENDING_SECONDS = 600
MAX_PENDING = 1000
MAX_AGE_DIGITS = 9
STRANGE: Final = "https://not-this-issuer.example"
SEE_OTHER, FOUND = 303, 302


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An authorization request that was judged and can be granted."""

    client: Client
    redirect_uri: str
    state: str | None
    resources: tuple[str, ...]
    asked: ScopesAsked
    challenge: str
    acr: str | None = None
    nonce: str | None = None
    login_hint: str | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    """One that waits for a person, in the browser that it came from."""

    wanted: Wanted
    browser: str
    until: float


class Interaction:
    """The authorization endpoint, and the consent page that it shows."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pending: Bounded[str, _Pending] = Bounded(MAX_PENDING)
        port = core.options.url.port
        self._cookie = "mcp_dev_consent" if port is None else f"mcp_dev_consent_{port}"

    def clear(self) -> None:
        """Forget the requests that wait."""
        self._pending.clear()

    async def authorize(self, request: Request, body: bytes) -> Reply:
        """Answer the authorization endpoint: with a redirect, or with the consent page.

        Raises:
            PageRefused: There is nowhere to redirect to.
        """
        params = _read(request, body)
        client, redirect_uri = await self._who_and_where(params)
        state = None if "state" in params.repeated else params.get("state")
        status = FOUND if request.method in ("GET", "HEAD") else SEE_OTHER
        try:
            wanted = self._judge(params, client, redirect_uri, state)
            if self._core.options.auto_approve:
                return self._grant(wanted, self._user(wanted.login_hint), status)
        except OAuthError as error:
            return self._send_back(redirect_uri, state, error.members(), status, f"error={error.error}")
        return self._ask(request, wanted)

    async def _who_and_where(self, params: Params) -> tuple[Client, str]:
        """The client, then the redirect URI: what is wrong here is for the person, not for the redirect URI."""
        again = "Start again in the application. After a restart of this server it has to register again."
        if {"client_id", "redirect_uri"} & set(params.repeated):
            raise PageRefused("invalid_request", "client_id or redirect_uri is there more than once.", again)
        client_id = params.get("client_id")
        if client_id is None:
            raise PageRefused("invalid_request", "The parameter client_id is missing.", again)
        try:
            client = await self._core.directory.find(client_id)
        except OAuthError as error:
            status = error.status if error.error == "temporarily_unavailable" else 400
            raise PageRefused(error.error, error.description, again, status=status) from None
        requested = params.get("redirect_uri")
        if requested is None and len(client.redirect_uris) == 1:
            return client, client.redirect_uris[0]
        if requested is None or not find_redirect(client.redirect_uris, requested):
            what = "The redirect_uri is not one that the client has registered."
            fix = "Register it, to the letter; only the port of a loopback URI may differ."
            raise PageRefused("invalid_redirect_uri", what, fix)
        return client, requested

    def _judge(self, params: Params, client: Client, redirect_uri: str, state: str | None) -> Wanted:
        """The rest of the request (OAuth 2.1 section 4.1.1); an error here goes to the redirect URI."""
        params.refuse_repeated()
        if params.get("response_type") != "code":
            missing = params.get("response_type") is None
            code = "invalid_request" if missing else "unsupported_response_type"
            raise OAuthError(code, "The response_type has to be code.")
        if params.get("response_mode") not in (None, "query"):
            raise OAuthError("invalid_request", "The response_mode has to be query.")
        if "authorization_code" not in client.grant_types:
            raise OAuthError("unauthorized_client", "The client is not registered for authorization_code.")
        challenge = params.get("code_challenge")
        if challenge is None or params.get("code_challenge_method") != "S256" or not is_challenge(challenge):
            raise OAuthError("invalid_request", "PKCE is required: code_challenge with code_challenge_method=S256.")
        if "none" in (params.get("prompt") or "").split(" ") and not self._core.options.auto_approve:
            raise OAuthError("consent_required", "Nobody can agree without a page.")
        max_age = params.get("max_age")
        if max_age is not None and not (max_age.isascii() and max_age.isdigit() and len(max_age) <= MAX_AGE_DIGITS):
            raise OAuthError("invalid_request", "The max_age is no number of seconds.")
        policy = self._core.options.policy
        return Wanted(
            client=client,
            redirect_uri=redirect_uri,
            state=state,
            resources=policy.resources_to_authorize(params.all("resource")),
            asked=policy.scopes_to_grant(params.get("scope")),
            challenge=challenge,
            acr=next(iter((params.get("acr_values") or "").split()), None),
            nonce=params.get("nonce"),
            login_hint=params.get("login_hint"),
        )

    def _user(self, hint: str | None) -> str:
        users = self._core.options.users
        return hint if hint is not None and hint in users else users[0]

    # --- the page -----------------------------------------------------------------------------------------------------

    def _ask(self, request: Request, wanted: Wanted) -> Reply:
        browser = self._browser(request) or secrets.token_urlsafe(24)
        csrf = secrets.token_urlsafe(32)
        self._pending.put(csrf, _Pending(wanted, browser, self._core.now + PENDING_SECONDS))
        options = self._core.options
        page = consent_page(
            Consent(
                client=wanted.client,
                redirect_uri=wanted.redirect_uri,
                resources=wanted.resources,
                asked=wanted.asked,
                acr=wanted.acr,
                users=options.users,
                user=self._user(wanted.login_hint),
                csrf=csrf,
                action=f"{options.url.path.rstrip('/')}/consent",
                issuer=self._core.iss,
                descriptions=options.descriptions,
            )
        )
        note = f"client={wanted.client.client_id} asks {' '.join(wanted.asked.scopes)}"
        return Reply(page.with_headers([self._set_cookie(browser)]), note)

    def _set_cookie(self, browser: str) -> Header:
        # Lax: sent with the navigation that an application starts, and with our own form, not with another site's.
        path = self._core.options.url.path.rstrip("/") or "/"
        secure = "; Secure" if self._core.options.url.scheme == "https" else ""
        line = f"{self._cookie}={browser}; Path={path}; Max-Age=86400; HttpOnly; SameSite=Lax{secure}"
        return (b"set-cookie", line.encode("latin-1"))

    def _browser(self, request: Request) -> str | None:
        """What the cookie says; None if it is not exactly one of ours."""
        pairs = [
            pair.strip() for line in header_lines(request, b"cookie") for pair in line.decode("latin-1").split(";")
        ]
        found = [value for name, _, value in (pair.partition("=") for pair in pairs) if name == self._cookie]
        if len(found) != 1 or not found[0].isascii() or not found[0].replace("-", "").replace("_", "").isalnum():
            return None
        return found[0][:64]

    async def decide(self, request: Request, body: bytes) -> Reply:
        """Answer the form of the consent page.

        Raises:
            PageRefused: The form is not the one that this browser was given.
        """
        again = "Start again in the application."
        sites = header_lines(request, b"sec-fetch-site")
        if media_type(request) != FORM or any(site not in (b"same-origin", b"none") for site in sites):
            raise PageRefused("invalid_request", "The answer did not come from the page of this server.", again)
        params = _read(request, body)
        csrf, browser = params.get("csrf"), self._browser(request)
        pending = None if csrf is None else self._pending.get(csrf)
        if csrf is None or pending is None or browser is None or not secrets.compare_digest(pending.browser, browser):
            what = "The request was answered before, or this is not the browser that it was shown in."
            raise PageRefused("invalid_request", what, again + " Cookies have to be allowed for this page.")
        self._pending.pop(csrf)
        if self._core.now >= pending.until:
            raise PageRefused("invalid_request", "The request is too old.", again)
        wanted, user = pending.wanted, params.get("user")
        if params.get("decision") == "allow" and user in self._core.options.users:
            return self._grant(wanted, self._user(user), SEE_OTHER)
        members = OAuthError("access_denied", "The user said no.").members()
        return self._send_back(wanted.redirect_uri, wanted.state, members, SEE_OTHER, "denied")

    # --- the answer ---------------------------------------------------------------------------------------------------

    def _grant(self, wanted: Wanted, user: str, status: int) -> Reply:
        core, client = self._core, wanted.client
        grant = Grant(
            client_id=client.client_id,
            subject=user,
            resources=wanted.resources,
            asked=wanted.asked,
            auth_time=int(core.now),
            acr=wanted.acr,
            nonce=wanted.nonce,
            refreshable="refresh_token" in client.grant_types or wanted.asked.offline,
        )
        code = Code(
            grant=grant,
            redirect_uri=wanted.redirect_uri,
            challenge=wanted.challenge,
            expires_at=core.now + core.options.code_lifetime,
        )
        members = {"code": core.memory.new_code(code)}
        note = f"client={client.client_id} user={user} scope={' '.join(wanted.asked.scopes)}"
        return self._send_back(wanted.redirect_uri, wanted.state, members, status, note)

    def _send_back(self, uri: str, state: str | None, members: dict[str, str], status: int, note: str) -> Reply:
        """Redirect, by 302 or 303: a 307 would send a form on (OAuth 2.1 section 7.5.2)."""
        switches = self._core.switches
        iss = STRANGE if Switch.WRONG_ISS in switches else self._core.iss
        params = {
            **members,
            **({} if state is None else {"state": state}),
            **({} if Switch.NO_ISS in switches else {"iss": iss}),
        }
        location = with_params(uri, params).encode("ascii")
        headers = ((b"location", location), (b"cache-control", b"no-store"), (b"content-length", b"0"))
        return Reply(Response(status, headers), f"→ {redirect_host(uri)} {note}")


def _read(request: Request, body: bytes) -> Params:
    """The parameters of a query, or of a form (OAuth 2.1 section 3.1)."""
    is_form = request.method == "POST"
    data = body if is_form else request.query_string
    fix = "Start again in the application."
    if is_form and media_type(request) != FORM:
        raise PageRefused("invalid_request", f"The body has to be {FORM}.", fix)
    if len(data) > MAX_QUERY:
        raise PageRefused("invalid_request", f"The request is longer than {MAX_QUERY} bytes.", fix)
    try:
        return read_params(data)
    except OAuthError as error:
        raise PageRefused(error.error, error.description, fix) from None
