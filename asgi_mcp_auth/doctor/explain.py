"""Explaining a token: what the middleware would say of it, step by step. `explain` never shows the signature.

The verdict is the verifier's own (`MCPAuth.token_verifier`), keys fetched and hooks asked as for a request; the steps
are told from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jwt

from asgi_mcp_auth._oauth.jws import parse_compact
from asgi_mcp_auth._policy.compile import CompiledResource
from asgi_mcp_auth._policy.problems import as_list
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.auth import MCPAuth
from asgi_mcp_auth.doctor.hints import hint
from asgi_mcp_auth.doctor.steps import CREDENTIAL, REVOCATION, SCOPES, STEPS, TENANT, Step, Token, step_of
from asgi_mcp_auth.errors import ConfigurationError, InsufficientScope, InvalidToken, Problem, Refusal, printable

__all__ = ("Explanation", "Outcome", "StepResult", "explain")

Outcome = Literal["pass", "fail", "not reached"]
LONGEST = 300
OPAQUE, ENCRYPTED = 1, 5  # parts
VERIFIER = Step(name="your verifier")
OF_A_VERIFIER = (CREDENTIAL, VERIFIER, SCOPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of one step; `expected` and `found` are escaped and cut."""

    name: str
    outcome: Outcome
    reason: str | None = None
    expected: str | None = None
    found: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the middleware would say of a token.

    Args:
        resource: The protected resource that it was judged for.
        accepted: Whether a request with it reaches the app, as far as the baseline scopes.
        status: The status of the answer otherwise.
        reason: The reason code.
        looks_like: What it looks like.
        header: Its header, decoded; None for what is no JWT.
        claims: Its claims, decoded, whoever made them up.
        steps: Every step, in the verifier's order.
        hint: What to do.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        steps = [{name: getattr(step, name) for name in StepResult.__slots__} for step in self.steps]
        return {name: getattr(self, name) for name in Explanation.__slots__} | {"steps": steps}


async def explain(auth: MCPAuth, token: str, resource: str | None = None) -> Explanation:
    """Judge a token as the middleware does, and tell every step.

    Not told: path and operation rules, which need a request.

    Args:
        auth: The configuration.
        token: The access token, without `Bearer`.
        resource: For which resource; default: the only one, or the one that the token's `aud` names.

    Raises:
        ConfigurationError: There are several resources and none was named.
    """
    compiled = _resource_for(auth, token, resource)
    verdict = await auth.token_verifier(compiled.identifier).judge(b"Bearer " + token.encode("utf-8", "replace"))
    policy = compiled.policy.baseline
    if isinstance(verdict, Verified) and not policy.met_by(verdict.auth_info.scopes):
        scopes = " ".join(verdict.auth_info.scopes)
        verdict = InsufficientScope(required=policy.needed, found=scopes or "no scopes")
    taken_apart = _take_apart(auth, compiled, token)
    refusal = verdict if isinstance(verdict, Refusal) else None
    header: Mapping[str, Any] = {} if taken_apart is None else taken_apart.header
    issuer = None if taken_apart is None else taken_apart.claims.get("iss")
    return Explanation(
        resource=compiled.identifier,
        accepted=refusal is None,
        status=200 if refusal is None else refusal.status,
        reason=None if refusal is None else refusal.reason.value,
        looks_like=_looks_like(token, taken_apart),
        header=None if taken_apart is None else dict(header),
        claims=None if taken_apart is None else dict(taken_apart.claims),
        steps=_results(auth, refusal, taken_apart),
        hint="" if refusal is None else hint(refusal.reason, issuer, header, _issuers(compiled)),
    )


def _issuers(compiled: CompiledResource) -> tuple[str, ...]:
    return tuple(issuer.rules.issuer for issuer in compiled.trust.named)


def _take_apart(auth: MCPAuth, compiled: CompiledResource, token: str) -> Token | None:
    """The token as it can be shown; None for what is no JWT."""
    try:
        claims = parse_compact(token.encode("utf-8", "replace")).claims
        header = jwt.get_unverified_header(token)  # all of it, for people
    except (InvalidToken, jwt.PyJWTError):
        return None
    named = {issuer.rules.issuer: issuer.rules for issuer in compiled.trust.named}
    issuer = claims.get("iss")
    rules = named.get(issuer) if isinstance(issuer, str) else None
    return Token(header, claims, rules, tuple(named), compiled.policy.baseline.needed, auth.clock())


def _resource_for(auth: MCPAuth, token: str, named: str | None) -> CompiledResource:
    resources = {resource.identifier: resource for resource in auth.site.resources}
    if named is not None and named in resources:
        return resources[named]
    if named is None and len(resources) == 1:
        return next(iter(resources.values()))
    try:
        audience = parse_compact(token.encode("utf-8", "replace")).claims.get("aud")
    except InvalidToken:
        audience = None
    listed = as_list(audience) or [audience]
    meant = [resource for name, resource in resources.items() if name in listed]
    if named is None and len(meant) == 1:
        return meant[0]
    what = f"There are {len(resources)} resources." if named is None else f"{printable(named)} is none of them."
    raise ConfigurationError([Problem("resource", what, f"Name one of {', '.join(resources)}.")])


def _looks_like(token: str, taken_apart: Token | None) -> str:
    parts = token.count(".") + 1
    if taken_apart is not None:
        kind = taken_apart.header.get("typ", "none")
        return f"a signed JWT of {len(token)} characters, typ {printable(kind, 64)}"
    if parts == ENCRYPTED:
        return f"an encrypted JWT (JWE) of {len(token)} characters"
    if parts == OPAQUE:
        return f"an opaque token of {len(token)} characters"
    return f"{len(token)} characters in {parts} parts, which cannot be read as a signed JWT"


def _results(auth: MCPAuth, refusal: Refusal | None, token: Token | None) -> tuple[StepResult, ...]:
    """Passed up to the step that the refusal is of; what comes after it was not reached."""
    failed = None if refusal is None else step_of(refusal, token)
    if auth.verifier is not None and failed not in (None, *OF_A_VERIFIER):
        failed = VERIFIER
    results: list[StepResult] = []
    reached = True
    for step in _of_this(auth, token, failed):
        if step is failed and refusal is not None:
            details = refusal.details()
            expected = details.get("expected") or _text(step.expected(token) if token else None)
            found = details.get("found") or _text(step.found(token) if token else None)
            results.append(
                StepResult(name=step.name, outcome="fail", reason=refusal.reason.value, expected=expected, found=found)
            )
            reached = False
        elif reached:
            told = (step.expected(token), step.found(token)) if token else (None, None)
            results.append(StepResult(name=step.name, outcome="pass", expected=_text(told[0]), found=_text(told[1])))
        else:
            results.append(StepResult(name=step.name, outcome="not reached"))
    return tuple(results)


def _of_this(auth: MCPAuth, token: Token | None, failed: Step | None) -> tuple[Step, ...]:
    """The steps that there are here: tenants and revocation only where they are configured."""
    with_tenant = failed is TENANT or (token is not None and token.rules is not None and token.rules.tenant is not None)
    hooked = failed is REVOCATION or auth.is_revoked is not None
    if auth.verifier is not None:
        return OF_A_VERIFIER
    left_out = {step.name for step, there in ((TENANT, with_tenant), (REVOCATION, hooked)) if not there}
    return tuple(step for step in STEPS if step.name not in left_out)


def _text(value: object) -> str | None:
    return None if value is None or value == "" else printable(value, LONGEST)
