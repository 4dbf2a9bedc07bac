"""`Protection`: a compiled configuration with the objects that wait, and the builder that puts the two together."""

# pyright: reportTypedDictNotRequiredAccess=false
# `check_options` returns every option.

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from asgi_mcp_auth._asgi.authorizer import Authorizer
from asgi_mcp_auth._asgi.mount_check import Warnings
from asgi_mcp_auth._compat.servers import MODULES
from asgi_mcp_auth._keys.http import Fetcher
from asgi_mcp_auth._keys.key_cache import KeyCache, KeyDirectory
from asgi_mcp_auth._keys.registry import Issuers, KeySets
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._option_checks import IN_STORE
from asgi_mcp_auth._options import MCPAuthOptions
from asgi_mcp_auth._policy.api_key_file import API_KEY_ISSUER
from asgi_mcp_auth._policy.compile import CompiledConfig, CompiledResource, compile_config
from asgi_mcp_auth._policy.problems import Problems
from asgi_mcp_auth._policy.verifiers import CompiledChoice, CompiledIntrospection
from asgi_mcp_auth._signals.poller import Poller
from asgi_mcp_auth._signals.receiver import Receiver
from asgi_mcp_auth._signals.revocations import Revocations
from asgi_mcp_auth._telemetry.audit import AuditLog
from asgi_mcp_auth._telemetry.mistakes import MistakeLog
from asgi_mcp_auth._telemetry.reporting import Reporter
from asgi_mcp_auth._upstream.exchange import Exchanger
from asgi_mcp_auth._verify.api_keys import ApiKeyVerifier
from asgi_mcp_auth._verify.authenticator import Authenticator
from asgi_mcp_auth._verify.choice import Choice
from asgi_mcp_auth._verify.dpop import DPoP, KeyLimits
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.introspection_verifier import IntrospectionVerifier
from asgi_mcp_auth._verify.jwt import JWTVerifier
from asgi_mcp_auth._verify.sender_constraint import CertificateBinding, SenderConstraint
from asgi_mcp_auth._verify.shared_answers import SharedAnswers
from asgi_mcp_auth._verify.verifier import Verifier
from asgi_mcp_auth.decisions import Observer, RefusalLog
from asgi_mcp_auth.stores import MemoryStore, Store
from asgi_mcp_auth.stores._contract import Use
from asgi_mcp_auth.stores._shared import SharedStore, StoreUse

__all__ = ("MakeVerifier", "Protection", "ProtectionBuilder")

logger = logging.getLogger("asgi_mcp_auth")

MAX_LOCAL = 1_000_000
"""Proofs that a process without a store remembers: 1,600 requests a second for 600 seconds."""

