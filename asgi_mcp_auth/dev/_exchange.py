"""Token exchange (RFC 8693): a registered client gets a token for another resource, on behalf of a token's subject."""

from __future__ import annotations

from typing import Any, Final

import anyio

from asgi_mcp_auth._oauth.responses import json_response
from asgi_mcp_auth._oauth.token_exchange import ACCESS_TOKEN
from asgi_mcp_auth.dev._clients import Client
from asgi_mcp_auth.dev._core import Core, Reply
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._forms import Params
from asgi_mcp_auth.dev._grants import AccessToken, Grant
from asgi_mcp_auth.dev._proofs import Sender, confirmation_of
from asgi_mcp_auth.dev._switches import Switch

__all__ = ("exchange",)

SLOW_SECONDS = 15.0
CONSENT: Final = {
    "error": "interaction_required",
    "error_description": "The fault exchange-consent is active.",
    "suberror": "consent_required",
    "claims": '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}',
}


async def exchange(core: Core, client: Client, params: Params, sender: Sender) -> Reply:
    """Answer a token exchange (RFC 8693 section 2). The active faults apply.

    Raises:
        OAuthError: An error of RFC 8693 section 2.2.2.
    """
    if Switch.EXCHANGE_SLOW in core.switches:
        await anyio.sleep(SLOW_SECONDS)
    if Switch.EXCHANGE_ERROR in core.switches:
        raise OAuthError("temporarily_unavailable", "The fault exchange-error is active.", status=503)
    if Switch.EXCHANGE_CONSENT in core.switches:
        return Reply(json_response(400, CONSENT), f"exchange client={client.client_id} consent demanded")
    subject = _token(core, params, "subject_token")
    actor = None if params.get("actor_token") is None else _token(core, params, "actor_token")
    if actor is None and params.get("actor_token_type") is not None:
        raise OAuthError("invalid_request", "There is an actor_token_type without an actor_token.")
    if params.get("requested_token_type") not in (None, ACCESS_TOKEN):
        raise OAuthError("invalid_request", f"This server issues {ACCESS_TOKEN} only.")
    policy, options = core.options.policy, core.options
    resources = policy.resources_to_authorize([*params.all("resource"), *params.all("audience")])
    if options.delegation is not None and not set(resources) <= set(options.delegation.get(client.client_id, ())):
        raise OAuthError("invalid_target", "The delegation policy does not let this client act at the resource.")
    granted = policy.scopes_to_grant(params.get("scope"))
    act: dict[str, Any] = {"sub": client.client_id if actor is None else actor.claims["sub"]}
    if "act" in subject.claims:  # RFC 8693 section 4.1: the chain, the current actor first
        act["act"] = subject.claims["act"]
    held = subject.grant
    grant = Grant(
        client_id=client.client_id,
        subject=held.subject,
        resources=resources,
        granted=granted,
        auth_time=held.auth_time,
        acr=held.acr,
    )
    until = int(min(core.now + options.token_lifetime, subject.claims["exp"]))
    token = core.access_token(grant, resources, granted.scopes, confirmation_of(core, sender), act=act, until=until)
    content: dict[str, Any] = {
        "access_token": token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": sender.token_type,
        "expires_in": until - int(core.now),
        "scope": " ".join(granted.scopes),
    }
    if Switch.EXCHANGE_NO_ISSUED_TYPE in core.switches:
        del content["issued_token_type"]
    if Switch.EXCHANGE_N_A in core.switches:
        content["token_type"] = "N_A"
    note = f"exchange client={client.client_id} subject={held.subject} resources={' '.join(resources)}"
    return Reply(json_response(200, content, ((b"pragma", b"no-cache"),)), note)


def _token(core: Core, params: Params, name: str) -> AccessToken:
    """Return a live access token of this server that a parameter contains (RFC 8693 section 2.1)."""
    found = core.grants.access_token(params.required(name))
    if params.required(f"{name}_type") != ACCESS_TOKEN:
        raise OAuthError("invalid_request", f"The {name}_type is not {ACCESS_TOKEN}.")
    if found is None or found.grant.revoked or core.now >= found.claims["exp"]:
        raise OAuthError("invalid_request", f"The {name} is unknown, expired or revoked.")
    return found
