"""Explain a token: the middleware's decision, step by step. `explain` never shows the signature.

The decision is the verifier's own (`MCPAuth.token_verifier`): keys are fetched and hooks are called as for a request.
The steps are derived from the decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jwt

from asgi_mcp_auth._oauth.confirmation import CERTIFICATE as CONFIRMED_CERTIFICATE
from asgi_mcp_auth._oauth.confirmation import DPOP_KEY
from asgi_mcp_auth._oauth.jws import parse_compact
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import as_list, as_mapping
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.auth import MCPAuth, protection_of
from asgi_mcp_auth.doctor._hints import hint
from asgi_mcp_auth.doctor._steps import (
    CERTIFICATE,
    CREDENTIAL,
    FORM,
    PROOF,
    REVOCATION,
    SCOPES,
    STEPS,
    TENANT,
    Step,
    Token,
    step_of,
)
from asgi_mcp_auth.errors import ConfigurationError, InsufficientScope, InvalidToken, Problem, Refusal, printable

__all__ = ("Explanation", "Outcome", "StepResult", "explain")

Outcome = Literal["pass", "fail", "not reached"]
MAX_LENGTH = 300
OPAQUE, ENCRYPTED = 1, 5  # the number of parts that dots separate
VERIFIER = Step(name="your verifier")
VERIFIER_STEPS = (CREDENTIAL, VERIFIER, CERTIFICATE, PROOF, SCOPES)
DPOP = b"DPoP "


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step; `expected` and `found` are escaped and cut."""

    name: str
    outcome: Outcome
    reason: str | None = None
    expected: str | None = None
    found: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The middleware's decision about a token.

    Args:
        resource: The protected resource for which the token was checked.
        accepted: Whether the verifier accepts the token and the token has the baseline scopes.
        status: The status of the response: 200 for an accepted token.
        reason: The reason code; None for an accepted token.
        looks_like: The kind of token, for people.
        header: The decoded header; None if the token is not a JWT.
        claims: The decoded claims, not verified; None if the token is not a JWT.
        steps: Every step, in the verifier's order.
        hint: How to fix the refusal; empty for an accepted token.
        public: The operations of the resource that need no token.
    """

    resource: str
    accepted: bool
    status: int
    reason: str | None
    looks_like: str
    header: Mapping[str, Any] | None
    claims: Mapping[str, Any] | None
    steps: tuple[StepResult, ...]
    hint: str
    public: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain JSON."""
        steps = [{name: getattr(step, name) for name in StepResult.__slots__} for step in self.steps]
        return {name: getattr(self, name) for name in Explanation.__slots__} | {"steps": steps}


async def explain(
    auth: MCPAuth,
    token: str,
    resource: str | None = None,
    *,
    proof: str | None = None,
    method: str = "POST",
    certificate: str | None = None,
) -> Explanation:
    """Verify a token as the middleware does, and return the result of every step.

    Path and operation rules are not checked: they need a request. A token that is bound to a key is verified like a
    request with the scheme DPoP, if the resource accepts that.

    Args:
        auth: The configuration.
        token: The access token, without `Bearer` or `DPoP`.
        resource: The protected resource. Default: the only resource, or the resource in the token's `aud`.
        proof: A DPoP proof for a request to the resource. A proof is used up by being verified.
        method: The method of that request.
        certificate: The client certificate of that request, in PEM.

    Raises:
        ConfigurationError: `resource` is not configured, or is missing and cannot be derived from the token.
    """
    compiled = _resource_for(auth, token, resource)
    decoded = _decode(auth, compiled, token)
    fields = _fields(compiled, token, decoded, proof)
    source, extensions = compiled.senders.certificates, None
    if certificate is not None and source is not None:
        reported = source.as_reported(certificate)
        fields, extensions = [*fields, *reported["headers"]], reported.get("extensions")
    decision = await auth.token_verifier(compiled.identifier).verify_fields(fields, method, extensions)
    policy = compiled.policy.baseline
    if isinstance(decision, Verified) and not policy.met_by(decision.auth_info.scopes):
        scopes = " ".join(decision.auth_info.scopes)
        decision = InsufficientScope(required=policy.needed, found=scopes or "no scopes")
    refusal = decision if isinstance(decision, Refusal) else None
    return Explanation(
        resource=compiled.identifier,
        accepted=refusal is None,
        status=200 if refusal is None else refusal.status,
        reason=None if refusal is None else refusal.reason.value,
        looks_like=_looks_like(token, decoded),
        header=None if decoded is None else dict(decoded.header),
        claims=None if decoded is None else dict(decoded.claims),
        steps=_results(auth, refusal, decoded, is_dpop=fields[0][1].startswith(DPOP)),
        hint="" if refusal is None else hint(refusal, decoded),
        public=compiled.policy.operations.public_names,
    )


