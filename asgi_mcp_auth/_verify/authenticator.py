"""From a request to the caller's identity, for one resource.

Read the credential, verify it, ask the revocation hook, and check that the sender is who the token is bound to.

Whatever a verifier or a hook does, a decision comes back: an exception is answered 503, and is never a pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256

from asgi_mcp_auth._oauth.credentials import Credential, read_credential
from asgi_mcp_auth._request import API_KEY_FIELD, RequestInfo
from asgi_mcp_auth._signals.revocations import Revocations
from asgi_mcp_auth._verify.api_keys import ApiKeyVerifier
from asgi_mcp_auth._verify.choice import Choice
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.introspection_verifier import IntrospectionVerifier
from asgi_mcp_auth._verify.jwt import JWTVerifier
from asgi_mcp_auth._verify.sender_constraint import SenderConstraint
from asgi_mcp_auth._verify.verifier import IsRevoked, Verified, Verifier
from asgi_mcp_auth.errors import BadRequest, InvalidToken, Reason, Refusal
from asgi_mcp_auth.status import ResourceStatus

__all__ = ("Authenticator",)

Identity = Verified | Refusal
Check = Callable[[RequestInfo], Identity | Awaitable[Identity]]


class Authenticator:
    """Authenticates the callers of one resource.

    Args:
        schemes: The accepted credential schemes, in lower case.
        verifier: A `JWTVerifier`, a `Choice` by the shape of the credential, or a verifier of the user's own.
        hooks: Calls the user's functions, within their time limit.
        is_revoked: The hook that is asked about every accepted credential, cached ones included; None for no hook.
        sender_constraint: The proofs of possession that the resource verifies; None if it verifies none, and refuses
            tokens that are bound to their sender.
        revocations: The revocations that every accepted credential is compared with; None if revocation is off.
    """

    def __init__(  # noqa: PLR0917 - the steps of one resource
        self,
        schemes: frozenset[bytes],
        verifier: Verifier,
        hooks: HookCaller,
        is_revoked: IsRevoked | None = None,
        sender_constraint: SenderConstraint | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        self._schemes = schemes
        self._hooks = hooks
        self._verifier = verifier
        self._choice = verifier if isinstance(verifier, Choice) else None
        self.jwt = verifier if isinstance(verifier, JWTVerifier) else None
        """The verifier of JWTs; None with a verifier of the user's own."""
        self.introspection: IntrospectionVerifier | None = None
        """The introspection of opaque tokens, if there is one."""
        self._confirms: IntrospectionVerifier | None = None
        if self._choice is not None:
            choice = self._choice
            self.jwt, self.introspection, self._confirms = choice.built_in, choice.introspection, choice.confirms
        self._keys = None if self._choice is None else self._choice.keys
        self._is_revoked = is_revoked
        self._revocations = revocations
        self._read: Check = self._check if self._keys is None else self._check_key_first
        self._identify: Check = self._read if revocations is None else self._check_revoked
        self._accept: Check = self._identify if is_revoked is None else self._check_and_ask
        self._sender_constraint = sender_constraint
        self.check: Check = self._accept if sender_constraint is None else self._check_sender
        """Return the decision if it needs no waiting, else an awaitable that continues where the check stopped."""

    @property
    def chooses(self) -> bool:
        """Whether the shape of a credential selects the verifier."""
        return self._choice is not None

    @property
    def is_built_in(self) -> bool:
        """Whether no verifier of the user's own makes identities, so that the trusted issuers are listed."""
        return self.jwt is not None if self._choice is None else self._choice.is_built_in

    @property
    def asks_revocation(self) -> bool:
        """Whether tokens may be revoked."""
        return self._is_revoked is not None or self._revocations is not None

    def remove_subject(self, key: bytes) -> None:
        """Remove the cached tokens of a subject, so that they are verified again; see `RevocationKeys.subject`."""
        if self.jwt is not None:
            self.jwt.cache.remove_subject(key)
        if self.introspection is not None:
            self.introspection.remove_subject(key)

    def status(self, resource: str) -> ResourceStatus | None:
        """Return the status of the resource; None with a verifier of the user's own alone."""
        introspection = None if self.introspection is None else self.introspection.status()
        if self.jwt is not None:
            return replace(self.jwt.status(resource), introspection=introspection)
        if introspection is None:
            return None
        return ResourceStatus(resource=resource, token_cache=None, pool=None, refusals={}, introspection=introspection)

    async def verify(self, request: RequestInfo) -> Identity:
        """Return the decision."""
        decided = self.check(request)
        return decided if isinstance(decided, (Verified, Refusal)) else await decided

    def _check(self, request: RequestInfo) -> Identity | Awaitable[Identity]:
        lines = request.fields.get(b"authorization", [])
        digest = b""
        if self.jwt is not None and len(lines) == 1:
            digest = sha256(lines[0]).digest()
            cached = self.jwt.cache.get(digest)  # a field value that was accepted before is well-formed
            if cached is not None:
                return cached if self._confirms is None else self._confirm(cached, self._confirms, request.token)
        if self.introspection is not None and len(lines) == 1:
            digest = digest or sha256(lines[0]).digest()
            cached = self.introspection.get_cached(digest)
            if cached is not None:
                return cached
        credential = read_credential(lines, self._schemes)
        if isinstance(credential, Refusal):
            return credential
        verifier = self._verifier if self._choice is None else self._choice.select(credential.token)
        if isinstance(verifier, JWTVerifier):
            decided = verifier.check(credential.token, digest)
            if self._confirms is None or isinstance(decided, Refusal):
                return decided
            return self._confirm(decided, self._confirms, credential.token)
        if isinstance(verifier, IntrospectionVerifier):
            return verifier.check(credential.token, digest)
        if isinstance(verifier, ApiKeyVerifier):
            return verifier.check(credential.token)
        return self._ask_verifier(verifier, credential, request)

    def _check_key_first(self, request: RequestInfo) -> Identity | Awaitable[Identity]:
        """Check the API key in its own field, or the `Authorization` field if there is none. Two are ambiguous."""
        lines = request.fields.get(API_KEY_FIELD)
        if not lines or self._keys is None:
            return self._check(request)
        if len(lines) > 1 or b"authorization" in request.fields:
            return BadRequest(Reason.MULTIPLE_CREDENTIALS, description="More than one credential")
        return self._keys.check(lines[0].strip(b" \t"))

    async def _confirm(
        self, decided: Verified | Awaitable[Identity], introspection: IntrospectionVerifier, token: bytes
    ) -> Identity:
        """Ask the authorization server about a JWT that was verified locally, if it is of the same issuer."""
        identity = decided if isinstance(decided, Verified) else await decided
        if isinstance(identity, Refusal) or identity.auth_info.issuer != introspection.rules.issuer:
            return identity
        # Another key than that of an opaque token, whose cached answer is enough to accept it.
        confirmed = introspection.check(token, sha256(b"confirm " + token).digest(), identity)
        return confirmed if isinstance(confirmed, (Verified, Refusal)) else await confirmed

    async def _ask_verifier(self, verifier: Verifier, credential: Credential, request: RequestInfo) -> Identity:
        name, verify, token = "The verifier", verifier.verify, credential.token
        try:
            identity = await self._hooks.call(verify, credential, request, name=name, token=token)
        except Refusal as refusal:
            return refusal.without_traceback()
        if isinstance(identity, Verified):
            return identity if self._sender_constraint is None else self._sender_constraint.bind(identity)
        if isinstance(identity, Refusal):
            return identity
        return self._hooks.wrong_answer(name, identity, "Verified or a Refusal")

    def _check_revoked(self, request: RequestInfo) -> Identity | Awaitable[Identity]:
        decided, revocations = self._read(request), self._revocations
        if isinstance(decided, Refusal) or revocations is None:
            return decided
        if isinstance(decided, Verified) and revocations.is_current():
            return revocations.refuse(decided.auth_info) or decided
        return self._check_revoked_later(decided, revocations)

    async def _check_revoked_later(self, decided: Verified | Awaitable[Identity], revocations: Revocations) -> Identity:
        identity = decided if isinstance(decided, Verified) else await decided
        if isinstance(identity, Refusal):
            return identity
        if not revocations.is_current():
            unavailable = await revocations.catch_up()
            if unavailable is not None:
                unavailable.issuer, unavailable.client_id = identity.auth_info.issuer, identity.auth_info.client_id
                return unavailable
        return revocations.refuse(identity.auth_info) or identity

    def _check_and_ask(self, request: RequestInfo) -> Identity | Awaitable[Identity]:
        decided = self._identify(request)
        return decided if isinstance(decided, Refusal) else self._ask_revocation(decided, request)

    async def _ask_revocation(self, decided: Verified | Awaitable[Identity], request: RequestInfo) -> Identity:
        """Ask the hook about an accepted credential; False means that it is not revoked, anything else that it is."""
        identity = decided if isinstance(decided, Verified) else await decided
        if isinstance(identity, Refusal) or self._is_revoked is None:
            return identity
        info = identity.auth_info
        try:
            answer = await self._hooks.call(self._is_revoked, info, name="is_revoked", token=request.token)
        except Refusal as refusal:
            return refusal.without_traceback()
        if answer is False:
            return identity
        found = f"jti {info.claims.get('jti')} of principal {info.principal.key[:16]}"
        return InvalidToken(Reason.REVOKED, issuer=info.issuer, client_id=info.client_id, found=found)

    def _check_sender(self, request: RequestInfo) -> Identity | Awaitable[Identity]:
        decided = self._accept(request)
        if isinstance(decided, Refusal) or self._sender_constraint is None:
            return decided
        if isinstance(decided, Verified):
            return self._sender_constraint.check(decided, request)
        return self._check_sender_later(decided, self._sender_constraint, request)

    async def _check_sender_later(
        self, waiting: Awaitable[Identity], constraint: SenderConstraint, request: RequestInfo
    ) -> Identity:
        identity = await waiting
        if isinstance(identity, Refusal):
            return identity
        checked = constraint.check(identity, request)
        return checked if isinstance(checked, (Verified, Refusal)) else await checked
