"""The compiler of `Choose`: which verifier is asked about which shape of credential. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from asgi_mcp_auth._oauth.client_authentication import ClientAuthentication
from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._oauth.origin import is_free_field
from asgi_mcp_auth._policy.client_settings import ENDPOINT_RANGES, check_values, compile_credentials
from asgi_mcp_auth._policy.issuers import IssuerSet
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._policy.trusted_issuer import TrustedIssuer, check_url
from asgi_mcp_auth.config import ApiKeys, Choose, Introspection
from asgi_mcp_auth.stores import Store

__all__ = ("CompiledChoice", "CompiledIntrospection", "check_verifier", "compile_choice", "key_field")

MIN_PEPPER = 16
_PREFIX = re.compile(r"[A-Za-z0-9_-]{3,32}")
RANGES = {"ttl": (0.0, 300.0), "inactive_ttl": (0.0, 60.0), **ENDPOINT_RANGES}
FLAGS = ("signed", "issuer_checks_audience", "always", "shared_cache")
SECRETS = ("client_secret", "private_key", "bearer_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledIntrospection:
    """The introspection of the tokens of one issuer for one resource."""

    settings: Introspection
    trusted: TrustedIssuer
    authentication: ClientAuthentication


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledChoice:
    """The verifiers of one resource by the shape of the credential.

    Attributes:
        jwt: True for the verification of JWTs, or a verifier of the user's own; False if a JWS counts as opaque.
        opaque: The verifier of other tokens: compiled introspection, or a verifier of the user's own; None to reject.
        keys: The API keys; None if none are accepted.
    """

    jwt: Any
    opaque: Any
    keys: ApiKeys | None


def key_field(verifier: object) -> str | None:
    """Return the field for API keys of a compiled verifier, in lower case, if there is one."""
    keys = verifier.keys if isinstance(verifier, CompiledChoice) else None
    return None if keys is None or keys.header is None else keys.header.lower()


def compile_choice(
    choice: Choose, trust: IssuerSet, where: str, problems: Problems, *, allow_http: bool
) -> CompiledChoice:
    """Return the choice compiled. Every problem is added to `problems`."""
    opaque: object = choice.opaque
    if isinstance(choice.opaque, Introspection):
        opaque = _introspection(choice.opaque, trust, f"{where}.opaque", problems, allow_http=allow_http)
        if choice.opaque.always and choice.jwt is not True:
            problems.add(f"{where}.opaque.always", "It has no effect without jwt=True.", "Set always=False.")
    elif opaque is not None and not _is_verifier(opaque):
        fix = "Pass Introspection(...), or an object with an async method verify(credential, request)."
        problems.add(f"{where}.opaque", f"{show(opaque)} is not a verifier.", fix)
    if not isinstance(choice.jwt, bool) and not _is_verifier(choice.jwt):
        fix = "Pass True, False, or an object with an async method verify(credential, request)."
        problems.add(f"{where}.jwt", f"{show(choice.jwt)} is not a verifier.", fix)
    if choice.jwt is False and opaque is None and choice.keys is None:
        problems.add(where, "No credential can be accepted.", "Set jwt=True, or opaque=Introspection(...).")
    if choice.keys is not None:
        _check_keys(choice.keys, f"{where}.keys", problems)
    return CompiledChoice(jwt=choice.jwt, opaque=opaque, keys=choice.keys)


def _check_keys(keys: object, where: str, problems: Problems) -> None:
    if not isinstance(keys, ApiKeys):
        problems.add(where, f"{show(keys)} is not an ApiKeys.", "Pass ApiKeys(file=...).")
        return
    store: object = keys.store
    if (keys.file is None) is (store is None):
        problems.add(where, "There must be a file or a store, and not both.", "Set file= or store=.")
    if store is not None and not isinstance(store, Store):
        problems.add(f"{where}.store", f"{show(store)} is not a Store.", "Pass a MemoryStore(), or a shared store.")
    if keys.file is not None and not (isinstance(unchecked(keys.file), str) and keys.file):
        problems.add(f"{where}.file", f"{show(keys.file)} is not a path.", "Set the path of the file.")
    if keys.prefix is None and keys.header is None:
        problems.add(where, "No key can be sent.", "Set prefix= or header=.")
    prefix = unchecked(keys.prefix)
    if prefix is not None and not (isinstance(prefix, str) and _PREFIX.fullmatch(prefix) and prefix[:2] != "ey"):
        fix = "Write 3 to 32 letters, digits and '_' or '-', for example 'pat_'."
        problems.add(f"{where}.prefix", f"{show(prefix)} is not a prefix.", fix)
    header = unchecked(keys.header)
    if header is not None and not (isinstance(header, str) and is_free_field(header)):
        fix = "Write the name of a field that nothing else reads, for example 'x-api-key'."
        problems.add(f"{where}.header", f"{show(header)} cannot carry API keys.", fix)
    pepper = unchecked(keys.pepper)
    if pepper is not None and not (isinstance(pepper, str) and len(pepper) >= MIN_PEPPER):
        fix = f"Set at least {MIN_PEPPER} random characters."
        problems.add(f"{where}.pepper", f"The value is not a text of {MIN_PEPPER} characters or more.", fix)


def check_verifier(value: object, where: str, problems: Problems) -> None:
    """Add a problem for a value that is neither a `Choose` nor a verifier."""
    if not isinstance(value, Choose) and not _is_verifier(value):
        fix = "Pass Choose(...), or an object with an async method verify(credential, request)."
        problems.add(where, f"{show(value)} is not a verifier.", fix)


def _is_verifier(value: object) -> bool:
    return callable(getattr(value, "verify", None))


def _introspection(
    settings: Introspection, trust: IssuerSet, where: str, problems: Problems, *, allow_http: bool
) -> CompiledIntrospection | None:
    check_values(settings, RANGES, FLAGS, where, problems)
    check_url(settings.endpoint, f"{where}.endpoint", problems, allow_http=allow_http)
    authentication = compile_credentials(settings, SECRETS, where, problems)
    trusted = _issuer(settings, trust, where, problems)
    if trusted is None or authentication is None:
        return None
    if settings.issuer_checks_audience:
        problems.warn(
            f"{where}.issuer_checks_audience",
            "Tokens without an audience are accepted if the authorization server calls them active.",
            "Remove it if the answers contain aud.",
        )
    return CompiledIntrospection(settings=settings, trusted=trusted, authentication=authentication)


def _issuer(settings: Introspection, trust: IssuerSet, where: str, problems: Problems) -> TrustedIssuer | None:
    """Return the issuer that is asked: the one that is named, or the only one."""
    by_name = {trusted.identifier: trusted for trusted in trust.named}
    if settings.issuer is None and len(by_name) == 1:
        return next(iter(by_name.values()))
    found = None if settings.issuer is None else by_name.get(settings.issuer)
    if found is None and by_name:
        what = "The resource has several issuers." if settings.issuer is None else "The resource does not name it."
        fix = f"Set issuer= to one of {', '.join(map(show, list(by_name)[:8]))}."
        problems.add(f"{where}.issuer", what, fix)
    return found
