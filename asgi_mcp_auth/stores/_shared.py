"""The one way in which this library uses a store: hashed keys, a time limit, a circuit breaker, a policy for failures.

Each subject (sessions, replay records, revocations, …) takes a `StoreUse` from the `SharedStore` of its `MCPAuth`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TypeVar, cast

import anyio

from asgi_mcp_auth._oauth.http_cache import CircuitBreaker
from asgi_mcp_auth.decisions import RecordBudget
from asgi_mcp_auth.errors import Reason, Unavailable, printable
from asgi_mcp_auth.status import StoreStatus
from asgi_mcp_auth.stores._contract import CheckedStore, ClosableStore, LogPage, LogStore, Store, StoreFullError, Use

__all__ = ("IGNORED", "SharedStore", "StoreUse")

logger = logging.getLogger("asgi_mcp_auth.stores")

T = TypeVar("T")

PAUSE_SECONDS = 1.0  # between two attempts on a store that fails
CLOSE_SECONDS = 1.0
PROBE_SECONDS = 1.0  # after which an answer no longer shows that the store works

IGNORED = frozenset((Use.INTROSPECTION, Use.KEYS, Use.RATE))
"""The uses that go on without the store if it fails, as if nothing were stored; the others raise `Unavailable`."""


SURVIVES = IGNORED | {Use.REVOCATION}
"""The uses without which requests can be served for a time. Revocation knows itself for how long."""

DURABLE = frozenset((Use.REPLAY, Use.REVOCATION))
"""The uses for which a store that may drop entries before their time is not ready."""


class SharedStore:
    """A store with a time limit, a circuit breaker and one log record for each outage.

    After three consecutive failures, all calls fail at once, except for one attempt a second.

    Args:
        store: The store.
        timeout: Seconds that one call may take; None for a store in this process, which answers at once: a timer costs
            as much as the rest of a call (benchmarks: in_process).
        clock: Seconds of a monotonic clock, for tests.
    """

    def __init__(self, store: Store, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._timeout = timeout
        self._clock = clock
        self._budget = RecordBudget(clock, most=1)
        self._breaker = CircuitBreaker(PAUSE_SECONDS)
        self._failing_since = 0.0
        self._is_reported = False
        self._last_error: str | None = None
        self._warning: str | None = None
        self._answered_at: float | None = None
        self.uses: set[Use] = set()
        """What the store is used for."""
        self._calls = 0

    @property
    def has_logs(self) -> bool:
        """Whether the store has logs, which revocation needs."""
        return isinstance(self.store, LogStore)

    @property
    def is_available(self) -> bool:
        """Whether the last call succeeded; True before the first one."""
        return self._breaker.failures == 0

    @property
    def is_ready(self) -> bool:
        """Whether requests that need the store can be served; True before the first call."""
        if self._warning is not None and self.uses & DURABLE:
            return False
        return self.is_available or self.uses <= SURVIVES

    async def probe(self) -> None:
        """Find out whether the store works, unless a call has just shown that. A failure is logged, not raised."""
        now = self._clock()
        if self.is_available and self._answered_at is not None and 0 <= now - self._answered_at < PROBE_SECONDS:
            return
        with suppress(Unavailable):
            if not isinstance(self.store, CheckedStore):
                await self.call(lambda: self.store.get_many((f"{Use.SESSION}:probe",)))
                return
            warning = await self.call(self.store.check)
            if warning is not None and self._warning is None:
                logger.warning("%s: %s", self.store, warning)
            self._warning = warning

    async def close(self) -> None:
        """Close connections, within a second. A failure is ignored, because the process is about to end."""
        if isinstance(self.store, ClosableStore):
            with suppress(Exception), anyio.move_on_after(CLOSE_SECONDS):
                await self.store.aclose()

    def status(self) -> StoreStatus:
        """Return the status of the store as this process sees it."""
        since = None if self.is_available else self._clock() - self._failing_since
        return StoreStatus(
            store=type(self.store).__name__,
            state="failing" if since is not None else "unused" if self._answered_at is None else "working",
            calls=self._calls,
            failures=self._breaker.failures,
            failing_for=since,
            last_error=self._last_error,
            warning=self._warning,
        )

    async def call(
        self, work: Callable[[], Awaitable[T]], check: Callable[[T], object] | None = None, *, wait: float = 0.0
    ) -> T:
        """Return the result of one operation on the store.

        Args:
            work: Calls the operation.
            check: Raises an exception if a store may not return such a result.
            wait: Seconds that the operation may take in addition to the time limit.

        Raises:
            Unavailable: With `store_unavailable`: the store raised, took too long, returned something wrong, or failed
                just before.
        """
        now = self._clock()
        if self._breaker.seconds_until_allowed(now):
            raise self._unavailable((self._last_error or "").partition(":")[0])
        self._breaker.start(now, (self._timeout or 0.0) + wait)
        self._calls += 1
        try:
            if self._timeout is None:
                result = await work()
            else:
                with anyio.fail_after(self._timeout + wait):
                    result = await work()
            if check is not None:
                check(result)
        except StoreFullError as error:
            self._succeeded(now)  # the store answers, and what it holds can be read
            if (grant := self._budget.take("full")) is not None:
                text = printable(str(error), 256)
                logger.error("%s is full%s: %s", type(self.store).__name__, grant.note, text)  # noqa: TRY400
            raise self._unavailable("StoreFullError") from None
        except Exception as error:  # noqa: BLE001 - whatever a store raises means that its answer is unknown
            raise self._failed(error) from None
        self._succeeded(now)
        return result

    def _succeeded(self, started_at: float) -> None:
        self._answered_at = started_at
        if not self.is_available:
            if self._is_reported:
                seconds = self._clock() - self._failing_since
                logger.warning("%s answers again after %.1f s", type(self.store).__name__, seconds)
            self._breaker.succeeded()
            self._last_error = None

    def _failed(self, error: Exception) -> Unavailable:
        kind = type(error).__name__
        text = printable(str(error), 256) or f"no answer within {self._timeout or 0.0:g} s"
        self._last_error = f"{kind}: {text}"
        if self.is_available:
            self._failing_since = self._clock()
            grant = self._budget.take("failing")
            self._is_reported = grant is not None  # an outage is one record, and its end another
            if grant is not None:
                logger.error("%s fails%s: %s", type(self.store).__name__, grant.note, self._last_error)
        self._breaker.failed(self._clock())
        return self._unavailable(kind)

    def _unavailable(self, found: str) -> Unavailable:
        return Unavailable(Reason.STORE_UNAVAILABLE, found=found, retry_after=PAUSE_SECONDS)


class StoreUse:
    """The entries of one use. The methods are those of `Store` and `LogStore`; every key has to come from `key`.

    If the store fails, methods raise `Unavailable`, a refusal with 503. For the uses in `IGNORED`, methods answer
    instead as if nothing were stored.

    Args:
        shared: The store.
        use: The use.
    """

    def __init__(self, shared: SharedStore, use: Use) -> None:
        self._shared = shared
        self._store = shared.store
        self._prefix = f"{use}:"
        self._ignores_failures = use in IGNORED
        shared.uses.add(use)

    @property
    def is_available(self) -> bool:
        """Whether the last call of the store succeeded."""
        return self._shared.is_available

    def key(self, *parts: str | bytes) -> str:
        """Return the key of an entry. It shows the use alone, and is unambiguous, whatever the parts contain."""
        return self._prefix + sha256(ascii(parts).encode("ascii")).hexdigest()

    async def get(self, key: str) -> bytes | None:
        """Return one value. See `Store.get_many`."""
        return (await self.get_many((key,)))[0]

    def get_many(self, keys: Sequence[str]) -> Awaitable[Sequence[bytes | None]]:
        """See `Store.get_many`."""

        def check(found: Sequence[bytes | None]) -> None:
            if len(found) != len(keys):
                raise TypeError(f"get_many returned {len(found)} values for {len(keys)} keys")
            for value in found:
                _check_value(value)

        return self._call(lambda: self._store.get_many(keys), (None,) * len(keys), check)

    def put(self, key: str, value: bytes, ttl: float) -> Awaitable[None]:
        """See `Store.put`."""
        return self._call(lambda: self._store.put(key, value, ttl), None)

    def add(self, key: str, value: bytes, ttl: float) -> Awaitable[bytes | None]:
        """See `Store.add`."""
        return self._call(lambda: self._store.add(key, value, ttl), None, _check_value)

    def touch(self, key: str, ttl: float) -> Awaitable[bool]:
        """See `Store.touch`."""
        return self._call(lambda: self._store.touch(key, ttl), False)

    def delete(self, key: str) -> Awaitable[None]:
        """See `Store.delete`."""
        return self._call(lambda: self._store.delete(key), None)

    def append(self, log: str, value: bytes, ttl: float) -> Awaitable[str]:
        """See `LogStore.append`."""
        return self._call(lambda: self._logs.append(log, value, ttl), "")

    def read_from(self, log: str, position: str, *, limit: int = 1000, wait: float = 0.0) -> Awaitable[LogPage]:
        """See `LogStore.read_from`. The time limit begins after `wait`."""
        work = lambda: self._logs.read_from(log, position, limit=limit, wait=wait)  # noqa: E731
        return self._call(work, LogPage((), position), wait=wait)

    @property
    def _logs(self) -> LogStore:
        return cast("LogStore", self._store)  # configurations that need logs are checked for them

    def _call(
        self,
        work: Callable[[], Awaitable[T]],
        ignored: T,
        check: Callable[[T], object] | None = None,
        *,
        wait: float = 0.0,
    ) -> Awaitable[T]:
        """Return the call of the store. `ignored` is its result if the store fails and the use ignores failures."""
        called = self._shared.call(work, check, wait=wait)
        return _or_else(called, ignored) if self._ignores_failures else called


async def _or_else(called: Awaitable[T], ignored: T) -> T:
    try:
        return await called
    except Unavailable:
        return ignored


def _check_value(value: object) -> None:
    if value is not None and not isinstance(value, bytes):
        raise TypeError(f"the store returned {type(value).__name__}, not bytes or None")
