"""Dialects: access tokens in the format of well-known providers, one for each row of `asgi_mcp_auth.providers`.

A dialect turns the claims of RFC 9068 into the claims and header members of a provider's token. The issuer, the key
set, the metadata and `sub` stay those of the development server. This module does no I/O.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from asgi_mcp_auth.providers import PROVIDERS, Provider

__all__ = ("DIALECTS", "Dialect", "entra_api")

Claims = dict[str, Any]

PROJECT: Final = "P2dev"
TENANT: Final = "6babcaad-604b-40ac-a9d7-9fd97c0b779f"


def _unchanged(claims: Claims) -> Claims:
    return claims


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The format of a provider's access tokens. The default is RFC 9068.

    Attributes:
        typ: The `typ` header member; None for a header without `typ`.
        header: More header members.
        translate: Turns the claims of RFC 9068 into the provider's claims.
        userinfo: Whether the userinfo endpoint is in the audience of tokens that were requested with `openid`.
        algorithm: The provider's signing algorithm, unless it is RS256.
        opaque: Whether the access tokens are not JWTs.
    """

    typ: str | None = "at+jwt"
    header: Mapping[str, str] = field(default_factory=dict[str, str])
    translate: Callable[[Claims], Claims] = _unchanged
    userinfo: bool = False
    algorithm: str | None = None
    opaque: bool = False

    def claims(self, claims: Claims, *, openid: bool) -> Claims:
        """Return the provider's claims for the claims of RFC 9068, requested with the scope `openid` or without."""
        if openid and self.userinfo:
            userinfo = f"{str(claims.get('iss')).rstrip('/')}/userinfo"
            claims = {**claims, "aud": [*_audience(claims), userinfo]}
        return self.translate(claims)


