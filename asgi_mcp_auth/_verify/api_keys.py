"""Verification of API keys from a file or a store, in addition to access tokens.

Callers get the same answer for an unknown, a revoked and an expired key; the log names the cause. A file is read again
when it has changed, at most once a second, so that a revocation is effective within a second.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from asgi_mcp_auth._keys.background import SingleFlight
from asgi_mcp_auth._oauth.credentials import MAX_LENGTH, Credential
from asgi_mcp_auth._policy.api_key_file import (
    API_KEY_ISSUER,
    MAX_FILE_BYTES,
    ApiKeyRecord,
    FaultyRecordError,
    digest_of,
    parse_record,
    read_keys,
)
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import HookCaller, run_on_thread
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.config import ApiKeys
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import ConfigurationError, InvalidToken, Problem, Reason, Refusal, Unavailable, printable
from asgi_mcp_auth.stores import Store

__all__ = ("ApiKeyVerifier",)

RELOAD_SECONDS = 1.0
NAME = "The API keys"
NO_DIGEST = "0" * 64

Stamp = tuple[int, int, int]


class ApiKeyVerifier:
    """A verifier of the API keys of one resource.

    Args:
        settings: The checked settings.
        resource: The identifier of the resource.
        clock: Seconds since the epoch.
        hooks: Calls the store, and logs failures at a limited rate.

    Raises:
        ConfigurationError: The file cannot be read, or a line of it is no record.
    """

    def __init__(self, settings: ApiKeys, resource: str, *, clock: Callable[[], float], hooks: HookCaller) -> None:
        self._settings = settings
        self._resource = resource
        self._clock = clock
        self._hooks = hooks
        self._prefix = None if settings.prefix is None else settings.prefix.encode("ascii")
        self._store: Store | None = settings.store  # type: ignore[assignment]  # the compiler has checked it
        self._records: dict[str, ApiKeyRecord] = {}
        self._stamp: Stamp | None = None
        self._checked_at = clock()
        self._reload = SingleFlight(self._reload_file)
        if settings.file is not None:
            try:
                self._stamp, self._records = self._read(settings.file)
            except (OSError, FaultyRecordError) as error:
                fix = "Set file= to a file that 'asgi-mcp-auth api-key new' writes."
                what = f"{settings.file} cannot be used: {_text(error)}."
                raise ConfigurationError([Problem("verifier.keys.file", what, fix)]) from None

    def has_prefix(self, token: bytes) -> bool:
        """Return whether a bearer token is an API key."""
        return self._prefix is not None and token.startswith(self._prefix)

    def check(self, key: bytes) -> Verified | Refusal | Awaitable[Verified | Refusal]:
        """Return the decision about a key, or an awaitable if the file may have changed or the store must be asked."""
        if len(key) > MAX_LENGTH:
            return self._refused("too long")
        digest = digest_of(key, self._settings.pepper)
        if self._store is not None:
            return self._look_up(self._store, digest, key)
        if 0 <= self._clock() - self._checked_at < RELOAD_SECONDS:
            return self._decide(self._records.get(digest), digest)
        return self._reload_and_decide(digest)

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Return the decision about a key that was sent as a bearer token; see `Verifier`."""
        del request  # the decision does not depend on the request
        decided = self.check(credential.token)
        return decided if isinstance(decided, (Verified, Refusal)) else await decided

    async def _look_up(self, store: Store, digest: str, key: bytes) -> Verified | Refusal:
        async def get_one(name: str) -> bytes | None:
            [value] = await store.get_many((name,))
            return value

        try:
            found = await self._hooks.call(get_one, f"api-key:{digest}", name="The store of API keys", token=key)
        except Refusal as refusal:
            return refusal.without_traceback()
        if found is None:
            return self._decide(None, digest)
        if not isinstance(found, bytes):
            return self._hooks.wrong_answer("The store of API keys", found, "bytes or None")
        try:
            return self._decide(parse_record(found), digest)
        except FaultyRecordError as error:
            return self._hooks.failed(NAME, error, key)

    async def _reload_and_decide(self, digest: str) -> Verified | Refusal:
        error = await self._reload.join()
        if error is not None:
            return Unavailable(Reason.API_KEYS_UNAVAILABLE, found=error, retry_after=RELOAD_SECONDS)
        return self._decide(self._records.get(digest), digest)

    async def _reload_file(self) -> str | None:
        """Read the file again if it has changed. Return why it cannot be used; None if it can."""
        now = self._clock()
        try:
            self._stamp, self._records = await run_on_thread(self._read, str(self._settings.file))
        except (OSError, FaultyRecordError) as error:
            self._stamp = None
            return f"{self._settings.file}: {_text(error)}"
        self._checked_at = now
        return None

    def _read(self, path: str) -> tuple[Stamp, dict[str, ApiKeyRecord]]:
        """Return the stamp and the records of the file; the same records if the file has not changed."""
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return stamp, self._records
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise FaultyRecordError("it is larger than 16 MiB")
        return stamp, read_keys(data, with_pepper=self._settings.pepper is not None)

    def _decide(self, record: ApiKeyRecord | None, digest: str) -> Verified | Refusal:
        """Return the decision about the key with this digest; `record` is what is stored under the digest."""
        peppered = self._settings.pepper is not None
        stored = NO_DIGEST if record is None else record.hmac_sha256 if peppered else record.sha256
        if not hmac.compare_digest(stored, digest) or record is None:
            return self._refused("unknown")
        if record.revoked:
            return self._refused(f"{record.id}, revoked")
        if record.expires_at is not None and self._clock() >= record.expires_at:
            return self._refused(f"{record.id}, expired")
        if record.resource not in (None, self._resource):
            return self._refused(f"{record.id}, for another resource")
        info = AuthInfo(
            issuer=API_KEY_ISSUER,
            subject=record.subject,
            scopes=record.scopes,
            resource=self._resource,
            expires_at=record.expires_at,
            claims={
                "iss": API_KEY_ISSUER,
                "sub": record.subject,
                "scope": " ".join(record.scopes),
                "api_key_id": record.id,
            },
        )
        return Verified(info, record.expires_at)

    def _refused(self, found: str) -> InvalidToken:
        return InvalidToken(Reason.INVALID_API_KEY, issuer=API_KEY_ISSUER, found=found)


def _text(error: Exception) -> str:
    """Return why a file cannot be used, without its content."""
    text = error.strerror if isinstance(error, OSError) else str(error)
    return printable(text or type(error).__name__)
