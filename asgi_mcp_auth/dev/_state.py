"""The state file of the development authorization server: keys, registered clients and grants survive a restart.

The file is JSON in a versioned format. It contains private keys and client secrets, so only its owner may read it. It
contains no codes, which live for a minute, and tokens only by their SHA-256. One server process uses a file at a time.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._policy.problems import Problems, as_list, as_mapping, as_strings, show
from asgi_mcp_auth.dev._clients import Client, ClientRules, read_client
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._files import replace_file
from asgi_mcp_auth.dev._grants import AccessToken, Grant, RefreshToken
from asgi_mcp_auth.dev._policy import ScopeSet
from asgi_mcp_auth.testing import SigningKey

__all__ = ("Snapshot", "State", "StateFile", "StateFileError")

FORMAT: Final = "asgi_mcp_auth dev-server state"
VERSION: Final = 1
DIGEST_BYTES = 32
KEY_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "RS": (rsa.RSAPrivateKey,),
    "PS": (rsa.RSAPrivateKey,),
    "ES": (ec.EllipticCurvePrivateKey,),
    "Ed": (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey),
}
CURVES: Final = {
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
    "Ed25519": "Ed25519",
    "Ed448": "Ed448",
}
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

T = TypeVar("T")


class StateFileError(Exception):
    """The state file cannot be written."""


class _MalformedError(ValueError):
    """A part of the file is malformed; the message names the part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What survives a restart.

    Attributes:
        keys: The published keys; the first one signs.
        retired: The time until which a key that no longer signs stays published, by `kid`.
        clients: The registered clients.
        refresh_tokens: Refresh tokens with the SHA-256 of their secrets.
        access_tokens: Access tokens with their SHA-256.
    """

    keys: Sequence[SigningKey] = ()
    retired: Mapping[str, float] = field(default_factory=dict[str, float])
    clients: Sequence[Client] = ()
    refresh_tokens: Sequence[tuple[bytes, RefreshToken]] = ()
    access_tokens: Sequence[tuple[bytes, AccessToken]] = ()


class Snapshot(NamedTuple):
    """The content of the file at one time. Later snapshots have higher numbers."""

    number: int
    data: bytes


class StateFile:
    """A file with the state of one issuer.

    Args:
        path: The path of the file.
        issuer: The issuer identifier.
    """

    def __init__(self, path: Path, issuer: str) -> None:
        self._path = path
        self._issuer = issuer
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._written = 0

    def load(self, rules: ClientRules) -> State | None:
        """Return the state in the file, or None if the file does not exist.

        Raises:
            ConfigurationError: The file is unsafe or malformed, or belongs to another issuer.
        """
        try:
            data = self._read()
            return None if data is None else _read_state(load_object(data), self._issuer, rules)
        except JSONRefused as error:
            self._refuse(f"is not JSON: {error}", "Delete the file to start with new keys, clients and grants.")
        except _MalformedError as error:
            self._refuse(f"is malformed: {error}", "Delete the file to start with new keys, clients and grants.")
        except OSError as error:
            fix = "Pass the path of a regular file that you can read and write."
            self._refuse(f"cannot be read: {error.strerror or error}", fix)

    def _refuse(self, what: str, fix: str) -> NoReturn:
        problems = Problems()
        problems.add("state", f"{self._path} {what}.", fix)
        problems.raise_if_any()
        raise AssertionError

    def _read(self) -> bytes | None:
        try:
            # A symbolic link would be replaced by `save`; a FIFO would block.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                self._refuse("is not a regular file", "Pass the path of a regular file.")
            if os.name == "posix" and found.st_uid != os.geteuid():
                self._refuse("belongs to another user", "Pass the path of a file that you own.")
            if os.name == "posix" and found.st_mode & _OTHERS:
                mode = f"{stat.S_IMODE(found.st_mode):04o}"
                self._refuse(
                    f"has private keys, but its mode {mode} admits other users", f"Run: chmod 600 {self._path}"
                )
            return file.read()

    def encode(self, state: State) -> Snapshot:
        """Return the content of the file for a state."""
        data = json.dumps(_write_state(state, self._issuer), separators=(",", ":")).encode("ascii")
        return Snapshot(next(self._numbers), data)

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file atomically, with mode 0600, unless a newer snapshot was written.

        The method blocks, and may be called in any thread.

        Raises:
            StateFileError: The file cannot be written.
        """
        with self._lock:
            if snapshot.number <= self._written:
                return
            try:
                replace_file(self._path, snapshot.data)
            except OSError as error:
                msg = f"The state file {self._path} cannot be written: {error.strerror or error}."
                raise StateFileError(msg) from None
            self._written = snapshot.number


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_state(state: State, issuer: str) -> dict[str, Any]:
    refresh, access = state.refresh_tokens, state.access_tokens
    used = [*(token.grant for _, token in refresh), *(token.grant for _, token in access)]
    grants = list({id(grant): grant for grant in used}.values())
    index = {id(grant): number for number, grant in enumerate(grants)}
    return {
        "format": FORMAT,
        "version": VERSION,
        "issuer": issuer,
        "keys": [_write_key(key, state.retired.get(key.kid)) for key in state.keys],
        "clients": [
            {"client_id": client.client_id, "secret": client.secret, "metadata": dict(client.members)}
            for client in state.clients
        ],
        "grants": [_write_grant(grant) for grant in grants],
        "refresh_tokens": [
            {
                "sha256": digest.hex(),
                "grant": index[id(token.grant)],
                "expires_at": token.expires_at,
                "used": token.used,
                **({} if token.jkt is None else {"jkt": token.jkt}),
            }
            for digest, token in refresh
        ],
        "access_tokens": [
            {"sha256": digest.hex(), "grant": index[id(token.grant)], "claims": dict(token.claims)}
            for digest, token in access
        ],
    }


