"""The checks of the options of `MCPAuth`: of one value, and of values that only make sense together.

A value may come from a file or from the environment, so no value is assumed to have its declared type.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from asgi_mcp_auth._keys.key_cache import unfit_directory
from asgi_mcp_auth._oauth.json_types import is_number
from asgi_mcp_auth._policy.problems import Problems, as_list, show
from asgi_mcp_auth._policy.verifiers import check_verifier
from asgi_mcp_auth.stores import LogStore, Store

__all__ = (
    "IN_STORE",
    "Check",
    "a_bool",
    "a_hook",
    "a_list_of_observers",
    "a_list_of_operations",
    "a_revocation_hook",
    "a_secret",
    "a_store",
    "a_verifier",
    "an_audit_mode",
    "an_audit_sink",
    "anything",
    "at_least",
    "check_together",
    "seconds",
    "telemetry_that_is_installed",
)

MIN_SECRET = 32
SAME_SECRET = "Set shared_secret to the same secret in all processes."

IN_STORE = "store"
"""The value of `key_cache` for the store instead of a directory."""

STORE_USERS = ("session_binding", "revocation")
"""The options that need `store`. DPoP uses it to remember proofs, and remembers them in the process without one."""

Check = Callable[[object, str, Problems], None]


def anything(value: object, name: str, problems: Problems) -> None:
    """Accept any value: the compiler of the configuration checks it."""
    del value, name, problems


def a_bool(value: object, name: str, problems: Problems) -> None:
    """Accept True and False."""
    if not isinstance(value, bool):
        problems.add(name, f"{show(value)} is not a bool.", "Pass True or False.")


def at_least(minimum: int, unit: str) -> Check:
    """Accept an integer that is not smaller."""

    def check(value: object, name: str, problems: Problems) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            problems.add(name, f"{show(value)} is not a number of {unit}.", f"Pass {minimum} or more.")

    return check


def seconds(minimum: float, maximum: float) -> Check:
    """Accept a number of seconds in a range."""

    def check(value: object, name: str, problems: Problems) -> None:
        if not is_number(value) or not minimum <= value <= maximum:
            fix = f"Pass a number of seconds, {minimum:g} to {maximum:g}."
            problems.add(name, f"{show(value)} is not in {minimum:g} … {maximum:g}.", fix)

    return check


def a_hook(expected: str) -> Check:
    """Accept a callable or None."""

    def check(value: object, name: str, problems: Problems) -> None:
        if value is not None and not callable(value):
            problems.add(name, f"{show(value)} cannot be called.", f"Pass {expected}.")

    return check


def a_revocation_hook(value: object, name: str, problems: Problems) -> None:
    """Accept a callable from an `AuthInfo` to a bool, or None."""
    a_hook("a callable from an AuthInfo to a bool")(value, name, problems)
    if isinstance(value, type):
        problems.add(name, f"{value.__name__} is a class.", "Pass an instance.")


def a_verifier(value: object, name: str, problems: Problems) -> None:
    """Accept a `Choose`, a verifier, or None."""
    if value is not None:
        check_verifier(value, name, problems)


def a_store(value: object, name: str, problems: Problems) -> None:
    """Accept a store, or None."""
    if value is not None and (isinstance(value, type) or not isinstance(value, Store)):
        fix = "Pass a MemoryStore(), or an object with the methods of asgi_mcp_auth.Store."
        problems.add(name, f"{show(value)} is not a Store.", fix)


def a_secret(value: object, name: str, problems: Problems) -> None:
    """Accept a text of at least `MIN_SECRET` characters, or None."""
    if value is not None and (not isinstance(value, str) or len(value) < MIN_SECRET):
        fix = f"Pass {MIN_SECRET} random characters or more, for example of secrets.token_urlsafe(32)."
        problems.add(name, "The value is not a secret of sufficient length.", fix)


def a_list_of_observers(value: object, name: str, problems: Problems) -> None:
    """Accept a list of plain callables."""
    listed = as_list(value)
    if listed is None or not all(map(callable, listed)):
        problems.add(name, f"{show(value)} is not a list of callables.", "Pass [observer].")
    elif any(inspect.iscoroutinefunction(observer) for observer in listed):
        fix = "Pass a plain function, for example one that puts the decision into a queue."
        problems.add(name, "An observer is async and would never be awaited.", fix)


def telemetry_that_is_installed(value: object, name: str, problems: Problems) -> None:
    """Accept True and False; True only with the OpenTelemetry API."""
    a_bool(value, name, problems)
    if value is True and find_spec("opentelemetry") is None:
        problems.add(name, "OpenTelemetry is not installed.", "pip install '.[otel]'")


def an_audit_mode(value: object, name: str, problems: Problems) -> None:
    """Accept a mode of the audit log, or None."""
    if value not in (None, "best_effort", "required"):
        problems.add(name, f"{show(value)} is not an audit mode.", 'Pass "best_effort" or "required".')


def a_list_of_operations(value: object, name: str, problems: Problems) -> None:
    """Accept a list of non-empty strings."""
    listed = as_list(value)
    if listed is None or not all(isinstance(pattern, str) and pattern for pattern in listed):
        problems.add(name, f"{show(value)} is not a list of operations.", 'Pass ["tools/call purge*"], or ["*"].')


def an_audit_sink(value: object, name: str, problems: Problems) -> None:
    """Accept a plain callable, or None."""
    a_hook("a callable that writes one line of text")(value, name, problems)
    if inspect.iscoroutinefunction(value):
        problems.add(name, "The sink is async and would never be awaited.", "Pass a plain function.")


def check_together(options: Mapping[str, object], protected_resources: object, problems: Problems) -> None:
    """Report options that have no effect, or cannot work, with the others."""
    if options["audit"] == "required" and options["audit_sink"] is None:
        fix = "Set audit_sink to a function that raises an exception if it cannot write."
        problems.add("audit_sink", "Logging handlers swallow their errors, so required needs a sink.", fix)
    if options["audit"] is None and (options["audit_sink"] is not None or options["audit_operations"]):
        fix = 'Set audit="best_effort", or remove them.'
        problems.add("audit", "audit_sink and audit_operations have no effect without audit.", fix)
    if options["dangerously_exit_when_cold"] is True and options["require_warm_up"] is False:
        fix = "Set require_warm_up=True too, or remove it."
        problems.add("dangerously_exit_when_cold", "It has no effect without require_warm_up=True.", fix)
    if getattr(options["dpop_settings"], "require_nonce", False) is True and options["shared_secret"] is None:
        problems.add("dpop_settings.require_nonce", "Nonces cannot be made without shared_secret.", SAME_SECRET)
    if options["event_transmitters"] and not options["revocation"]:
        problems.add("event_transmitters", "Events have no effect without revocation.", "Set revocation=True.")
    if options["on_security_event"] is not None and not options["event_transmitters"]:
        fix = "Set event_transmitters, or remove it."
        problems.add("on_security_event", "It is never called without event_transmitters.", fix)
    _check_key_cache(options, problems)
    _check_store(options, protected_resources, problems)


def _check_key_cache(options: Mapping[str, object], problems: Problems) -> None:
    """Report a cache of keys whose entries could not be signed, or that other users could write to."""
    cache = options["key_cache"]
    if cache is None:
        return
    if not isinstance(cache, str) or not cache:
        problems.add("key_cache", f"{show(cache)} is not a directory.", 'Pass "store", or the path of a directory.')
    elif cache != IN_STORE and (why := unfit_directory(Path(cache))) is not None:
        fix = f"Create it for the user that runs the server: install -d -m 700 {cache}"
        problems.add("key_cache", f"{show(cache)} cannot be used: {why}.", fix)
    if options["shared_secret"] is None:
        problems.add("key_cache", "Without shared_secret, its entries cannot be signed.", SAME_SECRET)


def _check_store(options: Mapping[str, object], protected_resources: object, problems: Problems) -> None:
    """Report options that need a store, and a store that nothing uses."""
    users = [name for name in STORE_USERS if options[name]]
    if options["key_cache"] == IN_STORE:
        users.append("key_cache")
    resources = as_list(protected_resources) or [protected_resources]
    verifiers = [options["verifier"], *(getattr(resource, "verifier", None) for resource in resources)]
    if any(getattr(getattr(verifier, "opaque", None), "shared_cache", False) is True for verifier in verifiers):
        users.append("shared_cache")
        if options["shared_secret"] is None:
            problems.add(
                "verifier.opaque.shared_cache", "Without shared_secret, answers cannot be encrypted.", SAME_SECRET
            )
    if options["store"] is None and users:
        fix = "Set store= to a store that all processes share; MemoryStore() is for a single process."
        problems.add("store", f"{' and '.join(users)} cannot be used without a store.", fix)
    if options["revocation"] and isinstance(options["store"], Store) and not isinstance(options["store"], LogStore):
        fix = "Add append and read_from (see LogStore), or use a RedisStore."
        problems.add("store", "Revocation needs a store that has logs.", fix)
    modes = [options["dpop"], *(getattr(resource, "dpop", None) for resource in resources)]
    if options["store"] is not None and not users and all(mode in (None, "off") for mode in modes):
        problems.add("store", "Nothing uses the store.", f"Set {' or '.join(STORE_USERS)} or dpop, or remove it.")
