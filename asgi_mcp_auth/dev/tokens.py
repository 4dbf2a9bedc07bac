"""The token endpoint (OAuth 2.1 section 3.2): codes, refresh tokens and client credentials into access tokens."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Any, Final

from asgi_mcp_auth._policy.responses import json_response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.clients import Client
from asgi_mcp_auth.dev.core import Core, Reply
from asgi_mcp_auth.dev.errors import OAuthError
from asgi_mcp_auth.dev.forms import Params, read_form
from asgi_mcp_auth.dev.memory import Code, Grant, RefreshToken
from asgi_mcp_auth.dev.switches import Switch

__all__ = ("is_challenge", "issue", "verifies")

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")  # RFC 7636 section 4.1
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_\-]{43}")  # a SHA-256 in base64url


def is_challenge(text: str) -> bool:
    """Whether `text` can be the S256 challenge of some verifier (RFC 7636 section 4.2)."""
    return _CHALLENGE.fullmatch(text) is not None


def verifies(verifier: str, challenge: str) -> bool:
    """Whether a verifier belongs to a challenge, by S256 (RFC 7636 section 4.6)."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    made = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return secrets.compare_digest(made, challenge.encode("ascii"))


async def issue(core: Core, request: Request, body: bytes) -> Reply:
    """Answer a POST to the token endpoint.

    Raises:
        OAuthError: Whatever is wrong.
    """
    params = read_form(request, body)
    client = await core.directory.authenticate(request, params)
    grant_type = params.required("grant_type")
    handlers = {
        "authorization_code": _from_code,
        "refresh_token": _from_refresh_token,
        "client_credentials": _from_credentials,
    }
    handler = handlers.get(grant_type)
    if handler is None:
        raise OAuthError("unsupported_grant_type", f"This server knows {', '.join(handlers)}.")
    if grant_type not in client.grant_types and grant_type != "refresh_token":  # whoever was given one may use it
        raise OAuthError("unauthorized_client", f"The client is not registered for {grant_type}.")
    content = handler(core, client, params)
    note = f"{grant_type} client={client.client_id} scope={content.get('scope')}"
    return Reply(json_response(200, content, ((b"pragma", b"no-cache"),)), note)


def _dead(what: str) -> OAuthError:
    return OAuthError("invalid_grant", what)


def _from_code(core: Core, client: Client, params: Params) -> dict[str, Any]:
    """OAuth 2.1 section 4.1.3."""
    code = core.memory.code(params.required("code"))
    verifier, redirect_uri = params.required("code_verifier"), params.get("redirect_uri")
    if code is None or code.grant.client_id != client.client_id:
        raise _dead("The code is unknown, or of another client.")
    if code.used:
        code.grant.revoked = True
        raise _dead("The code was used before: everything that came of it is revoked.")
    _check_code(core, code, verifier, redirect_uri)
    grant = code.grant
    resources = core.options.policy.narrowed_resources(params.all("resource"), grant.resources)
    code.used = True
    content = _content(core, grant, resources, grant.asked.scopes)
    if grant.refreshable:
        content["refresh_token"] = _new_refresh_token(core, grant)
    if grant.asked.openid:
        content["id_token"] = _id_token(core, grant)
    return content


def _check_code(core: Core, code: Code, verifier: str, redirect_uri: str | None) -> None:
    if core.now >= code.expires_at:
        raise _dead("The code has expired.")
    if code.grant.revoked:
        raise _dead("The grant was revoked.")
    if redirect_uri is not None and redirect_uri != code.redirect_uri:
        raise _dead("The redirect_uri is not that of the authorization request.")
    if not verifies(verifier, code.challenge):
        raise _dead("The code_verifier does not fit the code_challenge.")


def _from_refresh_token(core: Core, client: Client, params: Params) -> dict[str, Any]:
    """OAuth 2.1 section 4.3: the token is replaced, and its reuse revokes the grant."""
    token = core.memory.refresh_token(params.required("refresh_token"))
    if token is None or token.grant.client_id != client.client_id:
        raise _dead("The refresh token is unknown, or of another client.")
    grant = token.grant
    if token.used:
        grant.revoked = True
        raise _dead("The refresh token was used before: everything that came of the grant is revoked.")
    if grant.revoked:
        raise _dead("The grant was revoked.")
    if core.now >= token.expires_at:
        raise _dead("The refresh token has expired.")
    policy = core.options.policy
    resources = policy.narrowed_resources(params.all("resource"), grant.resources)
    scopes = policy.narrowed_scopes(params.get("scope"), grant.asked).scopes
    token.used = True
    return _content(core, grant, resources, scopes) | {"refresh_token": _new_refresh_token(core, grant)}


def _from_credentials(core: Core, client: Client, params: Params) -> dict[str, Any]:
    """OAuth 2.1 section 4.2: a client for itself, without a refresh token."""
    policy = core.options.policy
    asked = policy.scopes_to_grant(params.get("scope"))
    resources = policy.resources_to_authorize(params.all("resource"))
    grant = Grant(client_id=client.client_id, subject=client.client_id, resources=resources, asked=asked)
    return _content(core, grant, resources, asked.scopes)


def _new_refresh_token(core: Core, grant: Grant) -> str:
    expires_at = core.now + core.options.refresh_lifetime
    return core.memory.new_refresh_token(RefreshToken(grant=grant, expires_at=expires_at))


def _content(core: Core, grant: Grant, resources: tuple[str, ...], scopes: tuple[str, ...]) -> dict[str, Any]:
    """A successful answer (OAuth 2.1 section 3.2.3), less the faults that are in force."""
    lifetime = core.options.token_lifetime
    content: dict[str, Any] = {
        "access_token": core.access_token(grant, resources, scopes),
        "token_type": "Bearer",
        "expires_in": str(lifetime) if Switch.STRING_EXPIRES_IN in core.switches else lifetime,
        "scope": " ".join(scopes),
    }
    if Switch.NO_SCOPE in core.switches:
        del content["scope"]
    return content


def _id_token(core: Core, grant: Grant) -> str:
    """An ID token (OpenID Connect Core section 2): for the client, and no access token."""
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
