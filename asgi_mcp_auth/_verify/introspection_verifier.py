"""Verification of opaque tokens: the authorization server is asked about each token (RFC 7662, RFC 9701).

A verifier belongs to one resource and one issuer, so the SHA-256 of the credential is the key of its caches. A call
runs in the background of all requests that wait for its answer. An answer that is no verdict about the token is a 503.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._keys.endpoint import Answer, Endpoint, EndpointTexts, Limits, Unanswered
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.access_token import unverified_time
from asgi_mcp_auth._oauth.confirmation import read_confirmation
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._oauth.grammar import JSON_TYPE
from asgi_mcp_auth._oauth.introspection_response import (
    JWT_TYPE,
    AnswerRefusedError,
    check_answer,
    parse_signed,
    read_plain,
    read_signed,
)
from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._policy.verifiers import CompiledIntrospection
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._signals.changes import Change, SubjectChanges
from asgi_mcp_auth._signals.revocations import Revocations
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.shared_answers import SharedAnswer, SharedAnswers
from asgi_mcp_auth._verify.token_cache import CONFIRMATION_BYTES, Entry, TokenCache, estimate_size
from asgi_mcp_auth._verify.verifier import Verified, copy_with_token
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal, Unavailable
from asgi_mcp_auth.status import IntrospectionStatus

__all__ = ("IntrospectionVerifier",)

OK = 200
MAX_CLOCK_DIFFERENCE = 10.0  # seconds that the clock of the process which shares an answer is expected to be ahead
TEXTS = EndpointTexts(
    logger=logging.getLogger("asgi_mcp_auth.introspection"),
    member="introspection_endpoint",
    name="introspection endpoint",
    outage="Tokens of %s cannot be introspected",
    fix="Fix client_id and the secret of Introspection(...).",
    unavailable=Event.INTROSPECTION_UNAVAILABLE,
    unauthorized=Event.INTROSPECTION_UNAUTHORIZED,
    recovered=Event.INTROSPECTION_RECOVERED,
)


class _Rejected(NamedTuple):
    """A cached refusal. Its texts are cut, because the members of an answer may be long."""

    until: float
    reason: Reason
    description: str
    details: Mapping[str, str]

    def refusal(self) -> InvalidToken:
        issuer, client_id, expected, found = map(self.details.get, ("issuer", "client_id", "expected", "found"))
        return InvalidToken(
            self.reason,
            description=self.description,
            issuer=issuer,
            client_id=client_id,
            expected=expected,
            found=found,
        )


class _Unchanging:
    """Nothing but its times ends an answer: no key has verified it."""

    def usable(self, generation: object, now: float) -> bool:
        del generation, now
        return True


UNCHANGING = _Unchanging()


class IntrospectionVerifier:
    """A verifier of the opaque tokens of one issuer, for one resource.

    Args:
        compiled: The settings, the issuer and the client authentication.
        issuer: The metadata and the keys of the issuer.
        clock: Seconds since the epoch.
        cache_bytes: The largest memory of the cached active answers, in bytes.
        expose_token: Whether `AuthInfo.token` contains the raw token.
        hooks: Logs failures at a limited rate.
        shared: The answers that the processes of a fleet share; None if they share none.
        revocations: Reports changes of subjects; None if revocation is off. Shared answers are used while its copy is
            current.
    """

    def __init__(
        self,
        compiled: CompiledIntrospection,
        issuer: RemoteJWKS,
        *,
        clock: Callable[[], float],
        cache_bytes: int,
        expose_token: bool,
        hooks: HookCaller,
        shared: SharedAnswers | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        self.rules = compiled.trusted.rules
        self._settings = compiled.settings
        self._trusted = compiled.trusted
        self._authentication = compiled.authentication
        self._issuer = issuer
        self._clock = clock
        self._expose_token = expose_token
        self._hooks = hooks
        self._shared = shared
        self._revocations = revocations
        self._active = TokenCache(self._settings.cache_size, cache_bytes, clock)
        # Apart from active answers, so that invented tokens cannot evict those of callers.
        self._inactive: BoundedMap[bytes, _Rejected] = BoundedMap(self._settings.cache_size)
        self._endpoint: Endpoint[Verified | Refusal] = Endpoint(
            issuer,
            compiled.trusted.identifier,
            compiled.authentication,
            TEXTS,
            Limits(self._settings.timeout, self._settings.max_concurrency, self._settings.max_queue),
            clock=clock,
            url=self._settings.endpoint,
        )
        self._changes = SubjectChanges()
        self._refusals: Counter[str] = Counter()
        self._inactive_hits = 0

    def get_cached(self, digest: bytes) -> Verified | None:
        """Return the cached active answer about a token, if it can be used now."""
        return self._active.get(digest)

    def remove_subject(self, key: bytes) -> None:
        """Remove the cached active answers about a subject, shared ones too; see `RevocationKeys.subject`.

        Shared answers stay in the store until their end, and are not used.
        """
        self._active.remove_subject(key)
        self._changes.add(key, self._clock())

    def check(
        self, token: bytes, digest: bytes, local: Verified | None = None
    ) -> Verified | Refusal | Awaitable[Verified | Refusal]:
        """Return the decision about a token if its answer is cached, else an awaitable that asks the server.

        Args:
            token: The token.
            digest: The cache key of the token.
            local: The result of a local verification, which the server only has to confirm.
        """
        cached = self._active.get(digest)
        if cached is not None:
            return cached
        rejected = self._inactive.get(digest)
        if rejected is not None:
            if 0 < rejected.until - self._clock() <= self._settings.inactive_ttl:
                self._inactive_hits += 1
                return self._count(rejected.refusal())
            self._inactive.pop(digest)
        return self._join(token, digest, local)

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Return the decision about a credential, cached or not; see `Verifier`."""
        del request  # the decision does not depend on the request
        digest = sha256(credential.scheme + b" " + credential.token).digest()
        decided = self.check(credential.token, digest)
        return decided if isinstance(decided, (Verified, Refusal)) else await decided

    async def _join(self, token: bytes, digest: bytes, local: Verified | None) -> Verified | Refusal:
        """Wait for the call about this token. It goes on if the caller that started it leaves.

        Requests after a change of a subject do not join calls from before.
        """
        key = digest + self._changes.count.to_bytes(8, "big")
        answer = await self._endpoint.join(key, functools.partial(self._run, token, digest, local))
        return self._count(self._unavailable(answer) if isinstance(answer, Unanswered) else answer)

    async def _run(self, token: bytes, digest: bytes, local: Verified | None) -> Verified | Refusal:
        """Ask the server. A failure is an answer too: many callers wait for it."""
        try:
            return await self._ask(token, digest, local)
        except Refusal as refusal:
            return refusal.without_traceback()
        except Exception as error:  # noqa: BLE001 - a fault of the verifier must neither accept a token nor cause a 500
            return self._hooks.failed("The introspection", error, token)

    async def _ask(self, token: bytes, digest: bytes, local: Verified | None) -> Verified | Refusal:
        """Send the request (RFC 7662 section 2.1), and cache the decision. Another process may have asked before."""
        shared = await self._load_shared(token)
        if shared is not None:
            decided = self._decide(shared.content, token, local)
            if self._last_change(decided).at + MAX_CLOCK_DIFFERENCE < shared.fetched_at:
                self._keep(shared, decided, digest)
                return decided
        changes = self._changes.count
        form = [("token", token.decode("ascii")), ("token_type_hint", "access_token")]
        answer = await self._endpoint.call(form, JWT_TYPE if self._settings.signed else "application/json")
        if isinstance(answer, Unanswered):
            return self._unavailable(answer)
        try:
            content, text = await self._read(answer)
        except AnswerRefusedError as refused:
            error = self._endpoint.last_error = f"The introspection endpoint answered with {refused}"
            return self._unavailable(self._endpoint.unanswered(error))
        fresh = SharedAnswer(content, text, self._clock())
        decided = self._decide(content, token, local)
        if self._last_change(decided).number > changes:  # while the answer was on its way
            return decided
        self._keep(fresh, decided, digest)
        if self._shared is not None and isinstance(decided, Verified) and self._settings.ttl:
            spawn(functools.partial(self._shared.save, token, content, fresh.fetched_at, self._settings.ttl))
        return decided

    async def _load_shared(self, token: bytes) -> SharedAnswer | None:
        """Return the shared answer about a token; None if there is none, or its subject may have changed."""
        if self._shared is None or (self._revocations is not None and not self._revocations.is_current()):
            return None
        found = await self._shared.load(token, self._clock())
        return found if found is not None and self._clock() < found.fetched_at + self._settings.ttl else None

    async def _read(self, answer: Answer) -> tuple[JSONObject, bytes]:
        """Return the members of an answer and its JSON text.

        Raises:
            AnswerRefusedError: The answer cannot be used.
            Unavailable: There are no keys to verify a signed answer with.
        """
        if answer.fault is not None:
            raise AnswerRefusedError(answer.fault)
        if answer.status != OK:  # redirects are not followed
            raise AnswerRefusedError(f"status {answer.status}")
        is_signed = answer.media_type.partition(";")[0].strip().lower() == JWT_TYPE
        if is_signed != self._settings.signed:
            raise AnswerRefusedError("a signed answer" if is_signed else "an answer that is not signed")
        if not is_signed:
            if re.match(JSON_TYPE, answer.media_type) is None:
                raise AnswerRefusedError("another media type than application/json")
            return read_plain(answer.body), answer.body
        rules, jws = self.rules, parse_signed(answer.body, self.rules.algorithms)
        try:
            keys, _ = await self._issuer.select(
                jws.header.kid,
                jws.header.alg,
                issued_at=unverified_time(jws.claims, "iat"),
                leeway=rules.leeway,
                max_without_kid=self._trusted.config.max_keys_without_kid,
            )
        except InvalidToken as unknown:  # it is the answer that cannot be verified, not the token
            raise AnswerRefusedError(f"a signature of another key: {unknown.reason}") from None
        if not any(key.verify(jws.header.alg, jws.signing_input, jws.signature) for key in keys):
            raise AnswerRefusedError("a wrong signature")
        audiences = frozenset({self._authentication.client_id, rules.resource} - {""})
        issuer, now = self._trusted.identifier, self._clock()
        content = read_signed(jws.claims, issuer=issuer, audiences=audiences, leeway=rules.leeway, now=now)
        return content, jws.payload

    def _decide(self, content: JSONObject, token: bytes, local: Verified | None) -> Verified | InvalidToken:
        """Return the decision that the members of an answer mean."""
        try:
            return self._confirm(content, local) if local is not None else self._accept(content, token, self._clock())
        except InvalidToken as refusal:
            refusal.issuer = self.rules.issuer
            return refusal.without_traceback()

    def _last_change(self, decided: Verified | InvalidToken) -> Change:
        """Return the last change of the subject."""
        return self._changes.last(decided.auth_info.revocation_keys.subject if isinstance(decided, Verified) else b"")

    def _keep(self, answer: SharedAnswer, decided: Verified | InvalidToken, digest: bytes) -> None:
        """Cache a decision."""
        now = self._clock()
        if isinstance(decided, InvalidToken):
            until = now + self._settings.inactive_ttl
            rejected = _Rejected(until, decided.reason, decided.description, decided.details())
            self._inactive.put(digest, rejected)
            return
        until = answer.fetched_at + self._settings.ttl
        until = until if decided.valid_until is None else min(until, decided.valid_until)
        if until > now:
            weight = estimate_size(answer.text, answer.content, decided.auth_info)
            weight += 0 if decided.confirmation is None else CONFIRMATION_BYTES
            self._active.put(digest, Entry(decided, now, until, UNCHANGING, None, weight))

    def _accept(self, content: JSONObject, token: bytes, now: float) -> Verified:
        """Return the identity that an answer describes."""
        if not content["active"]:
            raise InvalidToken(Reason.INACTIVE_TOKEN)
        info = check_answer(content, self.rules, now, issuer_checks_audience=self._settings.issuer_checks_audience)
        bound = read_confirmation(content.get("cnf"), self.rules.confirmations)
        info = copy_with_token(info, token.decode("ascii") if self._expose_token else None)
        return Verified(info, info.expires_at, confirmation=bound)

    def _confirm(self, content: JSONObject, local: Verified) -> Verified:
        """Return the locally verified token, if the answer is about the same subject."""
        if not content["active"]:
            raise InvalidToken(Reason.INACTIVE_TOKEN)
        for name, expected in (("iss", local.auth_info.issuer), ("sub", local.auth_info.claims.get("sub"))):
            if content.get(name) not in (None, expected):
                raise InvalidToken(Reason.INACTIVE_TOKEN, expected=f"{name} of the token", found=content[name])
        bound = read_confirmation(content.get("cnf"), self.rules.confirmations)
        if bound is None or bound == local.confirmation:
            return local
        if local.confirmation is None:  # RFC 9449 section 6.2: the answer can bind a token whose claims do not
            return local._replace(confirmation=bound)
        raise InvalidToken(Reason.INACTIVE_TOKEN, expected="cnf of the token", found="another cnf")

    def _unavailable(self, unanswered: Unanswered) -> Unavailable:
        reason, issuer = Reason.INTROSPECTION_UNAVAILABLE, self._trusted.identifier
        return Unavailable(reason, issuer=issuer, found=unanswered.why, retry_after=unanswered.retry_after)

    def _count(self, answer: Verified | Refusal) -> Verified | Refusal:
        if isinstance(answer, Refusal):
            self._refusals[answer.reason.value] += 1
        return answer

    @property
    def is_available(self) -> bool:
        """Whether the circuit breaker allows calls."""
        return not self._endpoint.retry_in

    def status(self) -> IntrospectionStatus:
        """Return a snapshot of caches and calls."""
        return IntrospectionStatus(
            issuer=self._trusted.identifier,
            active=len(self._active),
            inactive=len(self._inactive),
            hits=self._active.hits + self._inactive_hits,
            calls=self._endpoint.calls,
            under_way=self._endpoint.under_way,
            failures=self._endpoint.failures,
            retry_in=self._endpoint.retry_in,
            last_error=self._endpoint.last_error,
            refusals=dict(self._refusals),
        )
