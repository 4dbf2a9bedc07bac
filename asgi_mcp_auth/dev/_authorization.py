"""The authorization endpoint and the consent form (OAuth 2.1 section 4.1, RFC 9207, RFC 9470).

The order of the checks is a matter of security. Client and redirect URI come first, because no error can be sent to an
unverified redirect URI. All later errors reach a redirect URI automatically only if the operator configured the client
or the URI is on loopback: every web page can register any other URI (RFC 9700 section 4.11.2).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._oauth.responses import Header, Response
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._clients import Client
from asgi_mcp_auth.dev._core import Core, Reply
from asgi_mcp_auth.dev._errors import OAuthError, PageError
from asgi_mcp_auth.dev._forms import FORM, Params, header_values, media_type, read_params
from asgi_mcp_auth.dev._grants import Code, Grant
from asgi_mcp_auth.dev._pages import Consent, consent_page
from asgi_mcp_auth.dev._policy import ScopeSet
from asgi_mcp_auth.dev._redirects import is_loopback_redirect, is_registered, redirect_host, with_params
from asgi_mcp_auth.dev._switches import Switch
from asgi_mcp_auth.dev._tokens import is_code_challenge

__all__ = ("AuthorizationEndpoint",)

MAX_QUERY = 16 * 1024
PENDING_SECONDS = 600
MAX_PENDING = 1000
MAX_AGE_DIGITS = 9
OTHER_ISSUER: Final = "https://not-this-issuer.example"
SEE_OTHER, FOUND = 303, 302
START_AGAIN: Final = "Start again in the application."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authorization:
    """A valid authorization request."""

    client: Client
    redirect_uri: str
    state: str | None
    resources: tuple[str, ...]
    requested: ScopeSet
    challenge: str
    acr: str | None = None
    nonce: str | None = None
    login_hint: str | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    """A request that waits for consent, bound to the browser that made the request."""

    authorization: _Authorization
    browser: str
    expires_at: float


class AuthorizationEndpoint:
    """The authorization endpoint with its consent form."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pending: BoundedMap[str, _Pending] = BoundedMap(MAX_PENDING)
        port = core.options.url.port
        self._cookie = "mcp_dev_consent" if port is None else f"mcp_dev_consent_{port}"

    def clear(self) -> None:
        """Remove the requests that wait for consent."""
        self._pending.clear()

    async def authorize(self, request: RequestInfo, body: bytes) -> Reply:
        """Answer an authorization request with a redirect or with the consent page.

        Raises:
            PageError: An automatic redirect is impossible or unsafe.
        """
        params = _read(request, body)
        client, redirect_uri = await self._client_and_redirect_uri(params)
        state = None if "state" in params.repeated else params.get("state")
        status = FOUND if request.method in ("GET", "HEAD") else SEE_OTHER
        try:
            authorization = self._validate(params, client, redirect_uri, state)
        except OAuthError as error:
            return self._refuse(client, redirect_uri, state, error, status)
        if self._core.options.auto_approve:
            return self._approve(authorization, self._user(authorization.login_hint), status)
        return self._show_consent(request, authorization)

    async def _client_and_redirect_uri(self, params: Params) -> tuple[Client, str]:
        """Return the client and its redirect URI. Errors are shown to the person, never sent to the URI."""
        fix = f"{START_AGAIN} If this server was restarted, the application has to register again."
        if {"client_id", "redirect_uri"} & set(params.repeated):
            raise PageError("invalid_request", "client_id or redirect_uri occurs more than once.", fix)
        client_id = params.get("client_id")
        if client_id is None:
            raise PageError("invalid_request", "The parameter client_id is missing.", fix)
        try:
            client = await self._core.clients.find(client_id)
        except OAuthError as error:
            status = error.status if error.error == "temporarily_unavailable" else 400
            raise PageError(error.error, error.description, fix, status=status) from None
        requested = params.get("redirect_uri")
        if requested is None and len(client.redirect_uris) == 1:
            return client, client.redirect_uris[0]
        if requested is None or not is_registered(client.redirect_uris, requested):
            what = "The client has not registered the redirect_uri."
            fix = "Register exactly this URI. Only the port of a loopback URI may differ."
            raise PageError("invalid_redirect_uri", what, fix)
        return client, requested

    def _validate(self, params: Params, client: Client, redirect_uri: str, state: str | None) -> _Authorization:
        """Validate the remaining parameters (OAuth 2.1 section 4.1.1)."""
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
        if challenge is None or params.get("code_challenge_method") != "S256" or not is_code_challenge(challenge):
            raise OAuthError("invalid_request", "PKCE is required: code_challenge with code_challenge_method=S256.")
        if "none" in (params.get("prompt") or "").split(" ") and not self._core.options.auto_approve:
            raise OAuthError("consent_required", "The user has to consent on a page, but prompt is none.")
        max_age = params.get("max_age")
        if max_age is not None and not (max_age.isascii() and max_age.isdigit() and len(max_age) <= MAX_AGE_DIGITS):
            raise OAuthError("invalid_request", "The max_age is not a number of seconds.")
        policy = self._core.options.policy
        return _Authorization(
            client=client,
            redirect_uri=redirect_uri,
            state=state,
            resources=policy.resources_to_authorize(params.all("resource")),
            requested=policy.scopes_to_grant(params.get("scope")),
            challenge=challenge,
            acr=next(iter((params.get("acr_values") or "").split()), None),
            nonce=params.get("nonce"),
            login_hint=params.get("login_hint"),
        )

    def _user(self, hint: str | None) -> str:
        users = self._core.options.users
        return hint if hint is not None and hint in users else users[0]

    # --- consent ------------------------------------------------------------------------------------------------------

    def _show_consent(self, request: RequestInfo, authorization: _Authorization) -> Reply:
        browser = self._browser(request) or secrets.token_urlsafe(24)
        csrf = secrets.token_urlsafe(32)
        self._pending.put(csrf, _Pending(authorization, browser, self._core.now + PENDING_SECONDS))
        options = self._core.options
        page = consent_page(
            Consent(
                client=authorization.client,
                redirect_uri=authorization.redirect_uri,
                resources=authorization.resources,
                requested=authorization.requested,
                acr=authorization.acr,
                users=options.users,
                user=self._user(authorization.login_hint),
                csrf=csrf,
                action=f"{options.url.path.rstrip('/')}/consent",
                issuer=self._core.iss,
                descriptions=options.descriptions,
            )
        )
        note = f"client={authorization.client.client_id} requests {' '.join(authorization.requested.scopes)}"
        return Reply(page.with_headers([self._set_cookie(browser)]), note)

    def _set_cookie(self, browser: str) -> Header:
        # Lax: browsers send the cookie when an application opens the page and with our form, but not with forms of
        # other sites.
        path = self._core.options.url.path.rstrip("/") or "/"
        secure = "; Secure" if self._core.options.url.scheme == "https" else ""
        line = f"{self._cookie}={browser}; Path={path}; Max-Age=86400; HttpOnly; SameSite=Lax{secure}"
        return (b"set-cookie", line.encode("latin-1"))

    def _browser(self, request: RequestInfo) -> str | None:
        """Return the browser's identifier from its cookie, or None without exactly one well-formed cookie."""
        pairs = [
            pair.strip() for line in header_values(request, b"cookie") for pair in line.decode("latin-1").split(";")
        ]
        found = [value for name, _, value in (pair.partition("=") for pair in pairs) if name == self._cookie]
        if len(found) != 1 or not found[0].isascii() or not found[0].replace("-", "").replace("_", "").isalnum():
            return None
        return found[0][:64]

    async def decide(self, request: RequestInfo, body: bytes) -> Reply:
        """Answer the consent form.

        Raises:
            PageError: The form does not come from the consent page in this browser, or the person denied access to a
                client that cannot be sent an error automatically.
        """
        if media_type(request) != FORM or not self._is_same_origin(request):
            raise PageError("invalid_request", "The form was not sent by a page of this server.", START_AGAIN)
        params = _read(request, body)
        csrf, browser = params.get("csrf"), self._browser(request)
        pending = None if csrf is None else self._pending.get(csrf)
        if csrf is None or pending is None or browser is None or not secrets.compare_digest(pending.browser, browser):
            what = "The form was sent before, or its page was opened in another browser."
            raise PageError("invalid_request", what, f"{START_AGAIN} Allow cookies for this page.")
        self._pending.pop(csrf)
        if self._core.now >= pending.expires_at:
            what = f"The page was opened more than {PENDING_SECONDS // 60} minutes ago."
            raise PageError("invalid_request", what, START_AGAIN)
        authorization, user = pending.authorization, params.get("user")
        if params.get("decision") == "allow" and user in self._core.options.users:
            return self._approve(authorization, self._user(user), SEE_OTHER)
        denied = OAuthError("access_denied", "The user denied access.")
        return self._refuse(authorization.client, authorization.redirect_uri, authorization.state, denied, SEE_OTHER)

    def _is_same_origin(self, request: RequestInfo) -> bool:
        """Return whether the browser reports that a page of this server sent the form.

        Both fields are checked if present: browsers omit Sec-Fetch-Site on http URLs that are not on loopback, and
        other programs omit both. The origin is the issuer's, or the one under which the browser reached this server.
        """
        if any(site not in (b"same-origin", b"none") for site in header_values(request, b"sec-fetch-site")):
            return False
        own = {self._core.options.url.origin}
        for host in header_values(request, b"host"):
            url = parse_url(f"{request.scope.get('scheme', 'http')}://{host.decode('latin-1')}")
            own |= {url.origin} if url is not None else set()
        return all(_origin(value) in own for value in header_values(request, b"origin"))

    # --- responses ----------------------------------------------------------------------------------------------------

    def _approve(self, authorization: _Authorization, user: str, status: int) -> Reply:
        core, client = self._core, authorization.client
        grant = Grant(
            client_id=client.client_id,
            subject=user,
            resources=authorization.resources,
            granted=authorization.requested,
            auth_time=int(core.now),
            acr=authorization.acr,
            nonce=authorization.nonce,
            refreshable="refresh_token" in client.grant_types or authorization.requested.offline,
        )
        code = Code(
            grant=grant,
            redirect_uri=authorization.redirect_uri,
            challenge=authorization.challenge,
            expires_at=core.now + core.options.code_lifetime,
        )
        location = self._location(authorization.redirect_uri, authorization.state, {"code": core.grants.new_code(code)})
        return _redirect(
            location, status, f"client={client.client_id} user={user} scope={' '.join(grant.granted.scopes)}"
        )

    def _refuse(self, client: Client, uri: str, state: str | None, error: OAuthError, status: int) -> Reply:
        """Redirect with an error if the redirect is safe. Otherwise show the error.

        Raises:
            PageError: The operator did not configure the client, and the URI is not on loopback.
        """
        location = self._location(uri, state, error.members())
        if self._core.clients.is_configured(client) or is_loopback_redirect(uri):
            return _redirect(location, status, f"error={error.error}")
        raise PageError(error.error, error.description, START_AGAIN, return_to=location)

    def _location(self, uri: str, state: str | None, members: dict[str, str]) -> str:
        """Return a redirect URI with an authorization response (RFC 9207). The faults that concern `iss` apply."""
        switches = self._core.switches
        iss = OTHER_ISSUER if Switch.WRONG_ISS in switches else self._core.iss
        params = {
            **members,
            **({} if state is None else {"state": state}),
            **({} if Switch.NO_ISS in switches else {"iss": iss}),
        }
        return with_params(uri, params)


def _redirect(location: str, status: int, note: str) -> Reply:
    """Return a redirect by 302 or 303: a 307 would forward a form (OAuth 2.1 section 7.5.2)."""
    headers = ((b"location", location.encode("ascii")), (b"cache-control", b"no-store"), (b"content-length", b"0"))
    return Reply(Response(status, headers), f"→ {redirect_host(location)} {note}")


def _origin(value: bytes) -> str | None:
    """Return the normalised origin in an `Origin` field, or None for `null` and malformed values."""
    url = parse_url(value.decode("latin-1"))
    return url.origin if url is not None and str(url) == url.origin else None


def _read(request: RequestInfo, body: bytes) -> Params:
    """Return the parameters in the query, or in the form of a POST (OAuth 2.1 section 3.1)."""
    is_form = request.method == "POST"
    data = body if is_form else request.query_string
    if is_form and media_type(request) != FORM:
        raise PageError("invalid_request", f"The body has to be {FORM}.", START_AGAIN)
    if len(data) > MAX_QUERY:
        raise PageError("invalid_request", f"The request is longer than {MAX_QUERY} bytes.", START_AGAIN)
    try:
        return read_params(data)
    except OAuthError as error:
        raise PageError(error.error, error.description, START_AGAIN) from None
