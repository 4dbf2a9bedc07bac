"""The library's log events. They are part of `asgi_mcp_auth.status`, which a server that is not asked need not load."""

from __future__ import annotations

from enum import StrEnum

__all__ = ("Event",)


class Event(StrEnum):
    """What happened to what we hold of an issuer: the `event` of log records, stable for alerts."""

    KEYS_FETCHED = "keys_fetched"
    KEYS_CHANGED = "keys_changed"
    KEY_SKIPPED = "key_skipped"
    KEYS_REFRESH_FAILED = "keys_refresh_failed"
    KEYS_STALE = "keys_stale"
    KEYS_UNAVAILABLE = "keys_unavailable"
    KEYS_RECOVERED = "keys_recovered"
    UNKNOWN_KID = "unknown_kid"
    METADATA_FETCHED = "metadata_fetched"
    METADATA_REFRESH_FAILED = "metadata_refresh_failed"
    METADATA_STALE = "metadata_stale"
    METADATA_UNAVAILABLE = "metadata_unavailable"
    METADATA_RECOVERED = "metadata_recovered"
    METADATA_UNFIT = "metadata_unfit"
    ISSUER_ADMITTED = "issuer_admitted"
    ISSUER_EVICTED = "issuer_evicted"
    ISSUER_WITHDRAWN = "issuer_withdrawn"
