"""The audit log: one JSON line per authorization decision, to the logger `asgi_mcp_auth.audit` or to a sink."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from typing import Final

from asgi_mcp_auth._mcp.operations import Named
from asgi_mcp_auth.context import Actor
from asgi_mcp_auth.decisions import Decision, Outcome
from asgi_mcp_auth.errors import printable

__all__ = ("AuditLog", "AuditSink", "audit_line")

AuditSink = Callable[[str], object]
logger = logging.getLogger("asgi_mcp_auth.audit")
AUDITED: Final = frozenset(("allowed", "refused", "public", "expired"))
MAX_OPERATIONS = 100  # operations of a batch in one line
MAX_CACHED = 256  # callers; a token of 16 KiB may have as many scopes as fit into it


def audit_line(decision: Decision) -> str:
    """Return a decision as one line of ASCII JSON. It has no token, no argument and no claim but identifiers."""
    path = quote(printable(decision.path, 512))
    members = [f'"time": {decision.time:.6f}, "outcome": "{decision.outcome}"']
    members.append(f'"method": {quote(printable(decision.method))}, "path": {path}')
    texts = (
        ("reason", decision.reason),
        ("credential", decision.credential),
        ("session", decision.session_hash),
        ("request_id", decision.request_id),
        ("trace_id", decision.trace_id),
        ("client_address", decision.client_address),
    )
    members += [f'"{name}": {quote(text)}' for name, text in texts if text is not None]
    if decision.status is not None:
        members.append(f'"status": {decision.status}')
    if decision.verify_seconds is not None:
        members.append(f'"verify_seconds": {decision.verify_seconds:.9f}')
    if decision.cache_hit is not None:
        members.append(f'"cache_hit": {"true" if decision.cache_hit else "false"}')
    if decision.operations:
        shown = [_operation(one.method, one.kind, one.name) for one in decision.operations[:MAX_OPERATIONS]]
        members.append(f'"operations": [{", ".join(shown)}]')
        members.append(f'"operations_dropped": {len(decision.operations) - len(shown)}')
    info, actors = decision.auth_info, decision.actors
    members += (
        _rule(decision.resource, decision.path_template, decision.scopes_needed),
        _caller(
            decision.issuer,
            None if info is None else info.subject,
            decision.client_id,
            decision.principal_hash,
            actors.actors,
            actors.dropped,
            decision.scopes_granted,
            decision.kid,
            decision.alg,
            decision.jti_hash,
        ),
    )
    return "{" + ", ".join([one for one in members if one]) + "}"


# What many lines have in common is rendered once for all of them (benchmarks: in_process, audited).
@lru_cache(MAX_CACHED)
def _operation(method: str, kind: str | None, name: str | None) -> str:
    shown = "null" if name is None else quote(printable(name, 256))
    return (
        f'{{"method": {quote(printable(method))}, "kind": {"null" if kind is None else quote(kind)}, "name": {shown}}}'
    )


@lru_cache(MAX_CACHED)
def _rule(resource: str | None, path_template: str | None, scopes_needed: tuple[str, ...]) -> str:
    return _members(resource=resource, path_template=path_template, scopes_needed=list(scopes_needed))


@lru_cache(MAX_CACHED)
def _caller(  # noqa: PLR0917 - everything that is known about a caller
    issuer: str | None,
    subject: str | None,
    client_id: str | None,
    principal: str | None,
    actors: tuple[Actor, ...],
    actors_dropped: int,
    scopes_granted: tuple[str, ...],
    kid: str | None,
    alg: str | None,
    jti: str | None,
) -> str:
    return _members(
        issuer=issuer and printable(issuer, 512),
        subject=subject and printable(subject, 256),
        client_id=client_id and printable(client_id, 256),
        principal=principal,
        actors=[printable(actor.subject, 256) for actor in actors],
        actors_dropped=actors_dropped,
        scopes_granted=[printable(scope) for scope in scopes_granted],
        kid=kid and printable(kid),
        alg=alg and printable(alg),
        jti=jti,
    )


def _members(**fields: object) -> str:
    """Return the members of a JSON object, without what is None or empty, as text to put into an object."""
    return json.dumps({name: value for name, value in fields.items() if value is not None and value != []})[1:-1]


class AuditLog:
    """Writes decisions of protected resources.

    Refusals of protected paths and expired streams are always written. Allowed requests are written if an operation
    matches.

    Args:
        sink: Called with each line, before the app runs; None for the logger `asgi_mcp_auth.audit`.
        operations: Patterns of allowed operations: a method, or `METHOD TARGET`, with `*` for any text. `*` alone
            matches requests without an operation too.
        is_required: Whether a request is refused if its line cannot be written.

    Attributes:
        is_required: As the argument.
    """

    def __init__(self, sink: AuditSink | None, operations: Sequence[str], *, is_required: bool) -> None:
        self._sink = sink or logger.info
        self._is_logged = sink is None
        self._writes_all = "*" in operations
        self._matches = re.compile("|".join(map(translate, operations)) or "(?!)").match
        self.is_required = is_required

    @property
    def is_dropped(self) -> bool:
        """Whether the logger is set to drop every line; False if a sink is set."""
        return self._is_logged and not logger.isEnabledFor(logging.INFO)

    def wants(self, outcome: Outcome, has_resource: bool, operations: Sequence[Named]) -> bool:
        """Return whether a decision is written; a decision that is not need not be built."""
        if not has_resource or outcome not in AUDITED or self.is_dropped:
            return False
        if outcome in {"refused", "expired"} or self._writes_all:
            return True
        for method, _, name, _ in operations:
            if self._matches(method) or (name is not None and self._matches(f"{method} {name}")):
                return True
        return False

    def __call__(self, decision: Decision) -> None:
        """Write one line. What the sink raises passes through."""
        self._sink(audit_line(decision))
