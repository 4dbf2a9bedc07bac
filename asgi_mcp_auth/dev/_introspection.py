"""Introspection (RFC 7662, RFC 9701) and revocation (RFC 7009).

The caller authenticates as at the token endpoint. A client without a secret gets answers about its own tokens only. A
client with a secret, such as a resource server, gets answers about all tokens.
"""

from __future__ import annotations

from typing import Any, Final

from asgi_mcp_auth._oauth.responses import Response, json_response
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.dev._clients import Client
from asgi_mcp_auth.dev._core import Core, Reply
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._forms import header_values, read_form
from asgi_mcp_auth.dev._grants import Grant

__all__ = ("introspect", "revoke")

JWT_TYPE: Final = "application/token-introspection+jwt"
INACTIVE: Final = {"active": False}


async def introspect(core: Core, request: RequestInfo, body: bytes) -> Reply:
    """Answer a POST to the introspection endpoint with JSON, or with a signed JWT if `Accept` names its media type.

    Raises:
        OAuthError: `invalid_client`, `invalid_request`.
    """
    params = read_form(request, body)
    client = await core.clients.authenticate(request, params)
    content = _introspect(core, client, params.required("token"))
    note = f"client={client.client_id} active={str(content['active']).lower()}"
    accepted = b",".join(header_values(request, b"accept")).decode("latin-1").lower()
    if JWT_TYPE not in accepted:
        return Reply(json_response(200, content), note)
    claims = {
        "iss": core.iss,
        "aud": client.client_id,
        "iat": int(core.now),
        # RFC 9701 section 5: exp and sub are absent, so that the JWT cannot be used as an access token.
        "token_introspection": content,
    }
    signed = core.mint(claims, typ="token-introspection+jwt").encode("ascii")
    headers = (
        (b"content-type", JWT_TYPE.encode("ascii")),
        (b"content-length", str(len(signed)).encode("ascii")),
        (b"cache-control", b"no-store"),
    )
    return Reply(Response(200, headers, signed), note)


def _introspect(core: Core, client: Client, token: str) -> dict[str, Any]:
    """Return the members of an introspection response (RFC 7662 section 2.2)."""
    access = core.grants.access_token(token)
    if access is not None:
        if not _may_introspect(client, access.grant) or access.grant.revoked or core.now >= access.claims["exp"]:
            return dict(INACTIVE)
        # A grant without auth_time has no user: a client got it for itself.
        user = {} if access.grant.auth_time is None else {"username": access.grant.subject}
        kind = "DPoP" if "jkt" in access.claims.get("cnf", {}) else "Bearer"
        return {"active": True, "token_type": kind, **user, **access.claims}
    refresh = core.grants.refresh_token(token)
    if refresh is None or refresh.used or core.now >= refresh.expires_at:
        return dict(INACTIVE)
    grant = refresh.grant
    if grant.revoked or not _may_introspect(client, grant):
        return dict(INACTIVE)
    return {
        "active": True,
        "iss": core.iss,
        "sub": grant.subject,
        "client_id": grant.client_id,
        "scope": " ".join(grant.granted.scopes),
        "exp": int(refresh.expires_at),
    }


def _may_introspect(client: Client, grant: Grant) -> bool:
    return client.secret is not None or grant.client_id == client.client_id


async def revoke(core: Core, request: RequestInfo, body: bytes) -> Reply:
    """Answer a POST to the revocation endpoint.

    A refresh token is revoked with its whole grant, an access token alone.

    Raises:
        OAuthError: `invalid_client`, `invalid_request`, and `invalid_grant` for a token of another client.
    """
    params = read_form(request, body)
    client = await core.clients.authenticate(request, params)
    token = params.required("token")
    access, refresh = core.grants.access_token(token), core.grants.refresh_token(token)
    owner = access.grant if access is not None else refresh.grant if refresh is not None else None
    if owner is not None and owner.client_id != client.client_id:
        raise OAuthError("invalid_grant", "The token belongs to another client.")
    if access is not None:
        core.grants.revoke_access_token(token)
    if refresh is not None:
        core.grants.revoke(refresh.grant)
    found = "access token" if access is not None else "grant" if refresh is not None else "nothing"
    return Reply(json_response(200, {}), f"client={client.client_id} revoked={found}")
