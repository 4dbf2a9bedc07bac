"""What the endpoints share: the issuer with its keys and clock, the options, the memory, the clients, the faults."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from asgi_mcp_auth._policy.responses import Response
from asgi_mcp_auth.dev.directory import Directory
from asgi_mcp_auth.dev.memory import AccessToken, Grant, Memory
from asgi_mcp_auth.dev.options import Options
from asgi_mcp_auth.dev.switches import Switch
from asgi_mcp_auth.testing import Issuer, SigningKey

__all__ = ("Core", "Reply")


class Reply(NamedTuple):
    """An answer, and what the log says of it: never a code, a token or a secret."""

    response: Response
    note: str = ""


@dataclass
class Core:
    """One server's parts.

    Attributes:
        issuer: Keys, minting, clock.
        options: The judged options.
        memory: Codes and tokens.
        directory: Clients.
        switches: The faults in force.
    """

    issuer: Issuer
    options: Options
    memory: Memory
    directory: Directory
    switches: set[Switch] = field(default_factory=set[Switch])

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.issuer.clock()

    @property
    def base(self) -> str:
        """What the endpoints' URLs begin with."""
        return self.issuer.url.rstrip("/")

    @property
    def iss(self) -> str:
        """The issuer identifier, as tokens and metadata have it."""
        return f"{self.base}/" if Switch.TRAILING_SLASH in self.switches else self.issuer.url

    @cached_property
    def _stranger(self) -> SigningKey:
        """A key that is never published."""
        return SigningKey("ES256")

    def mint(self, claims: Mapping[str, Any], *, typ: str | None, header: Mapping[str, str] | None = None) -> str:
        """Sign claims, with the faults that are about keys."""
        if Switch.ROTATE in self.switches:
            self.issuer.rotate()
        key = self._stranger if Switch.UNKNOWN_KID in self.switches else self.issuer.keys[0]
        members = {"alg": key.alg, "kid": key.kid, **({} if typ is None else {"typ": typ}), **(header or {})}
        return self.issuer.sign(members, claims, key=key)

    def access_token(self, grant: Grant, resources: tuple[str, ...], scopes: tuple[str, ...]) -> str:
        """A new access token (RFC 9068 section 2.2) in the server's dialect, remembered for introspection."""
        now = int(self.now)
        claims: dict[str, Any] = {
            "iss": self.iss,
            "sub": grant.subject,
            "aud": resources[0] if len(resources) == 1 else list(resources),
            "client_id": grant.client_id,
            "iat": now,
            "exp": now + self.options.token_lifetime,
            "jti": secrets.token_urlsafe(16),
            **({"scope": " ".join(scopes)} if scopes else {}),
            **({} if grant.auth_time is None else {"auth_time": grant.auth_time}),
            **({} if grant.acr is None else {"acr": grant.acr}),
        }
        dialect = self.options.dialect
        if dialect.opaque:
            token = f"at_{secrets.token_urlsafe(32)}"
        else:
            spoken = dialect.claims(claims, openid=grant.asked.openid)
            token = self.mint(spoken, typ=dialect.typ, header=dialect.header)
        self.memory.keep_access_token(token, AccessToken(grant, claims))
        return token