MakeVerifier = Callable[[CompiledResource], Verifier]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """Everything that protected apps share.

    Attributes:
        config: The compiled configuration.
        authenticators: For each resource, from a request to the caller's identity.
        authorizers: For each resource, from an identity and a request to an admission.
        key_sets: The key sets of the issuers.
        republished: The issuer whose metadata is served at the resource's own well-known path.
        clock: Seconds since the epoch.
        reporter: Reports each decision to the refusal log, the audit log and the observers.
        mistakes: Logs mistakes that lose the credential on the way.
        refusal_log: Logs refusals.
        hooks: Calls the user's functions, and logs their failures.
        warnings: Logs each warning once.
        store: The store that processes share; None if there is none.
        revocations: The revocations that the process knows; None if revocation is off.
        receiver: Receives security events; None without `event_transmitters`.
        poller: Fetches security events in the background; None without `poll_endpoint`.
        exchanger: Exchanges callers' tokens; None without `token_exchange`.
        post_stream_grace: Seconds that an event stream which answers a POST may outlive its token.
        identify_public: Whether a token that is sent to a public path is verified.
        websockets: Whether websockets are accepted.
        expose_token: Whether the app sees the raw token.
        reject_query_token: Whether a token in the query is answered 400.
        warm_up_timeout: How long the app's start-up waits for the keys of named issuers; None to start at once.
        exit_when_cold: Whether the start-up fails if they are missing then.
        show_error_details: Whether callers see what only the operator should see. For debugging.
    """

    config: CompiledConfig
    authenticators: tuple[Authenticator, ...]
    authorizers: tuple[Authorizer, ...]
    key_sets: KeySets
    republished: RemoteJWKS | None
    clock: Callable[[], float]
    reporter: Reporter
    mistakes: MistakeLog
    refusal_log: RefusalLog
    hooks: HookCaller
    warnings: Warnings
    store: SharedStore | None
    revocations: Revocations | None
    receiver: Receiver | None
    poller: Poller | None
    exchanger: Exchanger | None
    post_stream_grace: float
    identify_public: bool
    websockets: bool
    expose_token: bool
    reject_query_token: bool
    warm_up_timeout: float | None
    exit_when_cold: bool
    show_error_details: bool = False

    def may_issue(self, issuer: str) -> bool:
        """Return whether accepted tokens may be of this issuer; True if no list decides."""
        for resource, authenticator in zip(self.config.resources, self.authenticators, strict=True):
            trust = resource.trust
            named = {one.rules.issuer for one in (*trust.named, *trust.preloaded)}
            if trust.others is not None or not authenticator.is_built_in or issuer in named:
                return issuer != API_KEY_ISSUER
        return False

    def unreachable(self) -> tuple[str, ...]:
        """Return the issuers whose introspection endpoint cannot be called now, because the last calls failed."""
        introspections = [authenticator.introspection for authenticator in self.authenticators]
        failing = {found.rules.issuer for found in introspections if found is not None and not found.is_available}
        return tuple(sorted(failing))

    async def missing(self) -> tuple[str, ...]:
        """Return what does not work: the named issuers whose tokens cannot be verified now, and the shared store.

        Refresh keys that are not fresh, and ask the store if no request has just done so.
        """
        await self.probe_store()
        if self.revocations is not None and not self.revocations.is_current():
            await self.revocations.catch_up()
        store = () if self.is_store_ready else ("the store",)
        return tuple(dict.fromkeys((*self.key_sets.missing(), *self.unreachable(), *store)))

    @property
    def is_store_ready(self) -> bool:
        """Whether requests can be served with what the store has answered."""
        if self.revocations is not None and not self.revocations.is_usable:
            return False
        return self.store is None or self.store.is_ready

    async def probe_store(self) -> None:
        """Find out whether the shared store works, within its time limit."""
        if self.store is not None:
            await self.store.probe()

    async def close_store(self) -> None:
        """Close the connections of the shared store."""
        if self.store is not None:
            await self.store.close()

    def log_start(self) -> None:
        """Log what is protected, with which keys, and what is public: one line, however many apps there are."""
        if self.warnings.is_first("start"):
            keys = {issuer.issuer: len(issuer.keys) for issuer in self.key_sets.status()}
            logger.info(
                "Protecting %s; keys: %s; public paths: %s; public methods: %s",
                ", ".join(resource.identifier for resource in self.config.resources),
                ", ".join(f"{issuer} {count}" for issuer, count in keys.items()) or "none",
                ", ".join(map(str, self.config.paths.public)) or "none",
                ", ".join(sorted({m for one in self.config.resources for m in one.policy.operations.public_methods}))
                or "none",
            )
        if self.reporter.audit_is_dropped:
            self.warnings.warn_once(
                "audit= writes to the logger asgi_mcp_auth.audit, which drops records of level INFO. Set its level to "
                "INFO and give it a handler, or pass audit_sink=."
            )


def _make_key_cache(options: MCPAuthOptions, store: SharedStore | None) -> KeyCache | None:
    """Return the cache of keys; None if there is none, or it cannot be made, which `check_options` reports."""
    path, secret = unchecked(options["key_cache"]), unchecked(options["shared_secret"])
    if not isinstance(path, str) or not isinstance(secret, str):
        return None
    if path != IN_STORE:
        return KeyCache(secret, KeyDirectory(path))
    return None if store is None else KeyCache(secret, StoreUse(store, Use.KEYS))


def _make_revocations(options: MCPAuthOptions, store: SharedStore | None) -> Revocations | None:
    """Return the revocations; None if they are off, or cannot be kept, which `check_options` reports."""
    if options["revocation"] is not True or store is None or not store.has_logs:
        return None
    return Revocations(
        StoreUse(store, Use.REVOCATION),
        clock=options["clock"],
        max_token_lifetime=options["max_token_lifetime"],
        stale_if_error=options["revocation_stale_if_error"],
    )


