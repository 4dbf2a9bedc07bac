"""Clients as values: from registration (RFC 7591), client ID metadata documents, the configuration, the state file.

JSON members in, a `Client` or an `OAuthError` out. This module does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.token_exchange import EXCHANGE_GRANT
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._redirects import is_loopback_redirect, redirect_uri_error

__all__ = ("AUTH_METHODS", "GRANT_TYPES", "Client", "ClientRules", "load_client_object", "read_client")

AUTH_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")
GRANT_TYPES: Final = ("authorization_code", "refresh_token", "client_credentials", EXCHANGE_GRANT)
USER_GRANT_TYPES: Final = GRANT_TYPES[:2]
MAX_REDIRECTS = 32
MAX_NAME = 200
MAX_TEXT = 2048
# Members that describe the client and do not affect the protocol. Registration returns them unchanged.
DESCRIPTIVE: Final = (
    *("client_name", "client_uri", "logo_uri", "tos_uri", "policy_uri", "scope", "software_id", "software_version"),
    "application_type",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client.

    Attributes:
        client_id: Its identifier; the URL of its metadata document, if it has one.
        redirect_uris: The redirect URIs for authorization responses.
        auth_method: The authentication method at the token endpoint.
        grant_types: The grant types that the client may use.
        secret: The client secret, or None.
        members: All registered metadata without the secret, as registration returns it.
    """

    client_id: str
    redirect_uris: tuple[str, ...]
    auth_method: str
    grant_types: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    members: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def name(self) -> str | None:
        """The unverified name that the client gives itself."""
        name = self.members.get("client_name")
        return name if isinstance(name, str) else None

    @property
    def host(self) -> str | None:
        """The host of the metadata document, which vouches for the client; None without a document."""
        url = parse_url(self.client_id) if "://" in self.client_id else None
        return None if url is None else url.authority


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRules:
    """Rules for client metadata.

    Attributes:
        default_auth_method: The method of a registration without one (RFC 7591 section 2: `client_secret_basic`).
        private_schemes: Whether redirect URIs may have a private-use scheme.
        redirect_schemes: Private-use schemes without a dot that redirect URIs may have.
        strict_application_type: Whether `web` clients cannot have loopback redirect URIs (OpenID Connect registration).
    """

    default_auth_method: str = "client_secret_basic"
    private_schemes: bool = True
    redirect_schemes: tuple[str, ...] = ()
    strict_application_type: bool = False


def load_client_object(body: bytes) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        OAuthError: `invalid_client_metadata`.
    """
    try:
        return load_object(body)
    except JSONRefused as error:
        raise _invalid_metadata(f"The metadata is invalid: {error}.") from None


def _invalid_metadata(what: str) -> OAuthError:
    return OAuthError("invalid_client_metadata", what)


def _strings(members: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = members.get(name)
    if value is None:
        return default
    items = cast("list[object]", value) if isinstance(value, list) else None
    if items is None or not all(isinstance(item, str) for item in items):
        raise _invalid_metadata(f"{name} is not a list of strings.")
    return tuple(dict.fromkeys(cast("list[str]", items)))


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _invalid_metadata(f"{name} is not a string.")
    most = MAX_NAME if name == "client_name" else MAX_TEXT
    if len(value) > most:
        raise _invalid_metadata(f"{name} is longer than {most} characters.")
    return value


def _redirect_uris(members: Mapping[str, Any], rules: ClientRules, *, required: bool) -> tuple[str, ...]:
    try:
        uris = _strings(members, "redirect_uris", ())
    except OAuthError as error:
        raise OAuthError("invalid_redirect_uri", error.description) from None
    if required and not uris:
        raise OAuthError("invalid_redirect_uri", "redirect_uris is missing or empty.")
    if len(uris) > MAX_REDIRECTS:
        raise OAuthError("invalid_redirect_uri", f"redirect_uris has more than {MAX_REDIRECTS} entries.")
    for index, uri in enumerate(uris):
        why = redirect_uri_error(uri, private_schemes=rules.private_schemes, listed=rules.redirect_schemes)
        if why is not None:
            raise OAuthError("invalid_redirect_uri", f"redirect_uris[{index}] {why}.")
    return uris


def _supported(members: Mapping[str, Any], name: str, default: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    """Return the supported values of a list.

    A server may leave other values out (RFC 7591 section 3.2.1). At least one value has to remain.
    """
    kept = [value for value in _strings(members, name, default) if value in known]
    if not kept:
        raise _invalid_metadata(f"{name} has none of {', '.join(known)}.")
    return kept


def _check_application_type(members: Mapping[str, Any], uris: tuple[str, ...], rules: ClientRules) -> None:
    kind = members.get("application_type")
    if kind not in (None, "", "web", "native"):
        raise _invalid_metadata("application_type is neither web nor native.")
    if rules.strict_application_type and (kind or "web") == "web" and any(map(is_loopback_redirect, uris)):
        raise OAuthError("invalid_redirect_uri", "An application of type web cannot redirect to loopback.")


def read_client(
    members: Mapping[str, Any],
    *,
    client_id: str,
    rules: ClientRules,
    default_auth_method: str,
    secret: str | None = None,
    known_grants: tuple[str, ...] = USER_GRANT_TYPES,
) -> Client:
    """Return the client that metadata describes (RFC 7591 section 2).

    Unknown members are dropped, and so are unknown grant types and response types.

    Args:
        members: The metadata.
        client_id: The identifier of the client.
        rules: The rules for metadata.
        default_auth_method: The authentication method of metadata without one.
        secret: The client secret, if the authentication method needs one.
        known_grants: The grant types that the client may have. Registration is open to pages of any site, so a
            registered client gets tokens only with the consent of a user.

    Raises:
        OAuthError: `invalid_redirect_uri` or `invalid_client_metadata`.
    """
    grants = _supported(members, "grant_types", ("authorization_code",), known_grants)
    with_code = "authorization_code" in grants
    uris = _redirect_uris(members, rules, required=with_code)
    responses = _supported(members, "response_types", ("code",), ("code",)) if with_code else []
    method = _text(members, "token_endpoint_auth_method") or default_auth_method
    if method not in AUTH_METHODS:
        raise _invalid_metadata(f"token_endpoint_auth_method is none of {', '.join(AUTH_METHODS)}.")
    if method == "none" and (needing := {"client_credentials", EXCHANGE_GRANT} & set(grants)):
        raise _invalid_metadata(f"A client without a secret cannot use {' or '.join(sorted(needing))}.")
    _check_application_type(members, uris, rules)
    contacts = _strings(members, "contacts", ())
    kept: dict[str, Any] = {
        **({"redirect_uris": list(uris)} if uris else {}),
        "token_endpoint_auth_method": method,
        "grant_types": grants,
        **({"response_types": responses} if responses else {}),
        **{name: text for name in DESCRIPTIVE if (text := _text(members, name)) is not None},
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
