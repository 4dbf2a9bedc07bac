"""What the application learns of the caller: `AuthInfo`, its `Principal`, and `current_auth()`.

One `AuthInfo` may serve many requests with the same token, so nothing reachable from it can be
changed: `claims` gives a fresh copy each time it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from hashlib import sha256
from typing import Any, cast, final

from asgi_mcp_auth._values import dataclass

__all__ = ("AuthInfo", "Principal", "copy_json", "current_auth", "current_auth_var", "verified_auth_info")


def copy_json(value: Any) -> Any:
    """A deep copy of a JSON value, several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {name: copy_json(member) for name, member in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [copy_json(member) for member in cast("list[object]", value)]
    if isinstance(value, tuple):  # JSON has none, but a verifier of the user's may
        return tuple(copy_json(member) for member in cast("tuple[object, ...]", value))
    return value


_MUTABLE = frozenset((dict, list, tuple))  # a tuple of a verifier's own may hold what can be changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling: never the subject alone, which is unique only within its issuer (RFC 9068 section 5)."""

    issuer: str
    subject: str
    client_id: str | None

    @property
    def is_client(self) -> bool:
        """True when the token speaks for the client itself and not for a person."""
        return self.subject == self.client_id

    @property
    def key(self) -> str:
        """64 hexadecimal digits, equal across refreshed tokens, for binding sessions, handles and state."""
        return sha256(json.dumps([self.issuer, self.subject, self.client_id]).encode()).hexdigest()


def _check(issuer: object, subject: object, client_id: object, scopes: tuple[object, ...], expires_at: object) -> None:
    """Verifiers of the user's make identities too: one that cannot be right must not exist."""
    named = (("issuer", issuer), ("subject", subject), ("client_id", "none" if client_id is None else client_id))
    wrong = [name for name, value in named if not value or not isinstance(value, str)]
    if not all(isinstance(scope, str) for scope in scopes):
        wrong.append("scopes")
    if expires_at is not None and not (isinstance(expires_at, (int, float)) and math.isfinite(expires_at)):
        wrong.append("expires_at")
    if wrong:
        msg = f"AuthInfo: {', '.join(wrong)}: a string is wanted, not empty, or a finite time"
        raise ValueError(msg)


_FIELDS = ("issuer", "subject", "client_id", "scopes", "audience", "resource", "expires_at", "claims", "token")


class _Open:
    """The fields of an `AuthInfo`, while they are being filled in: it is one as soon as its class is changed to that.

    A plain assignment to a slot is several times cheaper than what gets round the `__setattr__` of an immutable class.
    """

    __slots__ = (
        "_claims",
        "_kept",
        "_nested",
        "audience",
        "client_id",
        "expires_at",
        "issuer",
        "resource",
        "scopes",
        "subject",
        "token",
    )

    _claims: dict[str, Any]
    _kept: Any
    _nested: tuple[str, ...]
    issuer: str
    subject: str
    client_id: str | None
    scopes: tuple[str, ...]
    audience: str | tuple[str, ...] | None
    resource: str | None
    expires_at: float | None
    token: str | None


@final
class AuthInfo(_Open):
    """A verified access token, without the token.

    Args:
        issuer: The `iss` of the authorization server that issued the token.
        subject: The `sub`; unique within the issuer only: compare `principal`.
        client_id: The OAuth client, when the token names one.
        scopes: What was granted, as the token says it (implied scopes are not added); a string is split at spaces.
        audience: The `aud` as the token says it.
        resource: The identifier of the protected resource the token was accepted for.
        expires_at: Seconds since the epoch; None when a verifier of your own did not say.
        claims: All claims. The attribute returns a fresh copy at each access.
        token: The raw token; None unless the middleware was told `expose_token=True`. Never shown in a repr.

    Raises:
        ValueError: The issuer or the subject is not a non-empty string, or another field has a wrong type.
    """

    __slots__ = ()

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
        named = audience if audience is None or isinstance(audience, str) else tuple(audience)
        own = dict(claims or {})
        for name, value in own.items():
            own[name] = copy_json(value)
        _fill(self, issuer, subject, client_id, granted, named, resource, expires_at, own, token)

    @property
    def claims(self) -> dict[str, Any]:
        """All claims of the token, a fresh copy each time."""
        copied: dict[str, Any] = self._claims.copy()
        for name in self._nested:
            copied[name] = copy_json(copied[name])
        return copied

    @property
    def principal(self) -> Principal:
        """The caller's identity: issuer, subject and client together."""
        return Principal(issuer=self.issuer, subject=self.subject, client_id=self.client_id)

    def replace(self, **changes: Any) -> AuthInfo:
        """A copy with some fields changed."""
        return AuthInfo(**{name: getattr(self, name) for name in _FIELDS} | changes)

    __replace__ = replace  # copy.replace(), Python 3.13

    def __copy__(self) -> AuthInfo:
        return self  # nothing about it can be changed

    def __deepcopy__(self, _: dict[int, Any]) -> AuthInfo:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in _FIELDS}
        return partial(AuthInfo, **fields), ()

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"AuthInfo is immutable: cannot set {name!r}"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = f"AuthInfo is immutable: cannot delete {name!r}"
        raise AttributeError(msg)

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


def _nested(claims: dict[str, Any]) -> tuple[str, ...]:
    """The claims that have to be copied deeply."""
    return tuple([name for name, value in claims.items() if type(value) in _MUTABLE])


def _fill(  # noqa: PLR0917 - the fields
    info: AuthInfo,
    issuer: str,
    subject: str,
    client_id: str | None,
    scopes: tuple[str, ...],
    audience: str | tuple[str, ...] | None,
    resource: str | None,
    expires_at: float | None,
    claims: dict[str, Any],
    token: str | None,
) -> None:
    put = object.__setattr__
    put(info, "issuer", issuer)
    put(info, "subject", subject)
    put(info, "client_id", client_id)
    put(info, "scopes", scopes)
    put(info, "audience", audience)
    put(info, "resource", resource)
    put(info, "expires_at", expires_at)
    put(info, "_claims", claims)
    put(info, "_nested", _nested(claims))
    put(info, "token", token)
    put(info, "_kept", None)


def verified_auth_info(  # noqa: PLR0917 - the fields
    issuer: str,
    subject: str,
    client_id: str | None,
    scopes: tuple[str, ...],
    audience: Any,
    resource: str,
    expires_at: float,
    claims: dict[str, Any],
) -> AuthInfo:
    """An `AuthInfo` of what `check_claims` has checked; `claims` belongs to it from now on. It saves 5 µs.

    Not checked: anything.
    """
    info = _Open()  # and not 11 times `object.__setattr__`
    info.issuer = issuer
    info.subject = subject
    info.client_id = client_id
    info.scopes = scopes
    info.audience = tuple(cast("list[str]", audience)) if isinstance(audience, list) else audience
    info.resource = resource
    info.expires_at = expires_at
    nested = () if _MUTABLE.isdisjoint(map(type, claims.values())) else _nested(claims)
    info._claims = claims  # noqa: SLF001 - its own module  # pyright: ignore[reportPrivateUsage]
    info._nested = nested  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    info._kept = None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    info.token = None
    closed = cast("Any", info)
    closed.__class__ = AuthInfo
    return cast("AuthInfo", closed)


current_auth_var: ContextVar[AuthInfo | None] = ContextVar("asgi_mcp_auth", default=None)


def current_auth() -> AuthInfo | None:
    """The caller of the request being handled, or None outside a protected request."""
    return current_auth_var.get()
