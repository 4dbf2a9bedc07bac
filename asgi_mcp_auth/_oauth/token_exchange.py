"""Requests and answers of token exchange (RFC 8693) and of Entra ID's on-behalf-of grant, and allowed destinations.

The functions are pure. A request does not contain the subject token, which is passed when the form is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from asgi_mcp_auth._oauth.credentials import is_token
from asgi_mcp_auth._oauth.grammar import JSON_TYPE, NQSCHAR, is_scope
from asgi_mcp_auth._oauth.json_types import JSONObject, unchecked
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.errors import ExchangeReason, printable

__all__ = (
    "ACCESS_TOKEN",
    "EXCHANGE_GRANT",
    "Destinations",
    "ExchangeRequest",
    "ExchangedToken",
    "Failure",
    "Grant",
    "cached_until",
    "make_request",
    "read_answer",
    "refuses_client",
)

Grant = Literal["token_exchange", "on_behalf_of"]

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
BEARER_TYPES: Final = frozenset({ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt"})
EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

OK, SERVER_ERROR = 200, 500
MAX_VALUES = 1024
MAX_ITEMS = 16
MAX_TEXT = 2048
MAX_CLAIMS = 16 * 1024

_TEXT = re.compile(r"[\x20-\x7E]+")
_CODE = re.compile(f"[{NQSCHAR}]{{1,128}}")  # RFC 6749 section 5.2
_TOKEN_TYPE = re.compile(r"[A-Za-z0-9._~+/:-]{1,256}")
_DIGITS = re.compile(r"[0-9]{1,10}")

SUBJECT_REFUSED: Final = frozenset({"invalid_request", "invalid_grant"})  # RFC 8693 section 2.2.2, RFC 7523 section 3.1
INTERACTION: Final = frozenset(
    {"interaction_required", "consent_required", "login_required", "account_selection_required"}
)
"""Errors that only the user can resolve (OpenID Connect Core section 3.1.2.6); Entra ID adds `claims`."""
SUBERRORS: Final = INTERACTION | {"basic_action", "additional_action", "message_only", "user_password_expired"}
REASONS: Final[Mapping[str, ExchangeReason]] = {
    **dict.fromkeys(SUBJECT_REFUSED, ExchangeReason.SUBJECT_REFUSED),
    **dict.fromkeys(INTERACTION, ExchangeReason.INTERACTION_REQUIRED),
    "invalid_target": ExchangeReason.INVALID_TARGET,
    "invalid_scope": ExchangeReason.INVALID_SCOPE,
    "access_denied": ExchangeReason.DENIED,
    "unauthorized_client": ExchangeReason.DENIED,
    "unsupported_grant_type": ExchangeReason.DENIED,
    "temporarily_unavailable": ExchangeReason.UNAVAILABLE,
    "server_error": ExchangeReason.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangedToken:
    """A token for an upstream API. A repr contains no token.

    Attributes:
        access_token: The token.
        token_type: How the token is used, as the server wrote it: `Bearer`, or `N_A` for a token that is none.
        issued_token_type: The type of the token (RFC 8693 section 3).
        scopes: The granted scopes; None if the server says nothing, which means the requested ones.
        expires_at: Seconds since the epoch; None if the server does not say.
    """

    access_token: str = field(repr=False)
    token_type: str
    issued_token_type: str
    scopes: tuple[str, ...] | None = None
    expires_at: float | None = None

    @property
    def is_bearer(self) -> bool:
        """Whether the token may be sent as a bearer token."""
        return self.token_type.lower() == "bearer" and self.issued_token_type in BEARER_TYPES


class Failure(NamedTuple):
    """Why there is no token.

    Attributes:
        reason: What the failure means.
        message: The text for the operator.
        error: The error code of the server.
        claims: The claims that a new sign-in has to request, as JSON text (Entra ID).
        suberror: The `suberror` of Entra ID.
        retry_after: Seconds until another attempt may succeed.
    """

    reason: ExchangeReason
    message: str
    error: str | None = None
    claims: str | None = None
    suberror: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """What is asked for, without the subject token. A repr contains no token."""

    audiences: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    requested_token_type: str = ACCESS_TOKEN
    actor_token: str | None = field(default=None, repr=False)

    def form(self, subject_token: str, grant: Grant) -> list[tuple[str, str]]:
        """Return the parameters of the request (RFC 8693 section 2.1), without client authentication."""
        if grant == "on_behalf_of":
            return [
                ("grant_type", JWT_BEARER_GRANT),
                ("assertion", subject_token),
                ("requested_token_use", "on_behalf_of"),
                ("scope", " ".join(self.scopes)),
            ]
        form = [
            ("grant_type", EXCHANGE_GRANT),
            ("subject_token", subject_token),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", self.requested_token_type),
            *(("resource", resource) for resource in self.resources),
            *(("audience", audience) for audience in self.audiences),
        ]
        if self.scopes:
            form.append(("scope", " ".join(self.scopes)))
        if self.actor_token is not None:  # RFC 8693 section 2.1: the type exactly when there is a token
            form += [("actor_token", self.actor_token), ("actor_token_type", ACCESS_TOKEN)]
        return form

    def key(self, issuer: str, client_id: str, subject_digest: bytes) -> bytes:
        """Return the SHA-256 of everything that the answer depends on. Each part has its length in front."""
        actor = b"" if self.actor_token is None else sha256(self.actor_token.encode()).digest()
        parts = [issuer, client_id, self.requested_token_type]
        for listed in (self.audiences, self.resources, sorted(set(self.scopes))):
            parts += [str(len(listed)), *listed]
        texts = "".join([f"{len(part)}:{part}" for part in parts])
        return sha256(
            b"%d:%b%d:%b%b" % (len(subject_digest), subject_digest, len(actor), actor, texts.encode())
        ).digest()

    def unfit_for(self, grant: Grant) -> str | None:
        """Return why a grant cannot ask for this; None if it can."""
        if grant != "on_behalf_of":
            return None
        if self.audiences or self.resources or self.actor_token is not None:
            return "The grant on_behalf_of has scopes only. Name the API in scopes=, such as 'api://orders/.default'."
        if self.requested_token_type != ACCESS_TOKEN:
            return "The grant on_behalf_of issues access tokens only. Remove requested_token_type=."
        return None if self.scopes else "The grant on_behalf_of needs scopes=."


def _texts(value: str | Iterable[str], name: str) -> tuple[str, ...]:
    listed = (value,) if isinstance(value, str) else tuple(value)
    if len(listed) > MAX_ITEMS:
        raise ValueError(f"{name} has more than {MAX_ITEMS} entries.")
    for text in map(unchecked, listed):
        if not isinstance(text, str) or len(text) > MAX_TEXT or _TEXT.fullmatch(text) is None:
            raise ValueError(f"{name} has an entry that is not a text of printable ASCII. Pass strings.")
    return listed


def make_request(
    *,
    audience: str | Iterable[str],
    resource: str | Iterable[str],
    scopes: Iterable[str],
    requested_token_type: str,
    actor_token: str | None,
) -> ExchangeRequest:
    """Return a checked request.

    Raises:
        ValueError: An argument cannot be sent. The message contains no token.
    """
    audiences, resources = _texts(audience, "audience"), _texts(resource, "resource")
    named = tuple(scopes.split() if isinstance(scopes, str) else scopes)
    if not all(map(is_scope, named)):
        raise ValueError("scopes has an entry that is not a scope (RFC 6749 section 3.3). Pass a list of scopes.")
    for url in resources:
        if (parsed := parse_url(url)) is None or parsed.fragment is not None:
            msg = f"resource {printable(url)} is not an absolute URL without a fragment. Pass audience= for a name."
            raise ValueError(msg)
    if not (audiences or resources or named):
        raise ValueError("Nothing is asked for. Pass audience=, resource= or scopes=.")
    if _TOKEN_TYPE.fullmatch(requested_token_type) is None:
        msg = f"requested_token_type {printable(requested_token_type)} is not a URI. Pass a URI of RFC 8693 section 3."
        raise ValueError(msg)
    if actor_token is not None and not is_token(actor_token.encode("ascii", "replace")):
        raise ValueError("actor_token is not a token. Pass an access token of this server.")
    return ExchangeRequest(
        audiences=audiences,
        resources=resources,
        scopes=named,
        requested_token_type=requested_token_type,
        actor_token=actor_token,
    )


def _load(media_type: str, body: bytes) -> JSONObject | None:
    """Return the members of an answer; None if it is not unambiguous JSON."""
    if re.match(JSON_TYPE, media_type) is None:
        return None
    try:
        return load_object(body, max_values=MAX_VALUES, max_containers=MAX_VALUES)
    except JSONRefused:
        return None


def refuses_client(status: int, media_type: str, body: bytes) -> bool:
    """Return whether an answer refuses the credentials of this server (RFC 6749 section 5.2).

    A 403 does not: some servers answer it if their policy denies the exchange for one user (Keycloak).
    """
    members = _load(media_type, body) if OK < status < SERVER_ERROR else None
    error = None if members is None else members.get("error")
    return error == "invalid_client" or (status == 401 and error is None)  # noqa: PLR2004


def read_answer(
    status: int, media_type: str, body: bytes, request: ExchangeRequest, *, grant: Grant, now: float
) -> ExchangedToken | Failure:
    """Return the token of an answer (RFC 8693 section 2.2.1), or what its error means (section 2.2.2).

    Args:
        status: The status; below 500.
        media_type: The `Content-Type`.
        body: The body.
        request: What was asked for.
        grant: How it was asked for.
        now: When the request was sent, in seconds since the epoch.
    """
    members = _load(media_type, body)
    if members is None:
        return _unusable(f"a status {status} without unambiguous JSON")
    if status != OK:
        return _read_error(status, members)
    token, token_type = members.get("access_token"), members.get("token_type")
    if not isinstance(token, str) or not is_token(token.encode("ascii", "replace")):
        return _unusable("no access_token that is a token")
    if not isinstance(token_type, str) or _TOKEN_TYPE.fullmatch(token_type) is None:
        return _unusable("no token_type")
    issued = ACCESS_TOKEN if grant == "on_behalf_of" else members.get("issued_token_type")
    if not isinstance(issued, str):
        return _unusable("no issued_token_type")
    if issued != request.requested_token_type:
        return _unusable(f"issued_token_type {printable(issued)}, which was not requested")
    expires_in, scope = _seconds(members.get("expires_in")), members.get("scope")
    granted = tuple(scope.split()) if isinstance(scope, str) else None
    if granted is not None and not all(map(is_scope, granted)):
        return _unusable("a malformed scope")
    exchanged = ExchangedToken(
        access_token=token,
        token_type=token_type,
        issued_token_type=issued,
        scopes=granted,
        expires_at=None if expires_in is None else now + expires_in,
    )
    if issued in BEARER_TYPES and not exchanged.is_bearer:
        return _unusable(f"token_type {printable(token_type)}, which is no bearer token")
    return exchanged


def _unusable(what: str) -> Failure:
    return Failure(ExchangeReason.INVALID_ANSWER, f"The token endpoint answered with {what}")


def _read_error(status: int, members: Mapping[str, object]) -> Failure:
    """Return what an error means. Texts of the server are not repeated: they may quote the request."""
    error = members.get("error")
    if not isinstance(error, str) or _CODE.fullmatch(error) is None:
        return _unusable(f"a status {status} without an error code")
    claims, suberror = _text(members, "claims", MAX_CLAIMS), _text(members, "suberror", 128)
    reason = REASONS.get(error, ExchangeReason.INVALID_ANSWER)
    if reason is ExchangeReason.SUBJECT_REFUSED and (claims is not None or suberror in SUBERRORS):
        reason = ExchangeReason.INTERACTION_REQUIRED  # Entra ID: invalid_grant with suberror consent_required
    message = f"The token endpoint answered {status} {printable(error)}"
    return Failure(reason, message, error=error, claims=claims, suberror=suberror)


def _text(members: Mapping[str, object], name: str, limit: int) -> str | None:
    value = members.get(name)
    return value if isinstance(value, str) and len(value) <= limit and _TEXT.fullmatch(value) is not None else None


def _seconds(value: object) -> float | None:
    """Return `expires_in`, which some servers send as a string; None if it is absent or no number of seconds."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e10:  # noqa: PLR2004
        return None
    return float(value)


def cached_until(token: ExchangedToken, subject_until: float | None, margin: float) -> float | None:
    """Return until when a token is used: as long as the token and the subject token; None not to cache the token."""
    if token.expires_at is None:
        return None
    end = token.expires_at if subject_until is None else min(token.expires_at, subject_until)
    return end - margin


class Destinations(NamedTuple):
    """The origins that may receive a token.

    Attributes:
        origins: Exact origins, without a default port.
        suffixes: Domain suffixes with the dot in front, for https on the default port.
    """

    origins: frozenset[str]
    suffixes: tuple[str, ...] = ()

    def allow(self, scheme: str, host: str, port: int | None) -> bool:
        """Return whether a request to this origin may carry the token. `port` is None for the default port."""
        url = parse_url(f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}")
        if url is None:
            return False
        if url.origin in self.origins:
            return True
        return url.scheme == "https" and url.port is None and url.host.endswith(self.suffixes)
