"""Binding `Mcp-Session-Id` to the caller that the session was made for (MCP up to 2025-11-25), in a `Store`.

A session id is no credential, but servers keep the state of a user behind it. Another caller's session is answered
like a session that does not exist. Later revisions have no sessions: their fields are removed, so that no server
follows them.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from asgi_mcp_auth._asgi.asgi_types import Message, Send, WrapSend
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import Reason, Refusal, SessionNotFound
from asgi_mcp_auth.stores import Store

__all__ = ("SESSION_ID", "Bound", "SessionBinding")

SESSION_ID = b"mcp-session-id"
STATEFUL = frozenset((SESSION_ID, b"last-event-id"))
MAX_ID_LENGTH = 512
IDLE_LIFETIME = 86_400.0  # seconds after its last use that a session stays bound
DROPPED_LIFETIME = 1.0
MAX_SESSIONS = 10_000  # of one principal in one process: a client must not fill a store that others use
MAX_COUNTED = 100_000  # sessions of all principals that are counted


class Bound(NamedTuple):
    """The header fields to remove, by canonical name, and a wrapper of `send` that looks for a new session id."""

    removed_fields: frozenset[bytes] = frozenset()
    wrap_send: WrapSend | None = None


class _SessionCounts:
    """The keys of the sessions that this process has bound, by principal; the least recently used come first."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, OrderedDict[str, None]] = OrderedDict()
        self._total = 0

    def add(self, owner: bytes, key: str) -> str | None:
        """Count a session. Return the least recently used session of a principal that has too many."""
        keys: OrderedDict[str, None] = self._keys.setdefault(owner, OrderedDict())
        self._keys.move_to_end(owner)
        self._total += key not in keys
        keys[key] = None
        dropped = None
        if len(keys) > MAX_SESSIONS:
            dropped, _ = keys.popitem(last=False)
            self._total -= 1
        while self._total > MAX_COUNTED:  # never the last principal, whose sessions are fewer
            _, forgotten = self._keys.popitem(last=False)
            self._total -= len(forgotten)
        return dropped

    def touch(self, owner: bytes, key: str) -> None:
        """Move a session that is used to the end."""
        keys = self._keys.get(owner)
        if keys is not None and key in keys:
            keys.move_to_end(key)


class SessionBinding:
    """The sessions of one resource.

    Args:
        store: Shared by all processes that serve the resource.
        resource: The identifier of the resource.
        hooks: What calls the store.
    """

    def __init__(self, store: Store, resource: str, hooks: HookCaller) -> None:
        self._store = store
        self._resource = resource
        self._hooks = hooks
        self._counts = _SessionCounts()

    def _key(self, session_id: bytes) -> str:
        return "session:" + sha256(self._resource.encode() + b"\0" + session_id).hexdigest()

    async def check(self, request: RequestInfo, modern: bool, auth_info: AuthInfo, token: bytes) -> Bound | Refusal:
        """Return what changes for the app, or the refusal of a session that is not the caller's."""
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
                if await self._get(key, token) != owner:
                    return unknown
                await self._put(key, owner, IDLE_LIFETIME, token)
            except Refusal as refusal:
                return refusal.without_traceback()
            self._counts.touch(owner, key)
        return Bound(wrap_send=partial(self._watch, owner=owner, known=named, token=token))

    async def _get(self, key: str, token: bytes) -> object:
        return await self._hooks.call(self._store.get, key, name="session_store", token=token)

    async def _put(self, key: str, value: bytes, ttl: float, token: bytes) -> None:
        await self._hooks.call(self._store.put, key, value, ttl, name="session_store", token=token)

    def _watch(self, send: Send, owner: bytes, known: list[bytes], token: bytes) -> Send:
        """Return a `send` that binds the session which the app makes before the client can use it."""

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, value in message.get("headers", ()):
                    if bytes(name).lower() == SESSION_ID and value not in known:
                        await self._bind(self._key(bytes(value)), owner, token)
            await send(message)

        return watch

    async def _bind(self, key: str, owner: bytes, token: bytes) -> None:
        try:
            if await self._get(key, token) is not None:  # bound for good, whatever the app says
                return
            await self._put(key, owner, IDLE_LIFETIME, token)
            dropped = self._counts.add(owner, key)
            if dropped is not None:
                await self._put(dropped, b"", DROPPED_LIFETIME, token)
        except Refusal:  # logged. An unbound session belongs to no caller: its client gets a 404 and begins anew
            return
