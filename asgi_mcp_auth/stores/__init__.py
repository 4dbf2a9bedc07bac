"""State that processes share: the contract of a store, and a store in memory. `stores.redis` has a store in Redis."""

from asgi_mcp_auth.stores._contract import CheckedStore, ClosableStore, LogPage, LogStore, Store, StoreFullError
from asgi_mcp_auth.stores._memory import MemoryStore

__all__ = ("CheckedStore", "ClosableStore", "LogPage", "LogStore", "MemoryStore", "Store", "StoreFullError")
