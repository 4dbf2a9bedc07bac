"""Compiling what a resource requires of the senders of its tokens: DPoP (RFC 9449), certificates (RFC 8705)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from asgi_mcp_auth._oauth.challenge import BEARER, CredentialScheme
from asgi_mcp_auth._oauth.confirmation import CERTIFICATE, DPOP_KEY
from asgi_mcp_auth._oauth.dpop_proof import ProofSettings
from asgi_mcp_auth._oauth.json_types import is_number
from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth._policy.client_certificates import CertificateSource
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth.config import DPOP_MODES, DPoPSettings

__all__ = ("CompiledDPoP", "CompiledSenders", "compile_dpop")

MAX_WINDOW: Final = 300.0
"""Seconds; the MCP extension for DPoP lets clients rely on this window, and no wider one (SEP-1932)."""

NONCE_LABEL: Final = b"asgi_mcp_auth dpop nonce "


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledDPoP:
    """How one resource verifies DPoP proofs.

    Attributes:
        is_required: Whether bearer tokens are refused.
        proofs: The accepted algorithms and the window of `iat`.
        algorithms: The accepted algorithms in their order, for clients.
        nonce_key: The key of the nonces; None if the resource demands none.
        accepts_store_failure: Whether a request passes if the store cannot say whether its proof was used before.
    """

    is_required: bool
    proofs: ProofSettings
    algorithms: tuple[str, ...]
    nonce_key: bytes | None = field(default=None, repr=False)
    accepts_store_failure: bool = False

    @property
    def scheme(self) -> CredentialScheme:
        """The scheme for challenges (RFC 9449 section 7.1)."""
        return CredentialScheme("DPoP", (("algs", " ".join(self.algorithms)),))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSenders:
    """The mechanisms that bind tokens to their senders, and that one resource verifies.

    Attributes:
        dpop: How DPoP proofs are verified; None if the scheme DPoP is not accepted.
        certificates: Where client certificates come from; None if tokens that are bound to one are refused.
    """

    dpop: CompiledDPoP | None = None
    certificates: CertificateSource | None = None

    @property
    def schemes(self) -> tuple[CredentialScheme, ...]:
        """The accepted credential schemes, Bearer first: some clients read only a field that starts with it."""
        if self.dpop is None:
            return (BEARER,)
        return (self.dpop.scheme,) if self.is_bearer_refused else (BEARER, self.dpop.scheme)

    @property
    def is_bearer_refused(self) -> bool:
        """Whether the scheme Bearer is not accepted."""
        return self.dpop is not None and self.dpop.is_required

    @property
    def methods(self) -> frozenset[str]:
        """The members of `cnf` that are verified; a token whose `cnf` has none of them is refused."""
        known = ((DPOP_KEY, self.dpop), (CERTIFICATE, self.certificates))
        return frozenset(member for member, mechanism in known if mechanism is not None)

    @property
    def members(self) -> dict[str, object]:
        """The members of the metadata document (RFC 9728 section 2)."""
        members: dict[str, object] = {}
        if self.certificates is not None:
            members["tls_client_certificate_bound_access_tokens"] = True
        if self.dpop is not None:
            members["dpop_signing_alg_values_supported"] = list(self.dpop.algorithms)
            members |= {"dpop_bound_access_tokens_required": True} if self.dpop.is_required else {}
        return members


def compile_dpop(
    *, mode: object, settings: object, shared_secret: object, resource: str, where: str, problems: Problems
) -> CompiledDPoP | None:
    """Return how a resource verifies DPoP proofs; None if it does not, or with problems.

    The option `where` contains the mode. Nonces are made with the shared secret, and are for one resource.
    """
    if mode not in DPOP_MODES:
        problems.add(where, f"{show(mode)} is not a mode of DPoP.", 'Set "off", "allowed" or "required".')
    if not isinstance(settings, DPoPSettings):
        problems.add("dpop_settings", f"{show(settings)} is not a DPoPSettings.", "Pass DPoPSettings(...).")
        return None
    algorithms = _algorithms(settings, problems)
    window = _window(settings.window, problems)
    if settings.on_store_failure not in ("refuse", "accept"):
        what = f"{show(settings.on_store_failure)} is not a policy for failures."
        problems.add("dpop_settings.on_store_failure", what, 'Set "refuse" or "accept".')
    if mode not in DPOP_MODES or mode == "off":
        return None
    nonce_key = None
    if settings.require_nonce is True and isinstance(shared_secret, str):
        nonce_key = hmac.digest(shared_secret.encode("utf-8"), NONCE_LABEL + resource.encode("utf-8"), "sha256")
    return CompiledDPoP(
        is_required=mode == "required",
        proofs=ProofSettings(frozenset(algorithms), window),
        algorithms=algorithms,
        nonce_key=nonce_key,
        accepts_store_failure=settings.on_store_failure == "accept",
    )


def _algorithms(settings: DPoPSettings, problems: Problems) -> tuple[str, ...]:
    where = "dpop_settings.algorithms"
    listed = problems.strings(settings.algorithms, where)
    for name in listed:
        if name not in ALGORITHMS:
            fix = f"List some of {', '.join(ALGORITHMS)}."
            problems.add(where, f"{show(name)} is not an asymmetric algorithm for proofs.", fix)
    if not listed:
        problems.add(where, "There is no algorithm.", 'List at least one, for example ["ES256"].')
    return tuple(dict.fromkeys(listed))


def _window(window: object, problems: Problems) -> float:
    if not is_number(window) or not 1 <= window <= MAX_WINDOW:
        fix = f"Set a number of seconds from 1 to {MAX_WINDOW:g}."
        problems.add("dpop_settings.window", f"{show(window)} is not a window for iat.", fix)
        return MAX_WINDOW
    return float(window)