def _write_key(key: SigningKey, retired: float | None) -> dict[str, Any]:
    pem: bytes = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"kid": key.kid, "alg": key.alg, "pem": pem.decode("ascii"), "published_until": retired}


def _write_grant(grant: Grant) -> dict[str, Any]:
    """Return a grant without its nonce: a refreshed token has no ID token."""
    return {
        "client_id": grant.client_id,
        "subject": grant.subject,
        "resources": list(grant.resources),
        "scopes": list(grant.granted.scopes),
        "offline": grant.granted.offline,
        "openid": grant.granted.openid,
        "auth_time": grant.auth_time,
        "acr": grant.acr,
        "refreshable": grant.refreshable,
    }


# --- reading ----------------------------------------------------------------------------------------------------------


def _wrong_type(name: str) -> _MalformedError:
    return _MalformedError(f"{name} has the wrong type")


def _member(members: Mapping[str, Any], name: str, *kinds: type[T]) -> T:
    """Return a member whose type is exactly one of `kinds` (a bool is not an int)."""
    value = members.get(name)
    if type(value) not in kinds:
        raise _wrong_type(name)
    return cast("T", value)


def _optional(members: Mapping[str, Any], name: str, *kinds: type[T]) -> T | None:
    return None if members.get(name) is None else _member(members, name, *kinds)


def _object(value: object, name: str) -> dict[str, object]:
    members = as_mapping(value)
    if members is None:
        raise _wrong_type(name)
    return members


def _strings(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    strings = as_strings(members.get(name))
    if strings is None:
        raise _wrong_type(name)
    return tuple(strings)


def _each(members: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], T]) -> list[T]:
    """Return the values of the objects in a list."""
    items = as_list(members.get(name))
    if items is None:
        raise _wrong_type(name)
    found: list[T] = []
    for number, item in enumerate(items):
        try:
            found.append(read(_object(item, "the entry")))
        except _MalformedError as error:
            raise _MalformedError(f"{name}[{number}]: {error}") from None
    return found


