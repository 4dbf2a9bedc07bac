"""Binding `Mcp-Session-Id` to the caller that the session was made for (MCP up to 2025-11-25), in a `Store`.

A session id is no credential, but servers keep the state of a user behind it. Another caller's session is answered
like a session that does not exist. Later revisions have no sessions: their fields are removed, so that no server
follows them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from asgi_mcp_auth._asgi.asgi_types import Message, Send
from asgi_mcp_auth._asgi.run import Overrides
from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import Reason, Refusal, SessionNotFound, Unavailable
from asgi_mcp_auth.stores._shared import StoreUse

__all__ = ("SESSION_ID", "SessionBinding")

SESSION_ID = b"mcp-session-id"
STATEFUL = frozenset((SESSION_ID, b"last-event-id"))
ANONYMOUS = b"anonymous"  # no key of a principal, which is a hash
MAX_ID_LENGTH = 512
IDLE_LIFETIME = 86_400.0  # seconds after its last use that a session stays bound
RENEW_SECONDS = 60.0  # between two looks at the store for one session, which also renew it
MAX_SESSIONS = 10_000  # of one principal in one process: a client must not fill a store that others use
MAX_COUNTED = 100_000  # sessions of all principals that are counted
MAX_CHECKED = 10_000  # sessions of which this process knows the owner without the store


class _Checked(NamedTuple):
    """When a session was found to be the caller's, and whether it was made without a token."""

    at: float
    began_anonymously: bool = False


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

    The owner of a session never changes, so a process asks the store once a minute for each session in use, and renews
    the binding then. Sessions that were made without a token have a second entry: the first caller with a token.

    Args:
        entries: Shared by all processes that serve the resource.
        resource: The identifier of the resource.
        clock: Seconds.
    """

    def __init__(self, entries: StoreUse, resource: str, clock: Callable[[], float]) -> None:
        self._entries = entries
        self._resource = resource
        self._clock = clock
        self._counts = _SessionCounts()
        self._checked: BoundedMap[tuple[str, bytes], _Checked] = BoundedMap(MAX_CHECKED)

    def _keys(self, session_id: bytes) -> tuple[str, str]:
        """Return the keys of the binding, and of the claim of a session that was made without a token."""
        key = self._entries.key
        return key(self._resource, session_id), key(self._resource, session_id, "claim")

    async def check(self, request: RequestInfo, modern: bool, auth_info: AuthInfo | None) -> Overrides | Refusal:
        """Return what changes for the app, or the refusal of a session that is not the caller's.

        A session that was made without a token belongs to the first caller with one, and to no caller without one
        from then on.
        """
        if modern:
            return Overrides(removed_fields=STATEFUL)
        named = request.fields.get(SESSION_ID, [])
        owner = ANONYMOUS if auth_info is None else auth_info.principal.key.encode("ascii")
        wrap_send = partial(self._watch, owner=owner, known=named)
        if not named:
            return Overrides(wrap_send=wrap_send)
        client_id = None if auth_info is None else auth_info.client_id
        unknown = SessionNotFound(Reason.SESSION_NOT_FOUND, client_id=client_id)
        if len(named) > 1 or not 0 < len(named[0]) <= MAX_ID_LENGTH:
            return unknown
        key, claim = self._keys(named[0])
        checked = self._checked.get((key, owner))
        if checked is None or not 0 <= self._clock() - checked.at < RENEW_SECONDS:
            try:
                checked = await self._look_up(key, claim, owner)
            except Unavailable as refusal:
                return refusal.without_traceback()
            if checked is None:
                return unknown
        self._counts.touch(owner, key)
        return Overrides(wrap_send=wrap_send, began_anonymously=checked.began_anonymously)

    async def _look_up(self, key: str, claim: str, owner: bytes) -> _Checked | None:
        """Ask the store whether a session is the caller's, and renew it. Return None if it is not."""
        bound, claimant = await self._entries.get_many((key, claim))
        if owner == ANONYMOUS:  # never cached: another process may see the claim at any moment
            return _Checked(0.0) if bound == ANONYMOUS and claimant is None else None
        began_anonymously = bound == ANONYMOUS
        if began_anonymously and claimant is None:
            claimant = await self._entries.add(claim, owner, IDLE_LIFETIME) or owner
        if owner != (claimant if began_anonymously else bound):
            return None
        checked = _Checked(self._clock(), began_anonymously)
        self._checked.put((key, owner), checked)
        spawn(partial(self._renew, (key, claim) if began_anonymously else (key,)))
        return checked

    async def _renew(self, keys: Iterable[str]) -> None:
        with suppress(Unavailable):  # logged; the next minute renews again
            for key in keys:
                await self._entries.touch(key, IDLE_LIFETIME)

    def _watch(self, send: Send, owner: bytes, known: list[bytes]) -> Send:
        """Return a `send` that binds the session which the app makes before the client can use it."""

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, value in message.get("headers", ()):
                    if bytes(name).lower() == SESSION_ID and value not in known:
                        await self._bind(self._keys(bytes(value))[0], owner)
            await send(message)

        return watch

    async def _bind(self, key: str, owner: bytes) -> None:
        try:
            if await self._entries.add(key, owner, IDLE_LIFETIME) is not None:
                return  # bound for good, whatever the app says
            if owner != ANONYMOUS:
                self._checked.put((key, owner), _Checked(self._clock()))
            dropped = self._counts.add(owner, key)
            if dropped is not None:
                self._checked.pop((dropped, owner))
                await self._entries.delete(dropped)
        except Unavailable:  # logged. An unbound session belongs to no caller: its client gets a 404 and begins anew
            return
