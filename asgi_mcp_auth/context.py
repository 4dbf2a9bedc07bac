"""The caller as the application sees it: `AuthInfo`, its `Principal`, and `current_auth()`.

One `AuthInfo` may serve many requests with the same token, so nothing reachable from it can be changed: `claims`
returns a fresh copy each time.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, NoReturn, cast, final

from asgi_mcp_auth._oauth.json_types import is_number, is_object

__all__ = (
    "KEY_BYTES",
    "NO_ACTORS",
    "Actor",
    "ActorChain",
    "AuthInfo",
    "Principal",
    "RevocationKeys",
    "claim_key",
    "copy_json",
    "current_auth",
    "current_auth_var",
    "revocation_key",
)

MAX_ACTORS = 10
KEY_BYTES = 16


_PLAIN = frozenset((str, int, float, bool, type(None)))  # the types of values that need no copy


def copy_json(value: Any) -> Any:
    """Return a deep copy of a JSON value, several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: v if type(v) in _PLAIN else copy_json(v) for name, v in members.items()}
    if isinstance(value, list):
        return [v if type(v) in _PLAIN else copy_json(v) for v in cast("list[object]", value)]
    if isinstance(value, tuple):  # JSON has no tuples, but a verifier of the user's may make them
        return tuple([copy_json(v) for v in cast("tuple[object, ...]", value)])
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The identity of a caller. A subject alone is unique only within its issuer (RFC 9068 section 5).

    Attributes:
        issuer: The issuer of the token.
        subject: The subject of the token.
        client_id: The client that the token was issued to, if the token names one.
    """

    issuer: str
    subject: str
    client_id: str | None

    @property
    def is_client(self) -> bool:
        """Whether the token speaks for the client itself and not for a person."""
        return self.subject == self.client_id

    @property
    def key(self) -> str:
        """64 hexadecimal digits, equal for refreshed tokens: to bind sessions, handles and state to the caller."""
        return sha256(json.dumps([self.issuer, self.subject, self.client_id]).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A party that acts for the subject of a token (RFC 8693 section 4.1).

    Attributes:
        subject: The `sub` of the actor, unique within its issuer.
        issuer: The `iss` of the actor, if the token names one.
        client_id: The `client_id` of the actor, if the token names one.
    """

    subject: str
    issuer: str | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class ActorChain:
    """The actors of a token, the current actor first.

    Only the first actor may decide about access; the others are history (RFC 8693 section 4.1).

    Attributes:
        actors: At most 10 actors. Empty if the token has no `act` claim, or a malformed one.
        dropped: The number of earlier actors that are left out.
    """

    actors: tuple[Actor, ...] = ()
    dropped: int = 0

    @classmethod
    def of(cls, act: object) -> ActorChain:
        """Return the chain of an `act` claim; an empty chain if any part of the claim is malformed."""
        actors: list[Actor] = []
        count = 0
        while act is not None:
            if not is_object(act):
                return NO_ACTORS
            named = [act.get(name) for name in ("sub", "iss", "client_id")]
            subject, issuer, client_id = [value if isinstance(value, str) and value else None for value in named]
            if subject is None or (issuer, client_id) != (named[1], named[2]):
                return NO_ACTORS
            if count < MAX_ACTORS:
                actors.append(Actor(subject=subject, issuer=issuer, client_id=client_id))
            count += 1
            act = act.get("act")
        return cls(tuple(actors), count - len(actors)) if actors else NO_ACTORS


NO_ACTORS = ActorChain()


def revocation_key(kind: str, *parts: str) -> bytes:
    """Return the digest of what a revocation is about. Its length bounds memory, and it shows no subject."""
    digest = sha256(kind.encode("ascii"))
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()[:KEY_BYTES]


