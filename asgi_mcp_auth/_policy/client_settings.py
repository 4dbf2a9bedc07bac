"""The settings of a client of an authorization server: credentials, and limits of its calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from asgi_mcp_auth._oauth.client_authentication import ClientAuthentication
from asgi_mcp_auth._oauth.json_types import is_number
from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth.config import AssertionAudience, Introspection, IntrospectionMethod, TokenExchange

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPrivateKeys

__all__ = ("ENDPOINT_RANGES", "check_values", "compile_credentials")

SECRET_METHODS = ("client_secret_basic", "client_secret_post")
AUDIENCES = get_args(AssertionAudience)
METHOD_OF: Mapping[str, IntrospectionMethod] = {
    "client_secret": "client_secret_basic",
    "private_key": "private_key_jwt",
    "bearer_token": "bearer",
}
ENDPOINT_RANGES: Mapping[str, tuple[float, float]] = {
    "timeout": (0.1, 10.0),
    "cache_size": (0, 1_000_000),
    "max_concurrency": (1, 1000),
    "max_queue": (0, 10_000),
}
COUNTS = ("cache_size", "max_concurrency", "max_queue")

ClientSettings = Introspection | TokenExchange


def check_values(
    settings: object, ranges: Mapping[str, tuple[float, float]], flags: Sequence[str], where: str, problems: Problems
) -> None:
    """Add a problem for each number that is not in its range, and for each flag that is not a bool."""
    for name, (least, most) in ranges.items():
        value: object = getattr(settings, name)
        if not is_number(value) or (name in COUNTS and not isinstance(value, int)) or not least <= value <= most:
            what = f"{show(value)} is not in {least:g} … {most:g}."
            problems.add(f"{where}.{name}", what, "Set a number in this range.")
    for name in flags:
        if not isinstance(getattr(settings, name), bool):
            problems.add(f"{where}.{name}", f"{show(getattr(settings, name))} is not a bool.", "Set True or False.")


def compile_credentials(
    settings: ClientSettings, secrets: Sequence[str], where: str, problems: Problems
) -> ClientAuthentication | None:
    """Return the credentials for an endpoint: exactly one of the settings `secrets` is set.

    Every problem is added to `problems`. No message contains a secret.
    """
    before = len(problems.found)
    given = [name for name in secrets if getattr(settings, name) is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} are set." if given else "There are no credentials for the endpoint."
        problems.add(where, what, f"Set exactly one of {', '.join(secrets)}.")
        return None
    secret: object = getattr(settings, given[0])
    if not isinstance(secret, str) or not secret.strip():
        problems.add(f"{where}.{given[0]}", "The value is empty or not a string.", "Set the secret.")
    elif given[0] == "bearer_token" and not (secret.isascii() and secret.isprintable() and " " not in secret):
        problems.add(f"{where}.bearer_token", "The value is not a token.", "Set the token without its scheme.")
    if given != ["bearer_token"] and not (isinstance(settings.client_id, str) and settings.client_id):
        problems.add(f"{where}.client_id", "The client id is missing.", "Set the client id of this resource.")
    method = settings.auth_method or (None if given == ["client_secret"] else METHOD_OF[given[0]])
    fitting = SECRET_METHODS if given == ["client_secret"] else (METHOD_OF[given[0]],)
    if method is not None and method not in fitting:
        fix = f"Use {' or '.join(fitting)}, or remove it."
        problems.add(f"{where}.auth_method", f"{show(method)} does not fit {given[0]}.", fix)
    if settings.assertion_audience not in AUDIENCES:
        what = f"{show(settings.assertion_audience)} is not an audience of assertions."
        problems.add(f"{where}.assertion_audience", what, f"Choose from {', '.join(AUDIENCES)}.")
    key = None if given != ["private_key"] else _load_key(settings, where, problems)
    if len(problems.found) > before:
        return None
    return ClientAuthentication(
        method=method,
        client_id=settings.client_id or "",
        secret="" if key is not None else str(secret),
        private_key=key or "",
        key_id=settings.key_id,
        algorithm=settings.algorithm,
        audience=settings.assertion_audience,
    )


def _load_key(settings: ClientSettings, where: str, problems: Problems) -> AllowedPrivateKeys | None:
    """Return the private key, loaded and tried; None with a problem if it does not fit the algorithm."""
    known = ALGORITHMS.get(settings.algorithm)
    if known is None:
        fix = f"Choose from {', '.join(ALGORITHMS)}."
        problems.add(f"{where}.algorithm", f"{show(settings.algorithm)} is not a signature algorithm.", fix)
        return None
    try:
        key: AllowedPrivateKeys = known.signature.prepare_key(str(settings.private_key))
        known.signature.sign(b"", key)
    except Exception:  # noqa: BLE001 - a parser of keys; its text may quote the key
        fix = f"Set a private key in PEM that fits algorithm={settings.algorithm}."
        problems.add(f"{where}.private_key", "The private key cannot be used.", fix)
        return None
    return key
