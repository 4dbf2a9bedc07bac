"""Active introspection answers that the processes of a fleet share.

An entry is encrypted with a key that follows from the secret of the fleet and from the token (AES-GCM). So the store
shows neither the token nor the answer, and an entry that was changed, or that is about another token, issuer, client or
resource, is not used. Only active answers are shared: invented tokens fill no store.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import struct
import time
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth.decisions import RecordBudget
from asgi_mcp_auth.stores._shared import StoreUse

__all__ = ("SharedAnswer", "SharedAnswers")

logger = logging.getLogger("asgi_mcp_auth.introspection")

LABEL = b"asgi-mcp-auth introspection cache 1\0"
NONCE_BYTES = 12
TIME = struct.Struct(">d")
MAX_ENTRY = 128 * 1024
MAX_CLOCK_DIFFERENCE = 300.0  # seconds that the clock of another process may be ahead


class SharedAnswer(NamedTuple):
    """An answer: its members, their JSON text, and when it was fetched, in seconds since the epoch."""

    content: JSONObject
    text: bytes
    fetched_at: float


class SharedAnswers:
    """The shared answers about the tokens of one issuer, for one resource.

    Args:
        secret: `shared_secret`.
        entries: The shared store.
        context: The issuer, the client id of this server, and the resource.
    """

    def __init__(self, secret: str, entries: StoreUse, *context: str) -> None:
        self._secret = hmac.digest(secret.encode("utf-8"), LABEL, "sha256")
        self._entries = entries
        self._context = context
        self._budget = RecordBudget(time.monotonic, most=1)

    async def load(self, token: bytes, now: float) -> SharedAnswer | None:
        """Return the answer about a token; None if there is no entry that can be used."""
        entry = await self._entries.get(self._entries.key(*self._context, token))
        if entry is None or len(entry) > MAX_ENTRY:
            return None
        try:
            plain = self._cipher(token).decrypt(entry[:NONCE_BYTES], entry[NONCE_BYTES:], None)
            fetched_at: float = TIME.unpack_from(plain)[0]
            content = load_object(plain[TIME.size :])
        except (InvalidTag, JSONRefused, ValueError, struct.error):
            if (grant := self._budget.take("ignored")) is not None:
                what = "An entry of shared_cache is ignored%s: it was changed, or made with another shared_secret"
                logger.warning(what, grant.note)
            return None
        if not fetched_at <= now + MAX_CLOCK_DIFFERENCE:
            return None
        return SharedAnswer(content, plain[TIME.size :], min(fetched_at, now))

    async def save(self, token: bytes, content: JSONObject, fetched_at: float, ttl: float) -> None:
        """Keep an answer for `ttl` seconds."""
        text = TIME.pack(fetched_at) + json.dumps(content, separators=(",", ":")).encode("ascii")
        nonce = secrets.token_bytes(NONCE_BYTES)
        entry = nonce + self._cipher(token).encrypt(nonce, text, None)
        if len(entry) <= MAX_ENTRY:
            await self._entries.put(self._entries.key(*self._context, token), entry, ttl)

    def _cipher(self, token: bytes) -> AESGCM:
        parts = (*(part.encode("utf-8", "surrogatepass") for part in self._context), token)
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return AESGCM(hmac.digest(self._secret, message, "sha256"))
