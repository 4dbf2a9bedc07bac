"""Binding `Mcp-Session-Id` to the caller it was made for (MCP up to 2025-11-25), in a `Store`.

A session id is no credential, but servers keep a user's state behind it. Somebody else's session is answered like
one that does not exist. Later revisions have no sessions: their fields are taken out, so that no server heeds them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.verifier import ask_hook
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import Reason, Refusal, SessionNotFound
from asgi_mcp_auth.stores import Store

__all__ = ("Bound", "SessionBinding")

logger = logging.getLogger("asgi_mcp_auth")

SESSION_ID = b"mcp-session-id"
STATEFUL = frozenset((SESSION_ID, b"last-event-id"))
MAX_ID_LENGTH = 512
IDLE_LIFE = 86_400.0  # seconds after its last use that a session is remembered


class Bound(NamedTuple):
    """The header fields to remove, by canonical name, and what watches the response for a new session id."""

    removed_fields: frozenset[bytes] = frozenset()
    wrap_send: Callable[[Any], Any] | None = None


class SessionBinding:
    """The sessions of one resource.

    Args:
        store: Shared by all processes that serve the resource.
        resource: Its identifier.
    """

    def __init__(self, store: Store, resource: str) -> None:
        self._store = store
        self._resource = resource

    def _key(self, session_id: bytes) -> str:
        return "session:" + sha256(self._resource.encode() + b"\0" + session_id).hexdigest()

    async def check(self, request: RequestInfo, modern: bool, auth_info: AuthInfo, token: bytes) -> Bound | Refusal:
        """Whether the request's session, if it names one, is the caller's."""
        if modern:
            return Bound(STATEFUL)
        named = request.fields.get(SESSION_ID, [])
        owner = auth_info.principal.key.encode("ascii")
        if named:
            unknown = SessionNotFound(Reason.SESSION_NOT_FOUND, client_id=auth_info.client_id)
            if len(named) > 1 or not 0 < len(named[0]) <= MAX_ID_LENGTH:
                return unknown
            key = self._key(named[0])
            try:
                found = await ask_hook(self._store.get, key, name="session_store", token=token)
                if found != owner:
                    return unknown
                await ask_hook(self._store.put, key, owner, IDLE_LIFE, name="session_store", token=token)
            except Refusal as refusal:
                return refusal.without_traceback()
        return Bound(wrap_send=partial(self._remember, owner=owner, known=named))

    def _remember(self, send: Any, owner: bytes, known: list[bytes]) -> Any:
        """`send`, noting whose the session is that the app makes, before its client can use it."""

        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start":
                for name, value in message.get("headers", ()):
                    if bytes(name).lower() == SESSION_ID and value not in known:
                        await self._bind(self._key(bytes(value)), owner)
            await send(message)

        return watch

    async def _bind(self, key: str, owner: bytes) -> None:
        try:
            if await self._store.get(key) is None:  # somebody's for good, whatever the app says
                await self._store.put(key, owner, IDLE_LIFE)
        except Exception:  # what is not noted belongs to nobody: its client gets a 404 and begins anew
            logger.exception("session_store failed")
