"""Checking the options of `MCPAuth` that are no lists of strings: hooks, switches and sizes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from asgi_mcp_auth._policy.problems import Problems, as_list, show

__all__ = ("check_options",)

HOOKS = {
    "metadata_signer": "a callable from the claims to a JWS",
    "authorize": "a callable (auth_info, operation, request) to Allow, Deny or NeedScopes",
    "is_revoked": "a callable from an AuthInfo to a bool",
    "http_client": "a callable that makes a client, httpx.AsyncClient itself for example",
    "clock": "a callable that gives seconds since the epoch",
}
SWITCHES = (
    "websockets",
    "expose_token",
    "reject_query_token",
    "republish_server_metadata",
    "require_warm_up",
    "dangerously_exit_when_cold",
    "dangerously_allow_http",
    "dangerously_allow_private_addresses",
)
MAX_WARM_UP = 3600
SIZES = {
    "max_body_size": (0, "bytes"),
    "token_cache_size": (0, "tokens"),
    "token_cache_bytes": (0, "bytes"),
    "issuer_pool_size": (1, "issuers"),
    "unproven_fetches_per_minute": (4, "fetches"),
}


def check_options(options: Mapping[str, object], problems: Problems) -> None:
    """Every hook can be called, every switch is a bool: what is not found here would be found in a request."""
    for name, wanted in HOOKS.items():
        hook = options[name]
        if hook is not None and not callable(hook):
            problems.add(name, f"{show(hook)} cannot be called.", f"Give {wanted}.")
    if isinstance(options["is_revoked"], type):
        problems.add("is_revoked", "It is a class.", "Give an instance, RevocationList(store) for example.")
    verifier = options["verifier"]
    if verifier is not None and not callable(getattr(verifier, "verify", None)):
        fix = "Give an object with an async method verify(credential, request)."
        problems.add("verifier", f"{show(verifier)} is no verifier.", fix)
    _check_observers(options["on_decision"], problems)
    timeout = options["warm_up_timeout"]
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 1 <= timeout <= MAX_WARM_UP:
        what = f"{show(timeout)} is not a number of seconds from 1 to {MAX_WARM_UP}."
        problems.add("warm_up_timeout", what, "Set a number in this range.")
    if options["dangerously_exit_when_cold"] is True and options["require_warm_up"] is False:
        fix = "Set require_warm_up=True too, or remove it."
        problems.add("dangerously_exit_when_cold", "It has no effect without require_warm_up=True.", fix)
    for name in SWITCHES:
        if not isinstance(options[name], bool):
            problems.add(name, f"{show(options[name])} is not a bool.", "Write True or False.")
    for name, (least, what) in SIZES.items():
        size = options[name]
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            problems.add(name, f"{show(size)} is not a number of {what}.", f"Give {least} or more.")
    store = options["session_store"]
    if store is not None and not all(callable(getattr(store, name, None)) for name in ("get", "put")):
        problems.add("session_store", f"{show(store)} is no Store.", "Give a MemoryStore(), or a shared one.")


def _check_observers(observers: object, problems: Problems) -> None:
    listed = as_list(observers)
    if listed is None or not all(map(callable, listed)):
        problems.add("on_decision", f"{show(observers)} is not a list of callables.", "Write [observer].")
        return
    if any(inspect.iscoroutinefunction(observer) for observer in listed):
        fix = "Give a plain function that hands the decision on, to a queue for example."
        problems.add("on_decision", "An observer is async, and would never be awaited.", fix)