def _read_state(members: dict[str, Any], issuer: str, rules: ClientRules) -> State:
    if members.get("format") != FORMAT:
        raise _MalformedError(f"format is not {show(FORMAT)}")
    if (version := _member(members, "version", int)) != VERSION:
        raise _MalformedError(f"version is {version}, but this release reads version {VERSION}")
    if members.get("issuer") != issuer:
        raise _MalformedError(f"it belongs to the issuer {show(members.get('issuer'))}, not to {show(issuer)}")
    grants = _each(members, "grants", _read_grant)

    def grant_of(entry: Mapping[str, Any]) -> Grant:
        number = _member(entry, "grant", int)
        if not 0 <= number < len(grants):
            raise _MalformedError("grant is not an index of grants")
        return grants[number]

    def refresh_token(entry: Mapping[str, Any]) -> tuple[bytes, RefreshToken]:
        expires_at, used = float(_member(entry, "expires_at", int, float)), _member(entry, "used", bool)
        jkt = _optional(entry, "jkt", str)
        return _read_digest(entry), RefreshToken(grant=grant_of(entry), expires_at=expires_at, used=used, jkt=jkt)

    def access_token(entry: Mapping[str, Any]) -> tuple[bytes, AccessToken]:
        claims = _object(entry.get("claims"), "claims")
        _member(claims, "exp", int)
        return _read_digest(entry), AccessToken(grant_of(entry), claims)

    keys = _each(members, "keys", _read_key)
    return State(
        keys=[key for key, _ in keys],
        retired={key.kid: until for key, until in keys if until is not None},
        clients=_each(members, "clients", lambda entry: _read_client(entry, rules)),
        refresh_tokens=_each(members, "refresh_tokens", refresh_token),
        access_tokens=_each(members, "access_tokens", access_token),
    )


def _read_digest(entry: Mapping[str, Any]) -> bytes:
    try:
        digest = bytes.fromhex(_member(entry, "sha256", str))
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_BYTES:
        raise _MalformedError("sha256 is not a SHA-256 in hexadecimal digits")
    return digest


def _read_key(entry: Mapping[str, Any]) -> tuple[SigningKey, float | None]:
    alg, kid, pem = (_member(entry, name, str) for name in ("alg", "kid", "pem"))
    until = _optional(entry, "published_until", int, float)
    try:
        private = serialization.load_pem_private_key(pem.encode("ascii"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    fits = alg in ALGORITHMS and isinstance(private, KEY_TYPES[alg[:2]])
    key = SigningKey(alg, kid, private=private) if fits else None
    if key is None or key.jwk.get("crv") != CURVES.get(alg):
        raise _MalformedError(f"pem is not a private key for the algorithm {show(alg)}")
    return key, until


def _read_client(entry: Mapping[str, Any], rules: ClientRules) -> Client:
    client_id, metadata = _member(entry, "client_id", str), _object(entry.get("metadata"), "metadata")
    secret = _optional(entry, "secret", str)
    try:
        client = read_client(metadata, client_id=client_id, rules=rules, default_auth_method="none", secret=secret)
    except OAuthError as error:
        raise _MalformedError(error.description.rstrip(".")) from None
    if client.auth_method != "none" and not client.secret:
        raise _MalformedError("secret is missing")
    return client


def _read_grant(entry: Mapping[str, Any]) -> Grant:
    return Grant(
        client_id=_member(entry, "client_id", str),
        subject=_member(entry, "subject", str),
        resources=_strings(entry, "resources"),
        granted=ScopeSet(_strings(entry, "scopes"), _member(entry, "offline", bool), _member(entry, "openid", bool)),
        auth_time=_optional(entry, "auth_time", int),
        acr=_optional(entry, "acr", str),
        refreshable=_member(entry, "refreshable", bool),
    )