class RevocationKeys:
    """What a revocation of one token may be about: digests of the token's claims, and its times.

    Args:
        info: The identity.
        claims: Its claims, which nothing changes.

    Attributes:
        issued_at: The `iat` of the token; minus infinity if it has none.
        lifetime: `exp` minus `iat`; infinity if one of them is absent.
        token: The key of the issuer and the `jti`; None without `jti`.
        session: The key of the issuer and the `sid`; None without `sid`.
        subject: The key of the issuer and the subject.
        client: The key of the issuer, the subject and the client; None without client.
    """

    __slots__ = ("_all", "_claims", "_issuer", "client", "issued_at", "lifetime", "session", "subject", "token")

    def __init__(self, info: AuthInfo, claims: Mapping[str, object]) -> None:
        issuer, jti, sid, iat = info.issuer, claims.get("jti"), claims.get("sid"), claims.get("iat")
        self.issued_at = -math.inf
        if is_number(iat) and -_MAX_TIME <= iat <= _MAX_TIME:
            self.issued_at = float(iat)
        self.lifetime = math.inf if info.expires_at is None else info.expires_at - self.issued_at
        self.token = revocation_key("jti", issuer, jti) if isinstance(jti, str) else None
        self.session = revocation_key("sid", issuer, sid) if isinstance(sid, str) else None
        self.subject = revocation_key("sub", issuer, info.subject)
        client = info.client_id
        self.client = None if client is None else revocation_key("client", issuer, info.subject, client)
        self._issuer = issuer
        self._all = claims
        self._claims: dict[str, bytes | None] = {}

    def claim(self, name: str) -> bytes | None:
        """Return the key of the issuer and one claim; None unless the claim is a string."""
        if name not in self._claims:
            value = self._all.get(name)
            self._claims[name] = claim_key(self._issuer, name, value) if isinstance(value, str) else None
        return self._claims[name]


def claim_key(issuer: str, name: str, value: str) -> bytes:
    """Return the key of a claim, without regard to case: providers write one email address in several ways."""
    return revocation_key("claim", issuer, name, value.casefold())


_FIELDS = ("issuer", "subject", "client_id", "scopes", "audience", "resource", "expires_at", "claims", "token")
_MAX_TIME = sys.float_info.max
_set = object.__setattr__  # AuthInfo refuses a plain assignment


def _check(issuer: object, subject: object, client_id: object, scopes: Iterable[object], expires_at: object) -> None:
    """Check the fields: verifiers of the user's make identities too, and one that cannot be right must not exist."""
    wrong: list[str] = []
    if not isinstance(issuer, str) or not issuer:
        wrong.append("issuer")
    if not isinstance(subject, str) or not subject:
        wrong.append("subject")
    if client_id is not None and (not isinstance(client_id, str) or not client_id):
        wrong.append("client_id")
    for scope in scopes:
        if not isinstance(scope, str):
            wrong.append("scopes")
            break
    if expires_at is not None and not (isinstance(expires_at, (int, float)) and abs(expires_at) <= _MAX_TIME):
        wrong.append("expires_at")
    if wrong:
        raise ValueError(f"AuthInfo: {', '.join(wrong)}: pass non-empty strings, and a finite time")


