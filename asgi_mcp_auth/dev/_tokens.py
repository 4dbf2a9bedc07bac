"""The token endpoint (OAuth 2.1 section 3.2): access tokens for codes, refresh tokens and client credentials."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Any, Final

from asgi_mcp_auth._oauth.responses import json_response
from asgi_mcp_auth._oauth.token_exchange import EXCHANGE_GRANT
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._clients import Client
from asgi_mcp_auth.dev._core import Core, Reply
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._exchange import exchange
from asgi_mcp_auth.dev._forms import Params, read_form
from asgi_mcp_auth.dev._grants import Code, Grant, RefreshToken
from asgi_mcp_auth.dev._proofs import Sender, confirmation_of, read_sender
from asgi_mcp_auth.dev._switches import Switch

__all__ = ("is_code_challenge", "issue", "verify_code_challenge")

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")  # RFC 7636 section 4.1
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_\-]{43}")  # a SHA-256 in base64url


def is_code_challenge(text: str) -> bool:
    """Return whether `text` can be the S256 challenge of a verifier (RFC 7636 section 4.2)."""
    return _CHALLENGE.fullmatch(text) is not None


def verify_code_challenge(verifier: str, challenge: str) -> bool:
    """Return whether a code verifier matches an S256 code challenge (RFC 7636 section 4.6)."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return secrets.compare_digest(expected, challenge.encode("ascii"))


async def issue(core: Core, request: RequestInfo, body: bytes) -> Reply:
    """Answer a POST to the token endpoint.

    Raises:
        OAuthError: An error of RFC 6749 section 5.2 or RFC 8707 section 2.
    """
    params = read_form(request, body)
    client = await core.clients.authenticate(request, params)
    grant_type = params.required("grant_type")
    handlers = {
        "authorization_code": _from_code,
        "refresh_token": _from_refresh_token,
        "client_credentials": _from_credentials,
    }
    handler = handlers.get(grant_type)
    if handler is None and grant_type != EXCHANGE_GRANT:
        raise OAuthError("unsupported_grant_type", f"This server supports {', '.join([*handlers, EXCHANGE_GRANT])}.")
    # A refresh token is issued for offline_access too, without the grant type in the registration.
    if grant_type not in client.grant_types and grant_type != "refresh_token":
        raise OAuthError("unauthorized_client", f"The client is not registered for {grant_type}.")
    if handler is None:
        return await exchange(core, client, params, read_sender(core, request))
    content = handler(core, client, params, read_sender(core, request))
    note = f"{grant_type} client={client.client_id} scope={content.get('scope')}"
    return Reply(json_response(200, content, ((b"pragma", b"no-cache"),)), note)


def _invalid_grant(what: str) -> OAuthError:
    return OAuthError("invalid_grant", what)


def _from_code(core: Core, client: Client, params: Params, sender: Sender) -> dict[str, Any]:
    """Exchange a code (OAuth 2.1 section 4.1.3). The reuse of a code revokes its grant."""
    code = core.grants.code(params.required("code"))
    verifier, redirect_uri = params.required("code_verifier"), params.get("redirect_uri")
    if code is None or code.grant.client_id != client.client_id:
        raise _invalid_grant("The code is unknown, or belongs to another client.")
    if code.used:
        core.grants.revoke(code.grant)
        raise _invalid_grant("The code was used before. All tokens of its grant are revoked.")
    _check_code(core, code, verifier, redirect_uri)
    grant = code.grant
    resources = core.options.policy.narrowed_resources(params.all("resource"), grant.resources)
    code.used = True
    content = _token_response(core, grant, resources, grant.granted.scopes, sender)
    if grant.refreshable:
        content["refresh_token"] = _new_refresh_token(core, client, grant, sender)
    if grant.granted.openid:
        content["id_token"] = _id_token(core, grant)
    return content