def entra_api(resource: str) -> str:
    """Return the made-up application ID of a resource in Entra's tokens. Equal resources have equal IDs."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, resource))


def _audience(claims: Claims) -> list[str]:
    audience = claims.get("aud", [])
    return [audience] if isinstance(audience, str) else list(audience)


def _without(claims: Claims, *names: str) -> Claims:
    return {name: value for name, value in claims.items() if name not in names}


def _scopes(claims: Claims) -> list[str]:
    return str(claims.get("scope", "")).split()


def _is_app(claims: Claims) -> bool:
    """Return whether a client got the token for itself."""
    return claims.get("sub") == claims.get("client_id")


def _entra(claims: Claims, client_claim: str) -> Claims:
    """Return the claims of both versions: short scope names in `scp`, or application permissions in `roles`."""
    short = [scope.rpartition("/")[2] for scope in _scopes(claims)]
    granted: Claims = {"roles": short, "idtyp": "app"} if _is_app(claims) else {"scp": " ".join(short)}
    return {
        **_without(claims, "client_id", "scope", "jti", "auth_time"),
        client_claim: claims.get("client_id"),
        f"{client_claim}acr": "0",
        "oid": str(uuid.uuid5(uuid.NAMESPACE_OID, str(claims.get("sub")))),
        "tid": TENANT,
        "uti": claims.get("jti"),
        **granted,
    }


def _entra_v2(claims: Claims) -> Claims:
    return {**_entra(claims, "azp"), "aud": entra_api((_audience(claims) or [""])[0]), "ver": "2.0"}


def _entra_v1(claims: Claims) -> Claims:
    return {**_entra(claims, "appid"), "aud": f"api://{entra_api((_audience(claims) or [''])[0])}", "ver": "1.0"}


def _auth0(claims: Claims) -> Claims:
    changed = _without(claims, "client_id", "jti", "auth_time")
    return {**changed, "azp": claims.get("client_id"), "permissions": _scopes(claims)}


def _auth0_rfc9068(claims: Claims) -> Claims:
    return {**_without(claims, "auth_time"), "permissions": _scopes(claims)}


def _okta(claims: Claims) -> Claims:
    return {
        **_without(claims, "client_id", "scope"),
        "ver": 1,
        "jti": f"AT.{claims.get('jti')}",
        "cid": claims.get("client_id"),
        "scp": _scopes(claims),
        **({} if _is_app(claims) else {"uid": f"00u{uuid.uuid5(uuid.NAMESPACE_OID, str(claims.get('sub'))).hex[:17]}"}),
    }


def _okta_org(claims: Claims) -> Claims:
    return {**_okta(claims), "aud": claims.get("iss")}


def _cognito(claims: Claims) -> Claims:
    """Return the claims of a token with resource binding."""
    more = {} if _is_app(claims) else {"username": claims.get("sub"), "origin_jti": claims.get("jti")}
    return {**claims, "token_use": "access", "version": 2, **more}


def _cognito_no_aud(claims: Claims) -> Claims:
    return _without(_cognito(claims), "aud")


def _keycloak(claims: Claims) -> Claims:
    return {
        "acr": "1",
        **_without(claims, "client_id"),
        "aud": [*_audience(claims), "account"],
        "typ": "Bearer",
        "azp": claims.get("client_id"),
        "jti": f"onrtac:{claims.get('jti')}",
        "realm_access": {"roles": ["offline_access", "default-roles-main"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "email_verified": False,
    }


def _workos(claims: Claims) -> Claims:
    return {**_without(claims, "auth_time"), "sid": f"session_{claims.get('jti')}", "permissions": _scopes(claims)}


def _descope(claims: Claims) -> Claims:
    return {**_without(claims, "client_id", "jti", "auth_time"), "azp": claims.get("client_id"), "amr": ["email"]}


def _descope_project(claims: Claims) -> Claims:
    return {**_descope(claims), "aud": PROJECT}


def _logto(claims: Claims) -> Claims:
    return _without(claims, "auth_time")


def _clerk(claims: Claims) -> Claims:
    return {**_without(claims, "auth_time"), "jti": f"oat_{claims.get('jti')}", "nbf": claims.get("iat", 0) - 10}


def _supabase(claims: Claims) -> Claims:
    return {
        **_without(claims, "scope", "jti", "auth_time"),
        "aud": "authenticated",
        "role": "authenticated",
        "aal": "aal1",
        "session_id": claims.get("jti"),
    }


class _Format(NamedTuple):
    """The parts of a dialect that are not in the table of providers."""

    translate: Callable[[Claims], Claims] = _unchanged
    header: Mapping[str, str] = MappingProxyType({})
    userinfo: bool = False


_FORMATS: Final[Mapping[str, _Format]] = {
    "entra-v2": _Format(_entra_v2),
    "entra-v1": _Format(_entra_v1, header=MappingProxyType({"x5t": "of-no-certificate"})),
    "auth0": _Format(_auth0, userinfo=True),
    "auth0-rfc9068": _Format(_auth0_rfc9068, userinfo=True),
    "okta": _Format(_okta),
    "okta-org": _Format(_okta_org),
    "cognito": _Format(_cognito),
    "cognito-no-aud": _Format(_cognito_no_aud),
    "keycloak": _Format(_keycloak),
    "google": _Format(),
    "workos": _Format(_workos),
    "descope": _Format(_descope),
    "descope-project": _Format(_descope_project),
    "logto": _Format(_logto),
    "clerk": _Format(_clerk),
    "supabase": _Format(_supabase),
}


def _dialect(provider: Provider) -> Dialect:
    """Return the dialect of a provider. Its tokens are opaque if the table of providers lists no `typ`."""
    token_format = _FORMATS[provider.slug]
    return Dialect(
        typ=provider.typ[0] if provider.typ else None,
        header=token_format.header,
        translate=token_format.translate,
        userinfo=token_format.userinfo,
        algorithm=None if provider.algorithm == "RS256" else provider.algorithm,
        opaque=not provider.typ,
    )


DIALECTS: Final[Mapping[str, Dialect]] = {row.slug: _dialect(row) for row in PROVIDERS if row.dialect}
"""The dialects by the provider's short name."""