@final
class AuthInfo:
    """A verified access token, without the token.

    Args:
        issuer: The `iss` of the authorization server that issued the token.
        subject: The `sub`. It is unique within the issuer only: compare `principal`.
        client_id: The OAuth client, if the token names one.
        scopes: The granted scopes, as the token says it (implied scopes are not added); a string is split at spaces.
        audience: The `aud` as the token says it.
        resource: The identifier of the protected resource that the token was accepted for.
        expires_at: Seconds since the epoch; None if a verifier of your own does not say.
        claims: All claims. The attribute returns a fresh copy at each access.
        token: The raw token; None unless `expose_token=True` is set. Never shown in a repr.

    Raises:
        ValueError: The issuer or the subject is not a non-empty string, or another field has a wrong type.
    """

    __slots__ = (
        "_claims",
        "_jti_hash",
        "_nested",
        "_principal_key",
        "_revocation_keys",
        "audience",
        "client_id",
        "expires_at",
        "issuer",
        "resource",
        "scopes",
        "subject",
        "token",
    )

    issuer: str
    subject: str
    client_id: str | None
    scopes: tuple[str, ...]
    audience: str | tuple[str, ...] | None
    resource: str | None
    expires_at: float | None
    token: str | None
    _claims: dict[str, Any]
    _jti_hash: str | None
    _principal_key: str
    _revocation_keys: RevocationKeys
    _nested: tuple[str, ...]

    def __init__(
        self,
        *,
        issuer: str,
        subject: str,
        client_id: str | None = None,
        scopes: Iterable[str] = (),
        audience: str | Iterable[str] | None = None,
        resource: str | None = None,
        expires_at: float | None = None,
        claims: Mapping[str, Any] | None = None,
        token: str | None = None,
    ) -> None:
        granted = tuple(scopes.split() if isinstance(scopes, str) else scopes)
        _check(issuer, subject, client_id, granted, expires_at)
        own = dict(claims) if claims else {}
        nested: tuple[str, ...] = ()
        if not _PLAIN.issuperset(map(type, own.values())):
            nested = tuple([name for name, value in own.items() if isinstance(value, (dict, list, tuple))])
            for name in nested:
                own[name] = copy_json(own[name])
        _set(self, "issuer", issuer)
        _set(self, "subject", subject)
        _set(self, "client_id", client_id)
        _set(self, "scopes", granted)
        _set(self, "audience", audience if audience is None or isinstance(audience, str) else tuple(audience))
        _set(self, "resource", resource)
        _set(self, "expires_at", expires_at)
        _set(self, "token", token)
        _set(self, "_claims", own)
        _set(self, "_nested", nested)

    @property
    def claims(self) -> dict[str, Any]:
        """All claims of the token, a fresh copy each time."""
        copied = self._claims.copy()
        for name in self._nested:
            copied[name] = copy_json(copied[name])
        return copied

    @property
    def principal(self) -> Principal:
        """The identity of the caller: issuer, subject and client together."""
        return Principal(issuer=self.issuer, subject=self.subject, client_id=self.client_id)

    @property
    def actors(self) -> ActorChain:
        """The parties that act for the subject, from the `act` claim (RFC 8693 section 4.1)."""
        act = self._claims.get("act")
        return NO_ACTORS if act is None else ActorChain.of(act)

    @property
    def principal_hash(self) -> str:
        """`principal.key`, computed once: one AuthInfo serves every request with its cached token."""
        try:
            return self._principal_key
        except AttributeError:  # the slot is empty
            _set(self, "_principal_key", self.principal.key)
        return self._principal_key

    @property
    def jti_hash(self) -> str | None:
        """The SHA-256 of the `jti` claim in hexadecimal digits, computed once; None if the token has no `jti`."""
        try:
            return self._jti_hash
        except AttributeError:  # the slot is empty
            jti = self._claims.get("jti")
            hashed = sha256(jti.encode("utf-8", "surrogatepass")).hexdigest() if isinstance(jti, str) else None
            _set(self, "_jti_hash", hashed)
        return self._jti_hash

    @property
    def revocation_keys(self) -> RevocationKeys:
        """What a revocation of the token may be about, computed once."""
        try:
            return self._revocation_keys
        except AttributeError:  # the slot is empty
            _set(self, "_revocation_keys", RevocationKeys(self, self._claims))
        return self._revocation_keys

    def replace(self, **changes: Any) -> AuthInfo:
        """Return a copy with some fields changed."""
        return AuthInfo(**{name: getattr(self, name) for name in _FIELDS} | changes)

    __replace__ = replace  # copy.replace(), Python 3.13

    def __copy__(self) -> AuthInfo:
        return self  # immutable

    def __deepcopy__(self, _: dict[int, Any]) -> AuthInfo:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in _FIELDS}
        return partial(AuthInfo, **fields), ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"AuthInfo is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"AuthInfo is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AuthInfo):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    def __hash__(self) -> int:
        return hash((self.issuer, self.subject, self.client_id, self.scopes, self.resource))

    def __repr__(self) -> str:
        return (
            f"AuthInfo(issuer={self.issuer!r}, subject={self.subject!r}, client_id={self.client_id!r}, "
            f"scopes={self.scopes!r}, resource={self.resource!r})"
        )


current_auth_var: ContextVar[AuthInfo | None] = ContextVar("asgi_mcp_auth", default=None)


def current_auth() -> AuthInfo | None:
    """Return the caller of the request that is being handled, or None outside a protected request."""
    return current_auth_var.get()