def _check_code(core: Core, code: Code, verifier: str, redirect_uri: str | None) -> None:
    if core.now >= code.expires_at:
        raise _invalid_grant("The code has expired.")
    if code.grant.revoked:
        raise _invalid_grant("The grant was revoked.")
    if redirect_uri is not None and redirect_uri != code.redirect_uri:
        raise _invalid_grant("The redirect_uri differs from the one in the authorization request.")
    if not verify_code_challenge(verifier, code.challenge):
        raise _invalid_grant("The code_verifier does not match the code_challenge.")


def _from_refresh_token(core: Core, client: Client, params: Params, sender: Sender) -> dict[str, Any]:
    """Replace a refresh token (OAuth 2.1 section 4.3). The reuse of a refresh token revokes its grant."""
    token = core.grants.refresh_token(params.required("refresh_token"))
    if token is None or token.grant.client_id != client.client_id:
        raise _invalid_grant("The refresh token is unknown, or belongs to another client.")
    grant = token.grant
    if token.used:
        core.grants.revoke(grant)
        raise _invalid_grant("The refresh token was used before. All tokens of its grant are revoked.")
    if grant.revoked:
        raise _invalid_grant("The grant was revoked.")
    if core.now >= token.expires_at:
        raise _invalid_grant("The refresh token has expired.")
    if token.jkt is not None and token.jkt != sender.thumbprint:
        raise _invalid_grant("The refresh token is bound to another DPoP key or client certificate.")
    policy = core.options.policy
    resources = policy.narrowed_resources(params.all("resource"), grant.resources)
    scopes = policy.narrowed_scopes(params.get("scope"), grant.granted).scopes
    token.used = True
    content = _token_response(core, grant, resources, scopes, sender)
    return content | {"refresh_token": _new_refresh_token(core, client, grant, sender)}


def _from_credentials(core: Core, client: Client, params: Params, sender: Sender) -> dict[str, Any]:
    """Issue a token to a client for itself, without a refresh token (OAuth 2.1 section 4.2)."""
    policy = core.options.policy
    granted = policy.scopes_to_grant(params.get("scope"))
    resources = policy.resources_to_authorize(params.all("resource"))
    grant = Grant(client_id=client.client_id, subject=client.client_id, resources=resources, granted=granted)
    return _token_response(core, grant, resources, granted.scopes, sender)


def _new_refresh_token(core: Core, client: Client, grant: Grant, sender: Sender) -> str:
    """Return a new refresh token. Those of public clients are bound (RFC 9449 section 5, RFC 8705 section 4)."""
    expires_at = core.now + core.options.refresh_lifetime
    bound_to = sender.thumbprint if client.secret is None else None
    return core.grants.new_refresh_token(RefreshToken(grant=grant, expires_at=expires_at, jkt=bound_to))


def _token_response(
    core: Core, grant: Grant, resources: tuple[str, ...], scopes: tuple[str, ...], sender: Sender
) -> dict[str, Any]:
    """Return the members of a token response (OAuth 2.1 section 3.2.3). The active faults apply."""
    lifetime = core.options.token_lifetime
    content: dict[str, Any] = {
        "access_token": core.access_token(grant, resources, scopes, confirmation_of(core, sender)),
        "token_type": sender.token_type,
        "expires_in": str(lifetime) if Switch.STRING_EXPIRES_IN in core.switches else lifetime,
        "scope": " ".join(scopes),
    }
    if Switch.NO_SCOPE in core.switches:
        del content["scope"]
    return content


def _id_token(core: Core, grant: Grant) -> str:
    """Return an ID token (OpenID Connect Core section 2). Its audience is the client, not a resource."""
    now = int(core.now)
    claims: dict[str, Any] = {
        "iss": core.iss,
        "sub": grant.subject,
        "aud": grant.client_id,
        "iat": now,
        "exp": now + core.options.token_lifetime,
        **({} if grant.auth_time is None else {"auth_time": grant.auth_time}),
        **({} if grant.acr is None else {"acr": grant.acr}),
        **({} if grant.nonce is None else {"nonce": grant.nonce}),
    }
    return core.mint(claims, typ="JWT")
