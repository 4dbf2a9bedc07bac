"""A lower bound for the cost of accepting a known token in Python: a control that no middleware can beat.

The code is for one path, one issuer and one token. It CHECKS ALMOST NOTHING: no Host, no Origin, no other spellings of
a path, no keys, no scopes, no cache limit. It does only the necessary steps: find the token and remove its header
field, look up its SHA-256, compare the expiry with the clock, copy the scope and the claims, set the context variable.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from hashlib import sha256
from typing import Any

__all__ = ("Least",)

CLAIMS = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope")
REFUSAL = {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]}
caller: ContextVar[object] = ContextVar("caller", default=None)


class Least:
    """A middleware for measurements only."""

    def __init__(self, app: Any, token: str) -> None:
        self.app = app
        self.known = {sha256(token.encode("ascii")).digest(): (time.time() + 86_400, dict.fromkeys(CLAIMS, "x"))}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request with the token to the app, and reject others."""
        if scope["type"] != "http" or scope["path"] != "/mcp":
            await self.app(scope, receive, send)
            return
        token: bytes | None = None
        others: list[Any] = []
        for field in scope["headers"]:
            if field[0] != b"authorization":
                others.append(field)
            else:
                token = field[1][7:]
        found = None if token is None else self.known.get(sha256(token).digest())
        if found is None or time.time() >= found[0]:
            await send(REFUSAL)
            await send({"type": "http.response.body", "body": b""})
            return
        claims = found[1].copy()
        child = dict(scope)
        child["headers"] = others
        child["state"] = {**scope.get("state", {}), "claims": claims}
        reset = caller.set(claims)
        try:
            await self.app(child, receive, send)
        finally:
            caller.reset(reset)
