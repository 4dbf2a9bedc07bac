"""Access tokens in the shape of well-known providers: the rows of `asgi_mcp_auth.providers`, as tokens.

Claims of RFC 9068 go in, the claims and header members of a provider's token come out. The issuer, the key set and
the metadata stay those of the development server; `sub` stays too. Pure.
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
    """How a provider says it; without arguments, RFC 9068.

    Attributes:
        typ: The header's `typ`; None for a header without.
        header: More header members.
        translate: The provider's claims from those of RFC 9068.
        userinfo: Whether a token of a sign-in with `openid` is for the userinfo endpoint too.
        algorithm: What the provider signs with, where it is not RS256.
        opaque: Whether its access tokens are no JWTs at all.
    """

    typ: str | None = "at+jwt"
    header: Mapping[str, str] = field(default_factory=dict[str, str])
    translate: Callable[[Claims], Claims] = _unchanged
    userinfo: bool = False
    algorithm: str | None = None
    opaque: bool = False

    def claims(self, claims: Claims, *, openid: bool) -> Claims:
        """The provider's claims, of a sign-in with the scope `openid` or without."""
        if openid and self.userinfo:
            userinfo = f"{str(claims.get('iss')).rstrip('/')}/userinfo"
            claims = {**claims, "aud": [*_audience(claims), userinfo]}
        return self.translate(claims)


def entra_api(resource: str) -> str:
    """The application id that stands for a resource in Entra's tokens: made up, and always the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, resource))


def _audience(claims: Claims) -> list[str]:
    audience = claims.get("aud", [])
    return [audience] if isinstance(audience, str) else list(audience)


def _less(claims: Claims, *names: str) -> Claims:
    return {name: value for name, value in claims.items() if name not in names}


def _scopes(claims: Claims) -> list[str]:
    return str(claims.get("scope", "")).split()


def _is_app(claims: Claims) -> bool:
    """Whether a client got the token for itself."""
    return claims.get("sub") == claims.get("client_id")


def _entra(claims: Claims, client_claim: str) -> Claims:
    """What both versions have: short scope names in `scp`, or application permissions in `roles`."""
    short = [scope.rpartition("/")[2] for scope in _scopes(claims)]
    granted: Claims = {"roles": short, "idtyp": "app"} if _is_app(claims) else {"scp": " ".join(short)}
    return {
        **_less(claims, "client_id", "scope", "jti", "auth_time"),
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
    changed = _less(claims, "client_id", "jti", "auth_time")
    return {**changed, "azp": claims.get("client_id"), "permissions": _scopes(claims)}


def _auth0_rfc9068(claims: Claims) -> Claims:
    return {**_less(claims, "auth_time"), "permissions": _scopes(claims)}


def _okta(claims: Claims) -> Claims:
    return {
        **_less(claims, "client_id", "scope"),
        "ver": 1,
        "jti": f"AT.{claims.get('jti')}",
        "cid": claims.get("client_id"),
        "scp": _scopes(claims),
        **({} if _is_app(claims) else {"uid": f"00u{uuid.uuid5(uuid.NAMESPACE_OID, str(claims.get('sub'))).hex[:17]}"}),
    }


def _okta_org(claims: Claims) -> Claims:
    return {**_okta(claims), "aud": claims.get("iss")}


def _cognito(claims: Claims) -> Claims:
    """With resource binding."""
    more = {} if _is_app(claims) else {"username": claims.get("sub"), "origin_jti": claims.get("jti")}
    return {**claims, "token_use": "access", "version": 2, **more}


def _cognito_no_aud(claims: Claims) -> Claims:
    return _less(_cognito(claims), "aud")


def _keycloak(claims: Claims) -> Claims:
    return {
        "acr": "1",
        **_less(claims, "client_id"),
        "aud": [*_audience(claims), "account"],
        "typ": "Bearer",
        "azp": claims.get("client_id"),
        "jti": f"onrtac:{claims.get('jti')}",
        "realm_access": {"roles": ["offline_access", "default-roles-main"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "email_verified": False,
    }


def _workos(claims: Claims) -> Claims:
    return {**_less(claims, "auth_time"), "sid": f"session_{claims.get('jti')}", "permissions": _scopes(claims)}


def _descope(claims: Claims) -> Claims:
    return {**_less(claims, "client_id", "jti", "auth_time"), "azp": claims.get("client_id"), "amr": ["email"]}


def _descope_project(claims: Claims) -> Claims:
    return {**_descope(claims), "aud": PROJECT}


def _logto(claims: Claims) -> Claims:
    return _less(claims, "auth_time")


def _clerk(claims: Claims) -> Claims:
    return {**_less(claims, "auth_time"), "jti": f"oat_{claims.get('jti')}", "nbf": claims.get("iat", 0) - 10}


def _supabase(claims: Claims) -> Claims:
    return {
        **_less(claims, "scope", "jti", "auth_time"),
        "aud": "authenticated",
        "role": "authenticated",
        "aal": "aal1",
        "session_id": claims.get("jti"),
    }


class _How(NamedTuple):
    """What the table of providers does not say of a row's tokens."""

    translate: Callable[[Claims], Claims] = _unchanged
    header: Mapping[str, str] = MappingProxyType({})
    userinfo: bool = False


_HOW: Final[Mapping[str, _How]] = {
    "entra-v2": _How(_entra_v2),
    "entra-v1": _How(_entra_v1, header=MappingProxyType({"x5t": "of-no-certificate"})),
    "auth0": _How(_auth0, userinfo=True),
    "auth0-rfc9068": _How(_auth0_rfc9068, userinfo=True),
    "okta": _How(_okta),
    "okta-org": _How(_okta_org),
    "cognito": _How(_cognito),
    "cognito-no-aud": _How(_cognito_no_aud),
    "keycloak": _How(_keycloak),
    "google": _How(),
    "workos": _How(_workos),
    "descope": _How(_descope),
    "descope-project": _How(_descope_project),
    "logto": _How(_logto),
    "clerk": _How(_clerk),
    "supabase": _How(_supabase),
}


def _dialect(provider: Provider) -> Dialect:
    """A row of the table of providers, as tokens: its `typ` (none at all: opaque) and its algorithm are the table's."""
    how = _HOW[provider.slug]
    return Dialect(
        typ=provider.typ[0] if provider.typ else None,
        header=how.header,
        translate=how.translate,
        userinfo=how.userinfo,
        algorithm=None if provider.algorithm == "RS256" else provider.algorithm,
        opaque=not provider.typ,
    )


DIALECTS: Final[Mapping[str, Dialect]] = {row.slug: _dialect(row) for row in PROVIDERS if row.dialect}
"""The dialects by the provider's short name."""
