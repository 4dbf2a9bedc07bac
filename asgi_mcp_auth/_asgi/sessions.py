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

import anyio

from asgi_mcp_auth._asgi.asgi_types import Message, Send, WrapSend
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import Reason, Refusal, SessionNotFound
from asgi_mcp_auth.stores import Store

__all__ = ("SESSION_ID", "Bound", "SessionBinding")

SESSION_ID = b"mcp-session-id"
STATEFUL = frozenset((SESSION_ID, b"last-event-id"))
ANONYMOUS = b"anonymous"  # no key of a principal, which is a hash
CLAIM_ATTEMPTS, CLAIM_SECONDS = 20, 0.05
MAX_ID_LENGTH = 512
IDLE_LIFETIME = 86_400.0  # seconds after its last use that a session stays bound
DROPPED_LIFETIME = 1.0
MAX_SESSIONS = 10_000  # of one principal in one process: a client must not fill a store that others use
MAX_COUNTED = 100_000  # sessions of all principals that are counted


class Bound(NamedTuple):
    """What changes for a request.

    Attributes:
        removed_fields: The header fields to remove, by canonical name.
        wrap_send: Wraps `send`, to look for a new session id.
        began_anonymously: Whether the session was made without a token.
    """

    removed_fields: frozenset[bytes] = frozenset()
    wrap_send: WrapSend | None = None
    began_anonymously: bool = False


def _claimed(owner: bytes) -> bytes:
    """Return the value of a session that was made without a token and belongs to `owner` now."""
    return ANONYMOUS + b":" + owner


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

    async def check(
        self, request: RequestInfo, modern: bool, auth_info: AuthInfo | None, token: bytes
    ) -> Bound | Refusal:
        """Return what changes for the app, or the refusal of a session that is not the caller's.

        A session that was made without a token belongs to the first caller with one, and to no caller without one
        from then on.
        """
        if modern:
            return Bound(STATEFUL)
        named = request.fields.get(SESSION_ID, [])
        began_anonymously = False
        owner = ANONYMOUS if auth_info is None else auth_info.principal.key.encode("ascii")
        if named:
            client_id = None if auth_info is None else auth_info.client_id
            unknown = SessionNotFound(Reason.SESSION_NOT_FOUND, client_id=client_id)
            if len(named) > 1 or not 0 < len(named[0]) <= MAX_ID_LENGTH:
                return unknown
            key = self._key(named[0])
            try:
                bound = await self._get(key, token)
                if bound == ANONYMOUS and owner != ANONYMOUS:
                    bound = await self._claim(key, owner, token)
                began_anonymously = bound == _claimed(owner)
                if bound != owner and not began_anonymously:
                    return unknown
                if owner != ANONYMOUS:  # which could undo what another request claims at this moment
                    await self._put(key, _claimed(owner) if began_anonymously else owner, IDLE_LIFETIME, token)
            except Refusal as refusal:
                return refusal.without_traceback()
            self._counts.touch(owner, key)
        wrap_send = partial(self._watch, owner=owner, known=named, token=token)
        return Bound(wrap_send=wrap_send, began_anonymously=began_anonymously)

    async def _claim(self, key: str, owner: bytes, token: bytes) -> object:
        """Bind a session without an owner, if no other caller is faster; return the stored value."""
        claim = f"{key}:claim"
        add = self._store.add_if_absent
        if await self._hooks.call(add, claim, IDLE_LIFETIME, name="session_store", token=token) is True:
            await self._put(key, _claimed(owner), IDLE_LIFETIME, token)
            return _claimed(owner)
        for _ in range(CLAIM_ATTEMPTS):  # a parallel request of the same caller may be the faster one
            bound = await self._get(key, token)
            if bound != ANONYMOUS:
                return bound
            await anyio.sleep(CLAIM_SECONDS)
        return None

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
            if dropped is not None and await self._get(dropped, token) == owner:
                await self._put(dropped, b"", DROPPED_LIFETIME, token)
        except Refusal:  # logged. An unbound session belongs to no caller: its client gets a 404 and begins anew
            return
