"""`RevocationList`: a revocation hook over any store."""

from __future__ import annotations

import json
import math

from asgi_mcp_auth.config import MAX_LEEWAY
from asgi_mcp_auth.context import AuthInfo, Principal
from asgi_mcp_auth.stores._contract import Store

__all__ = ("RevocationList",)

REVOCATIONS = "revoked"


def _key(kind: str, issuer: str, value: str) -> str:
    """Return a key that is unambiguous, whatever characters the parts have."""
    return f"{REVOCATIONS}:" + json.dumps([kind, issuer, value])


def _principal_key(principal: Principal) -> str:
    return f"{REVOCATIONS}:principal:{principal.key}"


class RevocationList:
    """Tokens and principals that are not accepted any more; pass it as `MCPAuth(is_revoked=...)`.

    Feed it from the security events of your provider or from an admin page. With a `Store` that processes share, a
    revocation is effective in all of them. A store that fails means 503, never a pass.

    A token is accepted for the issuer's leeway after its `exp`. So the list keeps a revocation for the largest leeway,
    300 s, beyond its `ttl`: pass the seconds until `exp`.

    Args:
        store: Where revocations are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revoke_token(self, issuer: str, token_id: str, *, ttl: float) -> None:
        """Refuse the token with this `jti`. Its remaining life is enough as `ttl`; 0 if `exp` has passed.

        Raises:
            ValueError: `ttl` is not a finite number.
        """
        await self._revoke(_key("jti", issuer, token_id), ttl)

    async def revoke_session(self, issuer: str, session_id: str, *, ttl: float) -> None:
        """Refuse every token with this `sid`. See `revoke_token`."""
        await self._revoke(_key("sid", issuer, session_id), ttl)

    async def revoke_principal(self, principal: Principal, *, ttl: float) -> None:
        """Refuse every token of this issuer, subject and client. See `revoke_token`."""
        await self._revoke(_principal_key(principal), ttl)

    async def _revoke(self, key: str, ttl: float) -> None:
        if not math.isfinite(ttl):
            msg = f"RevocationList: ttl is {ttl!r}; pass a finite number of seconds"
            raise ValueError(msg)
        await self._store.put(key, b"", max(ttl, 0.0) + MAX_LEEWAY)

    async def __call__(self, auth_info: AuthInfo) -> bool:
        """Return whether the token was revoked in any of these ways."""
        claims = auth_info.claims
        keys = [_key(name, auth_info.issuer, str(claims[name])) for name in ("jti", "sid") if name in claims]
        keys.append(_principal_key(auth_info.principal))
        return any(value is not None for value in await self._store.get_many(keys))
