"""The audit log: one JSON line per authorization decision, to the logger `asgi_mcp_auth.audit` or to a sink."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.decisions import Decision, Outcome
from asgi_mcp_auth.errors import printable

__all__ = ("AuditLog", "AuditSink", "audit_line")

AuditSink = Callable[[str], object]
logger = logging.getLogger("asgi_mcp_auth.audit")
AUDITED: Final = frozenset(("allowed", "refused", "public", "expired"))
MAX_OPERATIONS = 100  # operations of a batch in one line


def audit_line(decision: Decision) -> str:
    """Return a decision as one line of ASCII JSON. It has no token, no argument and no claim but identifiers."""
    info, actors = decision.auth_info, decision.actors
    fields: dict[str, object] = {
        "time": decision.time,
        "outcome": decision.outcome,
        "status": decision.status,
        "reason": decision.reason,
        "resource": decision.resource,
        "method": printable(decision.method),
        "path": printable(decision.path, 512),
        "path_template": decision.path_template,
        "operations": [
            {"method": printable(one.method), "kind": one.kind, "name": one.name and printable(one.name, 256)}
            for one in decision.operations[:MAX_OPERATIONS]
        ],
        "operations_dropped": max(0, len(decision.operations) - MAX_OPERATIONS),
        "issuer": decision.issuer and printable(decision.issuer, 512),
        "subject": info and printable(info.subject, 256),
        "client_id": decision.client_id and printable(decision.client_id, 256),
        "principal": decision.principal_hash,
        "actors": [printable(actor.subject, 256) for actor in actors.actors],
        "actors_dropped": actors.dropped,
        "scopes_needed": list(decision.scopes_needed),
        "scopes_granted": [printable(scope) for scope in decision.scopes_granted],
        "kid": decision.kid and printable(decision.kid),
        "alg": decision.alg and printable(decision.alg),
        "credential": decision.credential,
        "cache_hit": decision.cache_hit,
        "verify_seconds": decision.verify_seconds,
        "session": decision.session_hash,
        "jti": decision.jti_hash,
        "request_id": decision.request_id,
        "trace_id": decision.trace_id,
        "client_address": decision.client_address,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None and value != []})


def _log(line: str) -> None:
    logger.info("%s", line)


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
        self._sink = sink or _log
        self._writes_all = "*" in operations
        self._patterns = tuple(operations)
        self.is_required = is_required

    def wants(self, outcome: Outcome, has_resource: bool, operations: Sequence[Operation]) -> bool:
        """Return whether a decision is written; a decision that is not need not be built."""
        if not has_resource or outcome not in AUDITED:
            return False
        if outcome in {"refused", "expired"} or self._writes_all:
            return True
        return any(self._matches(one) for one in operations)

    def _matches(self, operation: Operation) -> bool:
        named = f"{operation.method} {operation.name}" if operation.name is not None else operation.method
        return any(fnmatchcase(named, one) or fnmatchcase(operation.method, one) for one in self._patterns)

    def __call__(self, decision: Decision) -> None:
        """Write one line. What the sink raises passes through."""
        self._sink(audit_line(decision))
