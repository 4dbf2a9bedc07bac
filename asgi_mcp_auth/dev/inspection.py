"""Introspection (RFC 7662, RFC 9701) and revocation (RFC 7009).

Who asks authenticates as at the token endpoint. A client without a secret learns about its own tokens only; one with
a secret, a resource server say, about all of them.
"""

from __future__ import annotations

from typing import Any, Final

from asgi_mcp_auth._policy.responses import Response, json_response
from asgi_mcp_auth._request import RequestInfo as Request
from asgi_mcp_auth.dev.clients import Client
from asgi_mcp_auth.dev.core import Core, Reply
from asgi_mcp_auth.dev.errors import OAuthError
from asgi_mcp_auth.dev.forms import header_lines, read_form
from asgi_mcp_auth.dev.memory import Grant

__all__ = ("introspect", "revoke")

JWT_TYPE: Final = "application/token-introspection+jwt"
INACTIVE: Final = {"active": False}


async def introspect(core: Core, request: Request, body: bytes) -> Reply:
    """Answer a POST to the introspection endpoint: as JSON, or signed if that is what `Accept` asks for.

    Raises:
        OAuthError: `invalid_client`, `invalid_request`.
    """
    params = read_form(request, body)
    client = await core.directory.authenticate(request, params)
    content = _state(core, client, params.required("token"))
    note = f"client={client.client_id} active={str(content['active']).lower()}"
    accepted = b",".join(header_lines(request, b"accept")).decode("latin-1").lower()
    if JWT_TYPE not in accepted:
        return Reply(json_response(200, content), note)
    claims = {
        "iss": core.iss,
        "aud": client.client_id,
        "iat": int(core.now),
        "token_introspection": content,  # RFC 9701 section 5: and no exp or sub, lest it pass for an access token
    }
    signed = core.mint(claims, typ="token-introspection+jwt").encode("ascii")
    headers = (
        (b"content-type", JWT_TYPE.encode("ascii")),
        (b"content-length", str(len(signed)).encode("ascii")),
        (b"cache-control", b"no-store"),
    )
    return Reply(Response(200, headers, signed), note)


def _state(core: Core, client: Client, token: str) -> dict[str, Any]:
    """What is known of a token (RFC 7662 section 2.2)."""
    access = core.memory.access_token(token)
    if access is not None:
        if not _may_ask(client, access.grant) or access.grant.revoked or core.now >= access.claims["exp"]:
            return dict(INACTIVE)
        user = {} if access.grant.auth_time is None else {"username": access.grant.subject}  # none signed in
        return {"active": True, "token_type": "Bearer", **user, **access.claims}
    refresh = core.memory.refresh_token(token)
    if refresh is None or refresh.used or core.now >= refresh.expires_at:
        return dict(INACTIVE)
    grant = refresh.grant
    if grant.revoked or not _may_ask(client, grant):
        return dict(INACTIVE)
    return {
        "active": True,
        "iss": core.iss,
        "sub": grant.subject,
        "client_id": grant.client_id,
        "scope": " ".join(grant.asked.scopes),
        "exp": int(refresh.expires_at),
    }


def _may_ask(client: Client, grant: Grant) -> bool:
    return client.secret is not None or grant.client_id == client.client_id


async def revoke(core: Core, request: Request, body: bytes) -> Reply:
    """Answer a POST to the revocation endpoint: a refresh token ends its grant, an access token only itself.

    Raises:
        OAuthError: `invalid_client`, `invalid_request`, and `invalid_grant` for a token of another client.
    """
    params = read_form(request, body)
    client = await core.directory.authenticate(request, params)
    token = params.required("token")
    access, refresh = core.memory.access_token(token), core.memory.refresh_token(token)
    owner = access.grant if access is not None else refresh.grant if refresh is not None else None
    if owner is not None and owner.client_id != client.client_id:
        raise OAuthError("invalid_grant", "The token is of another client.")
    if access is not None:
        core.memory.forget_access_token(token)
    if refresh is not None:
        refresh.grant.revoked = True
    found = "access token" if access is not None else "grant" if refresh is not None else "nothing"
    return Reply(json_response(200, {}), f"client={client.client_id} revoked={found}")
