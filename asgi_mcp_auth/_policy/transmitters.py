"""Compiling the transmitters of security events and logout tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asgi_mcp_auth._oauth.urls import Url
from asgi_mcp_auth._policy.issuers import IssuerSet
from asgi_mcp_auth._policy.problems import Problems, as_list, show
from asgi_mcp_auth._policy.trusted_issuer import IssuerContext, TrustedIssuer, check_url, compile_issuer
from asgi_mcp_auth.config import AuthServerConfig, EventTransmitter

__all__ = ("CompiledTransmitter", "compile_transmitters")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTransmitter:
    """One transmitter.

    Attributes:
        settings: The settings.
        trusted: The source of its keys, and its algorithms and leeway.
        audiences: The accepted `aud` of its events; empty if it sends none.
        clients: The accepted `aud` of its logout tokens; empty if it sends none.
        token_issuers: The issuers whose tokens it may revoke.
    """

    settings: EventTransmitter
    trusted: TrustedIssuer
    audiences: frozenset[str]
    clients: frozenset[str]
    token_issuers: tuple[str, ...]

    @property
    def issuer(self) -> str:
        """The `iss` of its events."""
        return self.trusted.identifier


def compile_transmitters(
    given: object, trust: Sequence[IssuerSet], resource: Url | None, problems: Problems, *, allow_http: bool
) -> tuple[CompiledTransmitter, ...]:
    """Return the transmitters of a list, each compiled like an issuer of `resource`.

    `trust` has the issuers of each resource. Every problem is added to `problems`.
    """
    listed = as_list(given)
    if listed is None:
        problems.add("event_transmitters", f"{show(given)} is not a list.", "Pass [EventTransmitter(...)].")
        return ()
    compiled: dict[str, CompiledTransmitter] = {}
    for index, one in enumerate(listed):
        where = f"event_transmitters[{index}]"
        if not isinstance(one, EventTransmitter):
            problems.add(where, f"{show(one)} is not an EventTransmitter.", "Pass EventTransmitter(issuer=…, …).")
            continue
        found = None if resource is None else _compile(one, trust, resource, where, problems, allow_http=allow_http)
        if found is not None and found.issuer in compiled:
            fix = "Put its audiences and client_ids into one EventTransmitter."
            problems.add(where, f"The transmitter {show(found.issuer)} is listed more than once.", fix)
        elif found is not None:
            compiled[found.issuer] = found
    return tuple(compiled.values())


def _compile(
    one: EventTransmitter,
    trust: Sequence[IssuerSet],
    resource: Url,
    where: str,
    problems: Problems,
    *,
    allow_http: bool,
) -> CompiledTransmitter | None:
    audiences = problems.strings(one.audiences, f"{where}.audiences")
    clients = problems.strings(one.client_ids, f"{where}.client_ids")
    if not audiences and not clients:
        fix = "Set audiences for security events, client_ids for back-channel logout, or both."
        problems.add(where, "No event of the transmitter would be accepted.", fix)
    named = tuple(dict.fromkeys(problems.strings(one.token_issuers, f"{where}.token_issuers"))) or (one.issuer,)
    if all(each.others is None for each in trust):
        known = {issuer.rules.issuer for each in trust for issuer in (*each.named, *each.preloaded)}
        for issuer in named:
            if issuer not in known:
                fix = "Set token_issuers to the issuers whose tokens the transmitter may revoke."
                problems.add(f"{where}.token_issuers", f"No resource trusts {show(issuer)}.", fix)
    for name in ("email_claim", "authorization", "verification_state", "poll_token"):
        value: object = getattr(one, name)
        if value is not None and (not isinstance(value, str) or not value):
            problems.add(f"{where}.{name}", "The value is not a non-empty string.", "Set a string, or remove it.")
    check_url(one.poll_endpoint, f"{where}.poll_endpoint", problems, allow_http=allow_http)
    if one.poll_token is not None and one.poll_endpoint is None:
        problems.add(f"{where}.poll_token", "It has no effect without poll_endpoint.", "Set poll_endpoint.")
    trusted = compile_issuer(
        AuthServerConfig(
            issuer=one.issuer,
            metadata_url=one.metadata_url,
            jwks_uri=one.jwks_uri,
            jwks=one.jwks,
            algorithms=one.algorithms,
            leeway=one.leeway,
        ),
        IssuerContext(resource=resource, allow_http=allow_http),
        where,
        problems,
    )
    if trusted is None:
        return None
    return CompiledTransmitter(
        settings=one,
        trusted=trusted,
        audiences=frozenset(audiences),
        clients=frozenset(clients),
        token_issuers=named,
    )
