"""Security Event Tokens (RFC 8417) with the events of CAEP and RISC, and OIDC back-channel logout tokens.

`parse_event` and `parse_logout` read a token whose signature has not been verified. `check_event` and `check_logout`
require that the signature has been verified. An event is about subjects (RFC 9493).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from asgi_mcp_auth._oauth.access_token import unverified_time
from asgi_mcp_auth._oauth.json_types import JSONObject, JSONValue
from asgi_mcp_auth._oauth.jws import CompactJWS, parse_compact
from asgi_mcp_auth.context import copy_json
from asgi_mcp_auth.errors import InvalidToken

__all__ = (
    "LOGOUT",
    "EventRefusedError",
    "EventSubject",
    "SecurityEvent",
    "check_event",
    "check_logout",
    "parse_event",
    "parse_logout",
)

ErrorCode = Literal[
    "invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed", "access_denied"
]
"""The error codes of RFC 8935 section 2.4."""

SubjectKind = Literal["subject", "session", "token", "email"]

LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"
CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
VERIFICATION: Final = "https://schemas.openid.net/secevent/ssf/event-type/verification"
CREDENTIAL_CHANGE: Final = f"{CAEP}credential-change"
REVOKING: Final = frozenset(
    {
        f"{CAEP}session-revoked",
        f"{RISC}account-disabled",
        f"{RISC}account-purged",
        f"{RISC}credential-compromise",
        f"{RISC}sessions-revoked",
        LOGOUT,
    }
)
CHANGING: Final = f"{CAEP}token-claims-change"

_FORMATS: Final[Mapping[str, tuple[SubjectKind | None, str, bool]]] = {
    "iss_sub": ("subject", "sub", True),
    "jwt_id": ("token", "jti", True),
    "opaque": (None, "id", False),
    "email": ("email", "email", False),
}
"""By format: the kind of the subject if the format has one, the member that identifies it, and whether it has `iss`."""

MAX_TEXT: Final = 1024
MAX_ALIASES: Final = 10


class EventRefusedError(Exception):
    """An event that is not accepted.

    Attributes:
        code: The error code of RFC 8935 section 2.4.
        description: What is wrong, for the transmitter.
    """

    def __init__(self, code: ErrorCode, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


class EventSubject(NamedTuple):
    """What one event is about.

    Attributes:
        kind: What the value names.
        value: The identifier.
        issuer: The issuer that the identifier belongs to; None if the event does not name it.
    """

    kind: SubjectKind
    value: str
    issuer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """A verified security event, or a back-channel logout.

    Attributes:
        issuer: The transmitter.
        token_id: The `jti` of the event.
        event_type: The URI of its type.
        effect: What it means for tokens: `revoke`, `changed` (what is cached about them is out of date),
            `verification`, or `none`.
        subjects: What it is about; empty if this library can use none of its identifiers.
        at: When it happened, in seconds since the epoch.
        subject_id: The subject as the event has it (`sub_id`).
        payload: The members of the event.
    """

    issuer: str
    token_id: str
    event_type: str
    effect: Literal["revoke", "changed", "verification", "none"]
    subjects: tuple[EventSubject, ...]
    at: float
    subject_id: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    payload: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def _invalid(description: str) -> EventRefusedError:
    return EventRefusedError("invalid_request", description)


def _parse(token: bytes, kind: str, types: Sequence[str]) -> CompactJWS:
    try:
        jws = parse_compact(token.strip(b" \t\r\n"))
    except InvalidToken:
        raise _invalid(f"The body is not a {kind}") from None
    if (jws.header.typ or "").lower().removeprefix("application/") not in types:
        raise _invalid(f"The typ is not {types[0]}")
    return jws


def parse_event(token: bytes) -> CompactJWS:
    """Parse a Security Event Token and check its `typ` (RFC 8417 section 2.3), which an access token has not.

    Raises:
        EventRefusedError: It is none.
    """
    return _parse(token, "Security Event Token", ("secevent+jwt",))


def parse_logout(token: bytes) -> CompactJWS:
    """Parse a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.4), whose `typ` is optional.

    Raises:
        EventRefusedError: It is none.
    """
    return _parse(token, "logout token", ("logout+jwt", "jwt", ""))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TEXT else None


def _members(value: JSONValue) -> JSONObject | None:
    return value if isinstance(value, dict) else None


def _check_common(claims: JSONObject, audiences: frozenset[str], now: float, leeway: float) -> tuple[str, float]:
    """Check `aud`, `jti` and `iat`, and return `jti` and `iat`."""
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(name, str) and name in audiences for name in named):
        raise EventRefusedError("invalid_audience", "The aud does not name this receiver")
    token_id, issued_at = _text(claims.get("jti")), unverified_time(claims, "iat")
    if token_id is None or issued_at is None:
        raise _invalid("The jti or the iat is missing or malformed")
    if issued_at > now + leeway:
        raise _invalid("The iat is in the future")
    return token_id, issued_at


def check_event(claims: JSONObject, *, audiences: frozenset[str], now: float, leeway: float) -> SecurityEvent:
    """Return the one event of a Security Event Token.

    Raises:
        EventRefusedError: A claim is missing or not acceptable (RFC 8417 section 2.2, OpenID Shared Signals section 4).
    """
    token_id, issued_at = _check_common(claims, audiences, now, leeway)
    if claims.get("exp") is not None:  # RFC 8417 section 4.6: no event can be taken for an ID or access token
        raise _invalid("An event has no exp")
    subject_id, events = _members(claims.get("sub_id")), _members(claims.get("events"))
    if subject_id is None or _text(subject_id.get("format")) is None:
        raise _invalid("The sub_id is missing or malformed")
    if events is None or len(events) != 1:
        raise _invalid("The events do not contain exactly one event")
    [(event_type, content)] = events.items()
    payload = _members(content)
    if payload is None or _text(event_type) is None:
        raise _invalid("The event is malformed")
    at = issued_at
    if payload.get("event_timestamp") is not None:
        stamped = unverified_time(payload, "event_timestamp")
        if stamped is None or stamped > now + leeway:
            raise _invalid("The event_timestamp is malformed or in the future")
        at = stamped
    return SecurityEvent(
        issuer=str(claims.get("iss")),
        token_id=token_id,
        event_type=event_type,
        effect=_effect(event_type, payload),
        subjects=() if event_type == VERIFICATION else subjects_of(subject_id),
        at=at,
        subject_id=copy_json(subject_id),
        payload=copy_json(payload),
    )


def _effect(event_type: str, payload: JSONObject) -> Literal["revoke", "changed", "verification", "none"]:
    if event_type == CREDENTIAL_CHANGE:
        return "revoke" if payload.get("change_type") in ("revoke", "delete") else "none"
    if event_type in REVOKING:
        return "revoke"
    if event_type == CHANGING:
        return "changed"
    return "verification" if event_type == VERIFICATION else "none"


def subjects_of(subject_id: JSONObject) -> tuple[EventSubject, ...]:
    """Return the usable identifiers of a subject (RFC 9493 section 3.2, OpenID Shared Signals section 3).

    A complex subject means its session if that can be used, else its user: tokens do not name the device of a user, so
    all tokens of the user are meant.
    """
    if subject_id.get("format") != "complex":
        return _simple(subject_id, "subject")
    session, user = _members(subject_id.get("session")), _members(subject_id.get("user"))
    found = () if session is None else _simple(session, "session")
    return found or (() if user is None else _simple(user, "subject"))


def _simple(subject: JSONObject, opaque: Literal["subject", "session"]) -> tuple[EventSubject, ...]:
    """Return the identifiers of a subject that is not complex; an `opaque` one is of the given kind."""
    name = _text(subject.get("format")) or ""
    if name == "aliases":
        listed = subject.get("identifiers")
        identifiers = [_members(one) for one in listed] if isinstance(listed, list) else []
        if not 0 < len(identifiers) <= MAX_ALIASES or any(one is None for one in identifiers):
            raise _invalid("The subject of format aliases is malformed")
        nested = [one for one in identifiers if one is not None and one.get("format") != "aliases"]
        return tuple(found for one in nested for found in _simple(one, opaque))
    if name not in _FORMATS:  # account, phone_number, did, uri: no claim of a token is known to contain it
        return ()
    kind, member, names_issuer = _FORMATS[name]
    value, issuer = _text(subject.get(member)), _text(subject.get("iss")) if names_issuer else None
    if value is None or (names_issuer and issuer is None):
        raise _invalid(f"The subject of format {name} is malformed")
    return (EventSubject(kind or opaque, value, issuer),)


def check_logout(claims: JSONObject, *, clients: frozenset[str], now: float, leeway: float) -> SecurityEvent:
    """Return the event of a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.6).

    With a `sub` the tokens of the user are meant, because access tokens of most providers have no `sid`; with a `sid`
    alone the tokens of that session.

    Raises:
        EventRefusedError: A claim is missing or not acceptable.
    """
    token_id, issued_at = _check_common(claims, clients, now, leeway)
    expires = claims.get("exp")
    if expires is not None and now >= (unverified_time(claims, "exp") or -math.inf) + leeway:
        raise _invalid("The logout token has expired")
    if "nonce" in claims:  # an ID token has one
        raise _invalid("A logout token has no nonce")
    events = _members(claims.get("events"))
    payload = None if events is None else _members(events.get(LOGOUT))
    if payload is None:
        raise _invalid("The events do not contain the logout event")
    issuer, subject, session = str(claims.get("iss")), claims.get("sub"), claims.get("sid")
    if any(one is not None and _text(one) is None for one in (subject, session)) or subject is session is None:
        raise _invalid("The sub and the sid are missing or malformed")
    if isinstance(subject, str):
        found = EventSubject("subject", subject, issuer)
    else:
        found = EventSubject("session", str(session), issuer)
    return SecurityEvent(
        issuer=issuer,
        token_id=token_id,
        event_type=LOGOUT,
        effect="revoke",
        subjects=(found,),
        at=issued_at,
        payload=copy_json(payload),
    )