@dataclass(frozen=True, slots=True)
class ProtectionBuilder:
    """Builds protections from configurations that share key sets, the refusal log and warnings.

    Attributes with the names of those of `Protection` are the same objects.

    Attributes:
        options: The options of `MCPAuth`, complete.
        local_store: `store`, or a store in this process if there is none.
        key_limits: Limits what one DPoP key can record in that store.
        loaded_modules: The server packages that the process has imported, which decide the defaults of `proxies`.
        observers: Called with each decision.
    """

    options: MCPAuthOptions
    key_sets: KeySets
    refusal_log: RefusalLog
    hooks: HookCaller
    warnings: Warnings
    store: SharedStore | None
    local_store: SharedStore
    key_limits: KeyLimits
    revocations: Revocations | None
    loaded_modules: frozenset[str]
    observers: tuple[Observer, ...]

    @classmethod
    def of(cls, options: MCPAuthOptions) -> ProtectionBuilder:
        """Return a builder with key sets of its own."""
        store, given, room = None, options["store"], MAX_LOCAL
        if isinstance(given, Store):  # `check_options` reports another type
            store = SharedStore(given, None if type(given) is MemoryStore else options["store_timeout"])
        if isinstance(given, MemoryStore):
            room = given.max_entries
        key_sets = KeySets(
            Fetcher(options["http_client"]),
            clock=options["clock"],
            allow_http=options["dangerously_allow_http"],
            allow_private=options["dangerously_allow_private_addresses"],
            unproven_fetches_per_minute=options["unproven_fetches_per_minute"],
            cache=_make_key_cache(options, store),
        )
        hooks = HookCaller(options["hook_timeout"], options["clock"])
        modules = frozenset(MODULES & sys.modules.keys())
        is_list = isinstance(unchecked(options["on_decision"]), Sequence)  # `compile` reports another type
        observers = tuple(options["on_decision"]) if is_list else ()
        if options["telemetry"] is True:
            from asgi_mcp_auth._telemetry.otel import OpenTelemetry  # noqa: PLC0415 - an optional package

            observers = (*observers, OpenTelemetry(key_sets.status))
        return cls(
            options=options,
            key_sets=key_sets,
            refusal_log=RefusalLog(options["clock"]),
            hooks=hooks,
            warnings=Warnings(),
            store=store,
            local_store=SharedStore(MemoryStore(MAX_LOCAL), None) if store is None else store,
            key_limits=KeyLimits(room),
            revocations=_make_revocations(options, store),
            loaded_modules=modules,
            observers=observers,
        )

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds since the epoch."""
        return self.options["clock"]

    def narrowed(self) -> ProtectionBuilder:
        """Return a builder for a single mounted app, which keeps the token and serves no metadata documents."""
        changed: MCPAuthOptions = {"expose_token": True, "republish_server_metadata": False, "token_exchange": ()}
        return replace(self, options={**self.options, **changed})

    def compile(self, protected_resources: object, problems: Problems) -> CompiledConfig:
        """Compile a configuration. Pure.

        Raises:
            ConfigurationError: With every problem found.
        """
        return compile_config(protected_resources, self.options, problems, loaded_modules=self.loaded_modules)

    def build(
        self, config: CompiledConfig, make_verifier: MakeVerifier | None = None, *, show_error_details: bool = False
    ) -> Protection:
        """Build the protection; `make_verifier` replaces the verifiers of the options."""
        options, republished = self.options, None
        if config.republishes:
            republished = self.key_sets.named(config.resources[0].trust.named[0])
        make = make_verifier or self._make_verifier
        receiver = self._make_receiver(config)
        authenticators = tuple(
            Authenticator(
                resource.schemes,
                make(resource),
                self.hooks,
                options["is_revoked"],
                self._make_sender_constraint(resource),
                self.revocations,
            )
            for resource in config.resources
        )
        exchanger = self._make_exchanger(config)
        if self.revocations is not None:
            self.revocations.on_changed += [one.remove_subject for one in authenticators]
            self.revocations.on_changed += [] if exchanger is None else [exchanger.remove_subject]
        return Protection(
            config=config,
            authenticators=authenticators,
            authorizers=tuple(map(self._make_authorizer, config.resources)),
            key_sets=self.key_sets,
            republished=republished,
            clock=options["clock"],
            reporter=Reporter(self.observers, self.refusal_log, self._make_audit(), self.hooks, options["clock"]),
            mistakes=MistakeLog(options["clock"]),
            refusal_log=self.refusal_log,
            hooks=self.hooks,
            warnings=self.warnings,
            store=self.store,
            revocations=self.revocations,
            receiver=receiver,
            poller=self._make_poller(receiver),
            exchanger=exchanger,
            post_stream_grace=options["post_stream_grace"],
            identify_public=options["identify_public"],
            websockets=options["websockets"],
            expose_token=options["expose_token"],
            reject_query_token=options["reject_query_token"],
            warm_up_timeout=options["warm_up_timeout"] if options["require_warm_up"] else None,
            exit_when_cold=options["dangerously_exit_when_cold"],
            show_error_details=show_error_details,
        )

    def _make_verifier(self, resource: CompiledResource) -> Verifier:
        verifier = resource.verifier
        if verifier is None:
            return self.make_jwt_verifier(resource)
        if not isinstance(verifier, CompiledChoice):
            return cast("Verifier", verifier)
        jwt = self.make_jwt_verifier(resource) if verifier.jwt is True else verifier.jwt or None
        options, keys = self.options, None
        if verifier.keys is not None:
            clock, identifier = options["clock"], resource.identifier
            keys = ApiKeyVerifier(verifier.keys, identifier, clock=clock, hooks=self.hooks)
        if not isinstance(verifier.opaque, CompiledIntrospection):
            return Choice(jwt, verifier.opaque, keys)
        compiled = verifier.opaque
        introspection = IntrospectionVerifier(
            compiled,
            self.key_sets.asked(compiled.trusted, needs_keys=compiled.settings.signed),
            clock=options["clock"],
            cache_bytes=options["token_cache_bytes"],
            expose_token=options["expose_token"],
            hooks=self.hooks,
            shared=self._make_shared_answers(compiled, resource),
            revocations=self.revocations,
        )
        return Choice(jwt, introspection, keys, asks_always=compiled.settings.always)

    def _make_shared_answers(self, compiled: CompiledIntrospection, resource: CompiledResource) -> SharedAnswers | None:
        secret = unchecked(self.options["shared_secret"])
        if not compiled.settings.shared_cache or self.store is None or not isinstance(secret, str):
            return None
        client_id = compiled.authentication.client_id
        entries = StoreUse(self.store, Use.INTROSPECTION)
        return SharedAnswers(secret, entries, compiled.trusted.identifier, client_id, resource.identifier)

    def make_jwt_verifier(self, resource: CompiledResource) -> JWTVerifier:
        """Return a new verifier of the JWTs that the resource's issuers sign."""
        options, pool_size = self.options, self.options["issuer_pool_size"]
        return JWTVerifier(
            Issuers(resource.trust, self.key_sets, clock=options["clock"], pool_size=pool_size),
            clock=options["clock"],
            cache_size=options["token_cache_size"],
            cache_bytes=options["token_cache_bytes"],
            expose_token=options["expose_token"],
            hooks=self.hooks,
        )

    def _make_sender_constraint(self, resource: CompiledResource) -> SenderConstraint | None:
        senders, dpop, certificates = resource.senders, None, None
        if not senders.methods:
            return None
        if senders.dpop is not None:
            clock, replays = self.options["clock"], StoreUse(self.local_store, Use.REPLAY)
            limits, hooks, origin = self.key_limits, self.hooks, resource.url.origin
            dpop = DPoP(senders.dpop, origin, clock=clock, replays=replays, limits=limits, hooks=hooks)
        if senders.certificates is not None:
            certificates = CertificateBinding(senders.certificates)
        return SenderConstraint(senders.methods, dpop=dpop, certificates=certificates)

    def _make_receiver(self, config: CompiledConfig) -> Receiver | None:
        if not config.transmitters or self.revocations is None or self.store is None:
            return None
        return Receiver(
            config.transmitters,
            lambda one: self.key_sets.preloaded(one.trusted),
            revocations=self.revocations,
            use=StoreUse(self.store, Use.REVOCATION),
            clock=self.clock,
            hooks=self.hooks,
            on_event=self.options["on_security_event"],
        )

    def _make_poller(self, receiver: Receiver | None) -> Poller | None:
        if receiver is None or not receiver.polled or self.store is None:
            return None
        return Poller(receiver, StoreUse(self.store, Use.REVOCATION), self.clock)

    def _make_exchanger(self, config: CompiledConfig) -> Exchanger | None:
        if not config.exchanges:
            return None
        return Exchanger(
            config.exchanges,
            lambda one: self.key_sets.asked(one.trusted, needs_keys=False),
            clock=self.clock,
            hooks=self.hooks,
            is_revoked=self.options["is_revoked"],
            revocations=self.revocations,
        )

    def _make_authorizer(self, resource: CompiledResource) -> Authorizer:
        options, sessions = self.options, None
        if options["session_binding"] and self.store is not None:
            sessions = StoreUse(self.store, Use.SESSION)
        return Authorizer(
            resource,
            hooks=self.hooks,
            authorize=options["authorize"],
            sessions=sessions,
            clock=options["clock"],
            max_body_size=options["max_body_size"],
            observed=bool(self.observers or options["audit"]),
            reads_all=bool(options["audit_operations"]),
        )

    def _make_audit(self) -> AuditLog | None:
        mode = self.options["audit"]
        if mode is None:
            return None
        sink, operations = self.options["audit_sink"], self.options["audit_operations"]
        return AuditLog(sink, operations, is_required=mode == "required")