def _fields(
    compiled: CompiledResource, token: str, decoded: Token | None, proof: str | None
) -> list[tuple[bytes, bytes]]:
    """Return the header fields of a request with the token, with the scheme that fits it."""
    dpop, cnf = compiled.senders.dpop, None if decoded is None else as_mapping(decoded.claims.get("cnf"))
    is_dpop = dpop is not None and (dpop.is_required or proof is not None or (cnf is not None and DPOP_KEY in cnf))
    fields = [(b"authorization", (DPOP if is_dpop else b"Bearer ") + token.encode("utf-8", "replace"))]
    return fields if proof is None else [*fields, (b"dpop", proof.encode("utf-8", "replace"))]


def _decode(auth: MCPAuth, compiled: CompiledResource, token: str) -> Token | None:
    """Return the decoded token, or None if it is not a signed JWT."""
    try:
        claims = parse_compact(token.encode("utf-8", "replace")).claims
        header = jwt.get_unverified_header(token)  # with the members that verification ignores
    except (InvalidToken, jwt.PyJWTError):
        return None
    named = {issuer.rules.issuer: issuer.rules for issuer in compiled.trust.named}
    issuer = claims.get("iss")
    rules = named.get(issuer) if isinstance(issuer, str) else None
    return Token(header, claims, rules, tuple(named), compiled.policy.baseline.needed, protection_of(auth).clock())


def _resource_for(auth: MCPAuth, token: str, named: str | None) -> CompiledResource:
    resources = {resource.identifier: resource for resource in protection_of(auth).config.resources}
    if named is not None and named in resources:
        return resources[named]
    if named is None and len(resources) == 1:
        return next(iter(resources.values()))
    try:
        audience = parse_compact(token.encode("utf-8", "replace")).claims.get("aud")
    except InvalidToken:
        audience = None
    listed = as_list(audience) or [audience]
    matching = [resource for name, resource in resources.items() if name in listed]
    if named is None and len(matching) == 1:
        return matching[0]
    count = f"The configuration has {len(resources)} resources"
    what = f"{count}, and the token's aud names no single one." if named is None else f"{printable(named)} is not one."
    raise ConfigurationError([Problem("resource", what, f"Pass one of {', '.join(resources)}.")])


def _looks_like(token: str, decoded: Token | None) -> str:
    parts = token.count(".") + 1
    if decoded is not None:
        kind = decoded.header.get("typ", "none")
        return f"a signed JWT of {len(token)} characters, typ {printable(kind, 64)}"
    if parts == ENCRYPTED:
        return f"an encrypted JWT (JWE) of {len(token)} characters"
    if parts == OPAQUE:
        return f"an opaque token of {len(token)} characters"
    return f"{len(token)} characters in {parts} parts, which cannot be read as a signed JWT"


def _results(auth: MCPAuth, refusal: Refusal | None, token: Token | None, *, is_dpop: bool) -> tuple[StepResult, ...]:
    """Return the steps: passed up to the step that caused the refusal, and not reached after it."""
    failed = None if refusal is None else step_of(refusal, token)
    if _is_decided_elsewhere(auth, token, refusal) and failed not in (None, CERTIFICATE, PROOF, *VERIFIER_STEPS):
        failed = VERIFIER
    results: list[StepResult] = []
    reached = True
    for step in _steps(auth, token, failed, refusal):
        if (step is PROOF and not is_dpop) or (step is CERTIFICATE and not _is_certified(token)):
            continue
        expected, found = (None, None) if token is None else (step.expected(token), step.found(token))
        if step is failed and refusal is not None:
            details = refusal.details()
            expected, found = details.get("expected") or expected, details.get("found") or found
            reason = refusal.reason.value
            results.append(StepResult(step.name, "fail", reason, _text(expected), _text(found)))
            reached = False
        elif reached:
            results.append(StepResult(step.name, "pass", None, _text(expected), _text(found)))
        else:
            results.append(StepResult(step.name, "not reached"))
    return tuple(results)


def _is_certified(token: Token | None) -> bool:
    """Return whether a token is bound to a client certificate."""
    cnf = None if token is None else as_mapping(token.claims.get("cnf"))
    return cnf is not None and CONFIRMED_CERTIFICATE in cnf


def _is_decided_elsewhere(auth: MCPAuth, token: Token | None, refusal: Refusal | None) -> bool:
    """Return whether a verifier of the user's own, introspection or the API keys decide about this token."""
    authenticator = protection_of(auth).authenticators[0]
    if authenticator.jwt is None:
        return True
    is_jwt = token is not None or (refusal is not None and refusal.reason in FORM.reasons)
    return authenticator.chooses and not is_jwt


def _steps(auth: MCPAuth, token: Token | None, failed: Step | None, refusal: Refusal | None) -> tuple[Step, ...]:
    """Return the steps of this configuration: tenants and revocation only if they are configured."""
    if _is_decided_elsewhere(auth, token, refusal):
        return VERIFIER_STEPS
    has_tenant = failed is TENANT or (token is not None and token.rules is not None and token.rules.tenant is not None)
    has_hook = failed is REVOCATION or protection_of(auth).authenticators[0].asks_revocation
    omitted = {step.name for step, used in ((TENANT, has_tenant), (REVOCATION, has_hook)) if not used}
    return tuple(step for step in STEPS if step.name not in omitted)


def _text(value: object) -> str | None:
    return None if value is None or value == "" else printable(value, MAX_LENGTH)
