"""Clients as values, from registration (RFC 7591), from client id metadata documents, from the configuration.

JSON members in, a `Client` or an `OAuthError` out. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.dev.errors import OAuthError
from asgi_mcp_auth.dev.redirects import is_loopback_redirect, why_not_redirect

__all__ = ("AUTH_METHODS", "GRANT_TYPES", "Client", "ClientRules", "load_client_object", "read_client")

AUTH_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")
GRANT_TYPES: Final = ("authorization_code", "refresh_token", "client_credentials")
OF_USERS: Final = GRANT_TYPES[:2]
MAX_REDIRECTS = 32
MAX_NAME = 200
MAX_TEXT = 2048
# Members that are about the client and not about the protocol: kept and given back as they came.
TEXTS: Final = ("client_name", "client_uri", "logo_uri", "tos_uri", "policy_uri", "scope", "software_id")
MORE_TEXTS: Final = ("software_version", "application_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client.

    Attributes:
        client_id: Its identifier; a URL for one that has a metadata document.
        redirect_uris: Where answers may go.
        auth_method: How it authenticates at the token endpoint.
        grant_types: What it may use there.
        secret: Its secret, if it has one.
        members: All registered metadata, as given back at registration; no secret among it.
    """

    client_id: str
    redirect_uris: tuple[str, ...]
    auth_method: str
    grant_types: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    members: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def name(self) -> str | None:
        """What it calls itself, which nobody has checked."""
        name = self.members.get("client_name")
        return name if isinstance(name, str) else None

    @property
    def host(self) -> str | None:
        """The host that vouches for it, for a client with a metadata document."""
        url = parse_url(self.client_id) if "://" in self.client_id else None
        return None if url is None else url.authority


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRules:
    """What is accepted of clients.

    Args:
        default_auth_method: For a registration that names none (RFC 7591 section 2: `client_secret_basic`).
        private_schemes: Whether redirect URIs may have an app's own scheme.
        strict_application_type: Whether `web` clients are refused loopback redirects (OpenID Connect registration).
    """

    default_auth_method: str = "client_secret_basic"
    private_schemes: bool = True
    strict_application_type: bool = False


def load_client_object(body: bytes) -> dict[str, Any]:
    """Read the members of a JSON object.

    Raises:
        OAuthError: `invalid_client_metadata`.
    """
    try:
        return load_object(body)
    except JSONRefused as error:
        raise OAuthError("invalid_client_metadata", f"The metadata is refused: {error}.") from None


def _bad(what: str) -> OAuthError:
    return OAuthError("invalid_client_metadata", what)


def _strings(members: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = members.get(name)
    if value is None:
        return default
    items = cast("list[object]", value) if isinstance(value, list) else None
    if items is None or not all(isinstance(item, str) for item in items):
        raise _bad(f"{name} is not a list of strings.")
    return tuple(dict.fromkeys(cast("list[str]", items)))


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _bad(f"{name} is not a string.")
    if len(value) > (MAX_NAME if name == "client_name" else MAX_TEXT):
        raise _bad(f"{name} is too long.")
    return value


def _redirects(members: Mapping[str, Any], rules: ClientRules, *, needed: bool) -> tuple[str, ...]:
    try:
        uris = _strings(members, "redirect_uris", ())
    except OAuthError as error:
        raise OAuthError("invalid_redirect_uri", error.description) from None
    if needed and not uris:
        raise OAuthError("invalid_redirect_uri", "redirect_uris is missing or empty.")
    if len(uris) > MAX_REDIRECTS:
        raise OAuthError("invalid_redirect_uri", f"There are more than {MAX_REDIRECTS} redirect_uris.")
    for index, uri in enumerate(uris):
        why = why_not_redirect(uri, private_schemes=rules.private_schemes)
        if why is not None:
            raise OAuthError("invalid_redirect_uri", f"redirect_uris[{index}] {why}.")
    return uris


def _supported(members: Mapping[str, Any], name: str, default: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    """What of a list this server can do (RFC 7591 section 3.2.1 lets it leave values out); at least one."""
    asked = _strings(members, name, default)
    kept = [value for value in asked if value in known]
    if not kept:
        raise _bad(f"{name} has none of {', '.join(known)}.")
    return kept


def _application_type(members: Mapping[str, Any], uris: tuple[str, ...], rules: ClientRules) -> None:
    kind = members.get("application_type")
    if kind not in (None, "", "web", "native"):
        raise _bad("application_type is neither web nor native.")
    if rules.strict_application_type and (kind or "web") == "web" and any(map(is_loopback_redirect, uris)):
        raise OAuthError("invalid_redirect_uri", "An application of type web cannot redirect to this machine.")


def read_client(
    members: Mapping[str, Any],
    *,
    client_id: str,
    rules: ClientRules,
    default_auth_method: str,
    secret: str | None = None,
    known_grants: tuple[str, ...] = OF_USERS,
) -> Client:
    """Read a client's metadata (RFC 7591 section 2).

    Unknown members are left out, and so are grant and response types that are not known here.

    Args:
        members: The metadata.
        client_id: Its identifier.
        rules: What is accepted.
        default_auth_method: For metadata that names none.
        secret: What it authenticates with, should its method need one.
        known_grants: What it may use. Whoever comes along gets tokens through a user only: registration is open to
            the pages of any site.

    Raises:
        OAuthError: `invalid_redirect_uri` or `invalid_client_metadata`.
    """
    grants = _supported(members, "grant_types", ("authorization_code",), known_grants)
    with_code = "authorization_code" in grants
    uris = _redirects(members, rules, needed=with_code)
    responses = _supported(members, "response_types", ("code",), ("code",)) if with_code else []
    method = _text(members, "token_endpoint_auth_method") or default_auth_method
    if method not in AUTH_METHODS:
        raise _bad(f"token_endpoint_auth_method is none of {', '.join(AUTH_METHODS)}.")
    if method == "none" and "client_credentials" in grants:
        raise _bad("A client without a secret cannot use client_credentials.")
    _application_type(members, uris, rules)
    about = {name: text for name in (*TEXTS, *MORE_TEXTS) if (text := _text(members, name)) is not None}
    contacts = _strings(members, "contacts", ())
    kept: dict[str, Any] = {
        **({"redirect_uris": list(uris)} if uris else {}),
        "token_endpoint_auth_method": method,
        "grant_types": grants,
        **({"response_types": responses} if responses else {}),
        **about,
        **({"contacts": list(contacts)} if contacts else {}),
    }
    return Client(
        client_id=client_id,
        redirect_uris=uris,
        auth_method=method,
        grant_types=tuple(grants),
        secret=None if method == "none" else secret,
        members=kept,
    )
