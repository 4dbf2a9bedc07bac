"""Reporting decisions: to the refusal log, the audit log and the observers. Nothing is built if nothing consumes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Final, NamedTuple

from asgi_mcp_auth._oauth.credentials import scheme_of
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.routes import Route
from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth._request import RequestInfo, canonical_name
from asgi_mcp_auth._telemetry.audit import AuditLog
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.decisions import Decision, Observer, Outcome, RefusalLog
from asgi_mcp_auth.errors import InsufficientAuthentication, InsufficientScope, Refusal, printable

__all__ = ("Findings", "Reporter", "without_params")

CORRELATION_FIELDS: Final = frozenset((b"x-request-id", b"traceparent", b"mcp-session-id"))
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


class Findings(NamedTuple):
    """What the pipeline has found out about a request.

    Attributes:
        resource: The resource that owns the path.
        route: The route of the request.
        verified: The accepted credential.
        seconds: The seconds that reading and verifying the credential took; None if nothing measures them.
        operations: The operations in the body.
        needed: What the body needs.
    """

    resource: CompiledResource | None = None
    route: Route | None = None
    verified: Verified | None = None
    seconds: float | None = None
    operations: tuple[Operation, ...] = ()
    needed: Sequence[Requirement] = ()


NOTHING_FOUND = Findings()


class Reporter:
    """Reports each decision once to whatever consumes it.

    Args:
        observers: Called with each `Decision`. An observer with a method `wants(outcome)` is asked before.
        refusal_log: Logs refusals.
        audit: The audit log, if the configuration has one.
        hooks: Logs the failures of observers and sinks.
        clock: Seconds since the epoch.

    Attributes:
        consumes: Whether anything but the refusal log consumes decisions.
    """

    def __init__(
        self,
        observers: Sequence[Observer],
        refusal_log: RefusalLog,
        audit: AuditLog | None,
        hooks: HookCaller,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._observers = [(observe, getattr(observe, "wants", None)) for observe in observers]
        self._refusal_log = refusal_log
        self._audit = audit
        self._hooks = hooks
        self.consumes = bool(observers) or audit is not None

    def __call__(
        self,
        outcome: Outcome,
        request: RequestInfo,
        findings: Findings = NOTHING_FOUND,
        *,
        refusal: Refusal | None = None,
        status: int | None = None,
    ) -> Refusal | None:
        """Report a decision. Return the refusal to answer with if a required audit log could not record it."""
        is_logged = refusal is not None and self._refusal_log.wants(refusal)
        if not (is_logged or self.consumes):
            return None
        audit = self._audit
        if audit is not None and not audit.wants(outcome, findings.resource is not None, findings.operations):
            audit = None
        observers = [observe for observe, wants in self._observers if wants is None or wants(outcome)]
        if not (is_logged or observers or audit):
            return None
        decision = _decision(outcome, request, findings, refusal, status, self._clock)
        if is_logged:
            self._refusal_log(decision)
        failed: Refusal | None = None
        if audit is not None:
            try:
                audit(decision)
            except Exception as error:  # noqa: BLE001 - any failure of a sink
                unavailable = self._hooks.failed("The audit sink", error)
                failed = unavailable if audit.is_required else None
        for observe in observers:
            try:
                observe(decision)
            except Exception as error:  # noqa: BLE001 - an observer decides nothing, so it cannot fail the request
                self._hooks.failed("An on_decision observer", error)
        return failed


def _decision(  # noqa: PLR0917 - everything that is known about a request
    outcome: Outcome,
    request: RequestInfo,
    findings: Findings,
    refusal: Refusal | None,
    status: int | None,
    clock: Callable[[], float],
) -> Decision:
    verified, route, resource = findings.verified, findings.route, findings.resource
    operations = findings.operations
    if refusal is not None and not operations:
        operations = without_params(refusal.operations)
    needed: tuple[str, ...] = ()
    if isinstance(refusal, (InsufficientScope, InsufficientAuthentication)):
        needed = refusal.required
    elif route is not None and route.resource is not None:
        needed = route.requirement.named
        if findings.needed:
            needed = tuple(dict.fromkeys((*needed, *(name for one in findings.needed for name in one.named))))
    sent = {canonical_name(name): value for name, value in request.scope["headers"] if name in CORRELATION_FIELDS}
    request_id, trace = sent.get(b"x-request-id"), TRACEPARENT.fullmatch(sent.get(b"traceparent", b""))
    header = verified or refusal
    session, client = sent.get(b"mcp-session-id"), request.scope.get("client")
    return Decision(
        outcome=outcome,
        method=request.method,
        path=request.raw_path.decode("ascii", "backslashreplace"),
        resource=None if resource is None else resource.identifier,
        status=status,
        auth_info=None if verified is None else _without_token(verified.auth_info),
        refusal=refusal,
        operations=operations,
        time=clock(),
        path_template=None if route is None else route.template,
        scopes_needed=needed,
        kid=None if header is None else header.kid,
        alg=None if header is None else header.alg,
        credential=scheme_of(request.fields.get(b"authorization")),
        cache_hit=None if verified is None else verified.is_cached,
        verify_seconds=findings.seconds,
        request_id=None if request_id is None else printable(request_id.decode("latin-1")),
        trace_id=None if trace is None else trace[1].decode("ascii"),
        session_hash=None if session is None else sha256(session).hexdigest(),
        client_address=address_class(client[0] if client else None),
    )


def _without_token(info: AuthInfo) -> AuthInfo:
    return info if info.token is None else info.replace(token=None)


def without_params(operations: Iterable[object]) -> tuple[Operation, ...]:
    """Return the operations without their arguments, which may be secrets."""
    return tuple(
        [
            Operation(method=one.method, kind=one.kind, name=one.name, message_id=one.message_id)
            for one in operations
            if isinstance(one, Operation)
        ]
    )


@lru_cache(1024)
def address_class(host: str | None) -> str | None:
    """Return `loopback`, `private` or `public` for the address of a client; None for anything else."""
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return None
    if address.is_loopback:
        return "loopback"
    return "private" if address.is_private or address.is_link_local else "public"
