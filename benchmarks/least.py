"""The least that letting a known token through can cost in Python: a control for what is beyond any middleware's reach.

Written by hand for one path, one issuer and one token, and it CHECKS NEXT TO NOTHING: no Host, no Origin, no second
spelling of a path, no keys, no scopes, no memory that ends. It does only what cannot be left out: finds the token and
keeps it from the app, takes its SHA-256, looks that up, looks at the clock, gives the app a copy of the claims on a
copied scope, and sets the context variable.
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
    """For measurements only."""

    def __init__(self, app: Any, token: str) -> None:
        self.app = app
        self.known = {sha256(token.encode("ascii")).digest(): (time.time() + 86_400, dict.fromkeys(CLAIMS, "x"))}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let a request with the token through, and refuse any other."""
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
