"""State that processes share: the contract of a store, and stores in memory and in Redis."""

from asgi_mcp_auth.stores._contract import LogPage, LogStore, Store, StoreFullError
from asgi_mcp_auth.stores._memory import MemoryStore
from asgi_mcp_auth.stores._revocations import RevocationList

__all__ = ("LogPage", "LogStore", "MemoryStore", "RevocationList", "Store", "StoreFullError")
