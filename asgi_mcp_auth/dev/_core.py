"""The parts of one server that its endpoints share: issuer, options, grants, clients, faults."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

from asgi_mcp_auth._oauth.responses import Response
from asgi_mcp_auth.dev._client_registry import ClientRegistry
from asgi_mcp_auth.dev._grants import AccessToken, Grant, GrantStore
from asgi_mcp_auth.dev._options import Options
from asgi_mcp_auth.dev._switches import Switch
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = ("Core", "Reply")


class Reply(NamedTuple):
    """A response with a note for the log. The note contains no code, token or secret."""

    response: Response
    note: str = ""


@dataclass
class Core:
    """The parts of one server.

    Attributes:
        issuer: Keys, minting, clock.
        options: The validated options.
        grants: Codes and tokens.
        clients: Clients.
        switches: The active faults.
        nonce_key: The key of the nonces for DPoP proofs.
    """

    issuer: Issuer
    options: Options
    grants: GrantStore
    clients: ClientRegistry
    switches: set[Switch] = field(default_factory=set[Switch])
    nonce_key: bytes = field(default_factory=partial(secrets.token_bytes, 32), repr=False)

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.issuer.clock()

    @property
    def base(self) -> str:
        """The common prefix of the endpoint URLs."""
        return self.issuer.url.rstrip("/")

    @property
    def iss(self) -> str:
        """The issuer identifier in tokens and metadata."""
        return f"{self.base}/" if Switch.TRAILING_SLASH in self.switches else self.issuer.url

    @cached_property
    def _unpublished_key(self) -> SigningKey:
        return SigningKey("ES256")

    def mint(self, claims: Mapping[str, Any], *, typ: str | None, header: Mapping[str, str] | None = None) -> str:
        """Return a signed JWT. The faults that concern keys apply."""
        if Switch.ROTATE in self.switches:
            self.issuer.rotate()
        key = self._unpublished_key if Switch.UNKNOWN_KID in self.switches else self.issuer.keys[0]
        members = {"alg": key.alg, "kid": key.kid, **({} if typ is None else {"typ": typ}), **(header or {})}
        return self.issuer.sign(members, claims, key=key)

    def access_token(
        self,
        grant: Grant,
        resources: tuple[str, ...],
        scopes: tuple[str, ...],
        cnf: Mapping[str, str],
        *,
        act: Mapping[str, Any] | None = None,
        until: int | None = None,
    ) -> str:
        """Return a new access token (RFC 9068 section 2.2) in the server's dialect, and store it for introspection.

        `cnf` are the members of the claim that binds the token to its sender; without members, there is no claim.
        `act` is the chain of actors of an exchanged token, and `until` its `exp` (RFC 8693 section 4.1).
        """
        now = int(self.now)
        claims: dict[str, Any] = {
            "iss": self.iss,
            "sub": grant.subject,
            "aud": resources[0] if len(resources) == 1 else list(resources),
            "client_id": grant.client_id,
            "iat": now,
            "exp": now + self.options.token_lifetime if until is None else until,
            "jti": secrets.token_urlsafe(16),
            **({"scope": " ".join(scopes)} if scopes else {}),
            **({} if grant.auth_time is None else {"auth_time": grant.auth_time}),
            **({} if grant.acr is None else {"acr": grant.acr}),
            **({"cnf": dict(cnf)} if cnf else {}),
            **({"act": dict(act)} if act else {}),
        }
        dialect = self.options.dialect
        if dialect.opaque:
            token = f"at_{secrets.token_urlsafe(32)}"
        else:
            translated = dialect.claims(claims, openid=grant.granted.openid)
            token = self.mint(translated, typ=dialect.typ, header=dialect.header)
        self.grants.put_access_token(token, AccessToken(grant, claims))
        return token
