"""Key sets that survive a process: in a directory, or in the store that processes share.

A new process uses what another one fetched, with the age that the key set has, so that an issuer's outage does not stop
a deployment. An entry has an HMAC-SHA256 under `shared_secret` over its source, its time and its keys: writing to the
directory or the database adds no key, and an old entry is accepted only for as long as the key set itself would be.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp
from typing import NamedTuple, Protocol

import anyio
import anyio.to_thread

from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.strict_json import JSONRefused, is_valid, load_tolerant
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import printable

__all__ = ("CachedKeys", "KeyCache", "KeyDirectory", "unfit_directory")

logger = logging.getLogger("asgi_mcp_auth.keys")

LABEL = b"asgi-mcp-auth key cache 1\0"
MAC_BYTES = 32
MAX_ENTRY = 1024 * 1024
DISK_SECONDS = 2.0
MAX_CLOCK_DIFFERENCE = 300.0  # seconds that the clock of another process may be ahead


class CachedKeys(NamedTuple):
    """A key set as it was fetched.

    Attributes:
        document: The JWK Set, without members that are no valid JSON.
        lifetime: The freshness in seconds that its server stated; None if there was none.
        fetched_at: When it was fetched, in seconds since the epoch.
    """

    document: JSONObject
    lifetime: float | None
    fetched_at: float


class Entries(Protocol):
    """Where entries are kept: a `KeyDirectory`, or a `StoreUse`."""

    def key(self, *parts: str) -> str:
        """Return the key of the entry of a source."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return an entry; None if there is none or it cannot be read."""
        ...

    def put(self, key: str, value: bytes, ttl: float) -> Awaitable[None]:
        """Keep an entry for `ttl` seconds. Failures are ignored or logged."""
        ...


class KeyCache:
    """Signed entries, one for each source of keys.

    Args:
        secret: `shared_secret`.
        entries: A directory, or the shared store.
    """

    def __init__(self, secret: str, entries: Entries) -> None:
        self._secret = hmac.digest(secret.encode("utf-8"), LABEL, "sha256")
        self._entries = entries

    async def load(self, issuer: str, source: str, now: float) -> CachedKeys | None:
        """Return the key set of a source; None if there is none, or if it must not be used, which is logged."""
        entry = await self._entries.get(self._entries.key(source))
        if entry is None:
            return None
        keys = self._verified(source, entry, now)
        if isinstance(keys, CachedKeys):
            return keys
        extra = {"event": Event.KEYS_CACHE_REJECTED.value, "issuer": issuer}
        logger.warning("The cached key set of %s is ignored: %s", printable(issuer), keys, extra=extra)
        return None

    def _verified(self, source: str, entry: bytes, now: float) -> CachedKeys | str:
        """Return the key set of an entry, or why the entry must not be used."""
        mac, payload = entry[:MAC_BYTES], entry[MAC_BYTES:]
        if len(entry) > MAX_ENTRY or not hmac.compare_digest(mac, self._sign(source, payload)):
            return "its signature is missing or wrong"
        try:
            keys = _decode(payload)
        except (JSONRefused, TypeError, KeyError):
            return "it is no key set"
        if keys.fetched_at > now + MAX_CLOCK_DIFFERENCE:
            return "it is from the future"
        return keys._replace(fetched_at=min(keys.fetched_at, now))

    async def save(self, source: str, keys: CachedKeys, ttl: float) -> None:
        """Keep a key set for as long as it may be used."""
        listed = keys.document.get("keys")
        valid = [key for key in listed if is_valid(key)] if isinstance(listed, list) else []
        content = {"keys": valid, "lifetime": keys.lifetime, "fetched_at": keys.fetched_at}
        payload = json.dumps(content, separators=(",", ":")).encode()
        if len(payload) < MAX_ENTRY - MAC_BYTES:
            await self._entries.put(self._entries.key(source), self._sign(source, payload) + payload, ttl)

    def _sign(self, source: str, payload: bytes) -> bytes:
        name = source.encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, len(name).to_bytes(8, "big") + name + payload, "sha256")


def _decode(payload: bytes) -> CachedKeys:
    content = load_tolerant(payload)
    lifetime, fetched_at = content["lifetime"], content["fetched_at"]
    if not isinstance(fetched_at, (int, float)) or not isinstance(lifetime, (int, float, type(None))):
        raise TypeError
    return CachedKeys({"keys": content["keys"]}, lifetime, fetched_at)


class KeyDirectory:
    """Entries as files of a directory that only this user can open.

    Args:
        path: The directory, which must exist.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._reported: str | None = None

    def key(self, *parts: str) -> str:
        """Return the name of the file of a source."""
        return f"{sha256(json.dumps(parts).encode()).hexdigest()}.keys"

    async def get(self, key: str) -> bytes | None:
        """See `Entries.get`."""
        found: list[bytes] = []
        await self._on_thread(partial(self._read, key, found))
        return found[0] if found else None

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """See `Entries.put`. An entry that is too old is replaced or ignored, and never removed."""
        del ttl
        await self._on_thread(partial(self._write, key, value))

    def _read(self, name: str, found: list[bytes]) -> None:
        with suppress(FileNotFoundError), (self._path / name).open("rb") as file:
            found.append(file.read(MAX_ENTRY + 1))

    def _write(self, name: str, value: bytes) -> None:
        descriptor, temporary = mkstemp(dir=self._path, prefix=".new-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(value)
            Path(temporary).replace(self._path / name)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise

    async def _on_thread(self, work: Callable[[], None]) -> None:
        """Do something with a file, within a time limit. A failure is logged when it begins."""

        def checked() -> str | None:
            try:
                why = unfit_directory(self._path)
                if why is None:
                    work()
            except OSError as error:
                return f"{type(error).__name__}: {error.strerror}"
            return why

        why: str | None = f"no answer within {DISK_SECONDS:g} s"
        with anyio.move_on_after(DISK_SECONDS):
            why = await anyio.to_thread.run_sync(checked, abandon_on_cancel=True)
        if why is not None and why != self._reported:
            logger.error("key_cache: %s cannot be used: %s", self._path, why)
        self._reported = why


def unfit_directory(path: Path) -> str | None:
    """Return why a directory must not be used for keys; None if it may be."""
    try:
        found = path.stat()
    except OSError as error:
        return f"{error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if not hasattr(os, "geteuid"):  # Windows
        return None
    if found.st_uid != os.geteuid():
        return "it belongs to another user"
    return None if not found.st_mode & 0o077 else "other users may open it"
