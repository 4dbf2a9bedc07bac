"""Reporting decisions: to the refusal log, the audit log and the observers. Nothing is built if nothing consumes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final, NamedTuple

from asgi_mcp_auth._mcp.operations import Named
from asgi_mcp_auth._oauth.credentials import scheme_of
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.routes import Route
from asgi_mcp_auth._policy.scopes import Requirement
from asgi_mcp_auth._request import API_KEY_FIELD, RequestInfo
from asgi_mcp_auth._telemetry.audit import AuditLog
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.decisions import Decision, Observer, Outcome, RefusalLog
from asgi_mcp_auth.errors import InsufficientAuthentication, InsufficientScope, Refusal, printable

__all__ = ("Findings", "Reporter", "session_hash")

MAX_CACHED, MAX_CACHED_LENGTH = 1024, 128  # session ids and addresses, and the characters of one; clients choose them
NO_PARAMS: Mapping[str, str] = MappingProxyType({})
TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


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
    operations: tuple[Named, ...] = ()
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
        self._observers = tuple(observers)
        self._asked = [(observe, getattr(observe, "wants", None)) for observe in observers]
        self._asks = any(wants is not None for _, wants in self._asked)
        self._refusal_log = refusal_log
        self._audit = audit
        self._hooks = hooks
        self.consumes = bool(observers) or audit is not None

    @property
    def audit_is_dropped(self) -> bool:
        """Whether there is an audit log whose logger drops every line now."""
        return self._audit is not None and self._audit.is_dropped

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
        observers: Sequence[Observer] = self._observers
        if self._asks:
            observers = [observe for observe, wants in self._asked if wants is None or wants(outcome)]
        if not (is_logged or observers or audit):
            return None
        decision = _decision(outcome, request, findings, refusal, status, self._clock())
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
    now: float,
) -> Decision:
    resource, route, verified, seconds, operations, _ = findings
    if refusal is not None and not operations:
        operations = refusal.operations
    header = verified or refusal
    get, client = request.fields.get, request.scope.get("client")
    request_id, trace, session = get(b"x-request-id"), get(b"traceparent"), get(b"mcp-session-id")
    return Decision(  # by position: keywords double the time
        outcome,
        request.method,
        request.raw_path.decode("ascii", "backslashreplace"),
        None if resource is None else resource.identifier,
        status,
        None if verified is None else _without_token(verified.auth_info),
        refusal,
        tuple(map(_operation, operations)) if operations else (),
        now,
        None if route is None else route.template,
        _needed(findings, refusal),
        None if header is None else header.kid,
        None if header is None else header.alg,
        scheme_of(get(b"authorization")) or ("api_key" if API_KEY_FIELD in request.fields else None),
        None if verified is None else verified.is_cached,
        seconds,
        None if request_id is None else printable(request_id[-1].decode("latin-1")),
        None if trace is None else _trace_id(trace[-1]),
        None if session is None else session_hash(session[-1]),
        address_class(client[0] if client else None),
    )


def _needed(findings: Findings, refusal: Refusal | None) -> tuple[str, ...]:
    """Return the scopes that the request needs, of the path and of the body."""
    if isinstance(refusal, (InsufficientScope, InsufficientAuthentication)):
        return refusal.required
    route = findings.route
    if route is None or route.resource is None:
        return ()
    named = route.requirement.named
    for requirement in findings.needed:
        named += tuple(name for name in requirement.named if name not in named)
    return named


def _operation(named: Named) -> Operation:
    method, kind, name, message_id = named
    return Operation(
        method=method, kind=kind, name=name, message_id=message_id, params=NO_PARAMS, header_params=NO_PARAMS
    )


def _trace_id(value: bytes) -> str | None:
    parsed = TRACEPARENT.fullmatch(value)
    return None if parsed is None else parsed[1].decode("ascii")


def session_hash(session: bytes) -> str:
    """Return the SHA-256 of a session id in hexadecimal digits, computed once for a session."""
    return (_hash_of if len(session) <= MAX_CACHED_LENGTH else _hash_of.__wrapped__)(session)


@lru_cache(MAX_CACHED)
def _hash_of(session: bytes) -> str:
    return sha256(session).hexdigest()


def _without_token(info: AuthInfo) -> AuthInfo:
    return info if info.token is None else info.replace(token=None)


def address_class(host: str | None) -> str | None:
    """Return `loopback`, `private` or `public` for the address of a client; None for anything else."""
    return None if host is None or len(host) > MAX_CACHED_LENGTH else _class_of(host)


@lru_cache(MAX_CACHED)
def _class_of(host: str) -> str | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if address.is_loopback:
        return "loopback"
    return "private" if address.is_private or address.is_link_local else "public"
