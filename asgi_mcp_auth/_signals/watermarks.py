"""Watermarks: refuse the tokens of one subject, client, session or claim that were issued before a time.

A token that is issued afterwards is accepted, so a caller who signs in again has access. All values here are digests:
what is stored and replicated shows no subject.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from asgi_mcp_auth.context import KEY_BYTES, RevocationKeys, claim_key, revocation_key

__all__ = ("MAX_CLAIMS", "Kind", "Watermark", "Watermarks", "decode", "encode", "watermark_of")


class Kind(StrEnum):
    """What a watermark is about: the key is a digest of the issuer and of this. The value starts each record."""

    TOKEN = "t"
    SESSION = "s"
    SUBJECT = "u"
    CLIENT = "c"
    CLAIM = "m"
    CHANGED = "x"
    """Not a revocation: what is cached about the tokens of a subject is out of date."""


class Watermark(NamedTuple):
    """All tokens with one key that were issued before one time are revoked, or cached answers about them are old.

    Attributes:
        kind: What the key is made of.
        key: The digest; see `RevocationKeys`.
        before: Tokens with an earlier `iat` are refused, in seconds since the epoch.
        claim: The name of the claim, for `Kind.CLAIM`; else empty.
    """

    kind: Kind
    key: bytes
    before: float
    claim: str = ""


_RECORD = struct.Struct(f">c{KEY_BYTES}sdB")
MAX_CLAIM_NAME = 255
PAIR = 2


def encode(watermarks: Iterable[Watermark]) -> bytes:
    """Return watermarks as one entry of a log. The caller bounds the names of claims: at most 255 bytes."""
    parts: list[bytes] = []
    for kind, key, before, claim in watermarks:
        name = claim.encode("utf-8", "surrogatepass")
        parts += (_RECORD.pack(kind.encode("ascii"), key, before, len(name)), name)
    return b"".join(parts)


def decode(entry: bytes) -> list[Watermark]:
    """Return the watermarks of an entry.

    Raises:
        ValueError: The entry was not made by `encode`.
    """
    found: list[Watermark] = []
    at = 0
    while at < len(entry):
        try:
            kind, key, before, length = _RECORD.unpack_from(entry, at)
        except struct.error:
            raise ValueError("a record is cut off") from None
        at += _RECORD.size + length
        name = entry[at - length : at]
        if len(name) != length or not math.isfinite(before):
            raise ValueError("a record is cut off, or has no finite time")
        found.append(Watermark(Kind(kind.decode("latin-1")), key, before, name.decode("utf-8", "surrogatepass")))
    return found


class Watermarks:
    """The watermarks of one process. A key has one time, the latest.

    A watermark is needed for as long as a token may live that was issued before: see `sweep`.

    Attributes:
        is_empty: Whether there is none, so that a request need not look.
        version: Changes whenever a watermark is added.
    """

    def __init__(self) -> None:
        self._tokens: dict[bytes, float] = {}
        self._sessions: dict[bytes, float] = {}
        self._subjects: dict[bytes, float] = {}
        self._clients: dict[bytes, float] = {}
        self._claims: dict[str, dict[bytes, float]] = {}
        self._plain = {
            Kind.TOKEN: self._tokens,
            Kind.SESSION: self._sessions,
            Kind.SUBJECT: self._subjects,
            Kind.CLIENT: self._clients,
        }
        self.is_empty = True
        self.version = 0

    def __len__(self) -> int:
        return sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        """Return the number of watermarks of each kind."""
        counts = {kind.name.lower(): len(known) for kind, known in self._plain.items()}
        return counts | {"claim": sum(map(len, tuple(self._claims.values())))}

    def claims(self) -> frozenset[str]:
        """Return the names of the claims that have watermarks."""
        return frozenset(self._claims)

    def all(self) -> list[Watermark]:
        """Return every watermark."""
        plain = [Watermark(kind, *item) for kind, known in self._plain.items() for item in tuple(known.items())]
        claims = [(name, item) for name, known in tuple(self._claims.items()) for item in tuple(known.items())]
        return plain + [Watermark(Kind.CLAIM, key, before, name) for name, (key, before) in claims]

    def add(self, watermark: Watermark) -> None:
        """Add a watermark. Adding one twice, or an earlier one, changes nothing."""
        kind, key, before, claim = watermark
        known = self._claims.setdefault(claim, {}) if kind is Kind.CLAIM else self._plain[kind]
        if before > known.get(key, -math.inf):
            known[key] = before
            self.is_empty = False
            self.version += 1

    def sweep(self, oldest: float) -> None:
        """Remove the watermarks whose time is before `oldest`: no token is accepted that was issued earlier."""
        for known in (*self._plain.values(), *self._claims.values()):
            for key in [key for key, before in tuple(known.items()) if before < oldest]:
                known.pop(key, None)
        for name in [name for name, known in tuple(self._claims.items()) if not known]:
            self._claims.pop(name, None)
        self.is_empty = not len(self)

    def refuses(self, keys: RevocationKeys) -> str | None:
        """Return which kind of watermark refuses a token, or None. One lookup for each kind that has a watermark."""
        issued_at = keys.issued_at
        if self._subjects and issued_at < self._subjects.get(keys.subject, -math.inf):
            return "subject"
        if self._clients and keys.client is not None and issued_at < self._clients.get(keys.client, -math.inf):
            return "client"
        if self._sessions and keys.session is not None and issued_at < self._sessions.get(keys.session, -math.inf):
            return "session"
        if self._tokens and keys.token is not None and issued_at < self._tokens.get(keys.token, -math.inf):
            return "token"
        return self._refuses_claim(keys) if self._claims else None

    def _refuses_claim(self, keys: RevocationKeys) -> str | None:
        for name, known in tuple(self._claims.items()):
            key = keys.claim(name)
            if key is not None and keys.issued_at < known.get(key, -math.inf):
                return "claim"
        return None


MAX_CLAIMS = 16
"""Names of claims that may have watermarks at a time: each is one lookup for each request."""


def watermark_of(  # noqa: PLR0917 - the scopes of a watermark
    issuer: str,
    subject: str | None,
    client_id: str | None,
    session: str | None,
    token_id: str | None,
    claim: tuple[str, str] | None,
    before: float,
) -> Watermark:
    """Return the watermark of one scope.

    Raises:
        ValueError: The scope is not exactly one of `subject` (with or without `client_id`), `session`, `token_id` and
            `claim`; or a value is not a non-empty string.
    """
    texts: list[object] = [issuer]
    texts += [one for one in (subject, client_id, session, token_id, *(claim or ())) if one is not None]
    if sum(one is not None for one in (subject, session, token_id, claim)) != 1 or (client_id and subject is None):
        raise ValueError("revoke: pass exactly one of subject (with or without client_id), session, token_id and claim")
    if not all(isinstance(text, str) and text for text in texts) or (claim is not None and len(claim) != PAIR):
        msg = "revoke: issuer, subject, client_id, session and token_id are non-empty strings; claim is a pair of them"
        raise ValueError(msg)
    if claim is not None:
        if len(claim[0].encode("utf-8", "surrogatepass")) > MAX_CLAIM_NAME:
            raise ValueError(f"revoke: the name of the claim is longer than {MAX_CLAIM_NAME} bytes")
        return Watermark(Kind.CLAIM, claim_key(issuer, *claim), before, claim[0])
    if token_id is not None:
        return Watermark(Kind.TOKEN, revocation_key("jti", issuer, token_id), before)
    if session is not None:
        return Watermark(Kind.SESSION, revocation_key("sid", issuer, session), before)
    named = subject or ""
    if client_id is not None:
        return Watermark(Kind.CLIENT, revocation_key("client", issuer, named, client_id), before)
    return Watermark(Kind.SUBJECT, revocation_key("sub", issuer, named), before)
