"""The options of the development authorization server and their validation.

All problems are collected and reported together. By default the server answers only requests from this machine,
because any user name signs in without a password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from asgi_mcp_auth._oauth.grammar import is_scope
from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import Url, is_loopback, parse_url
from asgi_mcp_auth._policy.problems import Problems, as_list, as_mapping, show
from asgi_mcp_auth.dev._clients import AUTH_METHODS, GRANT_TYPES, Client, ClientRules, read_client
from asgi_mcp_auth.dev._dialects import DIALECTS, Dialect
from asgi_mcp_auth.dev._errors import OAuthError
from asgi_mcp_auth.dev._policy import OFFLINE, OPENID, Policy
from asgi_mcp_auth.dev._redirects import scheme_error

__all__ = ("MAX_CODE_SECONDS", "Options", "compile_options")

MAX_CODE_SECONDS: Final = 60  # OAuth 2.1 section 4.1.2 recommends at most ten minutes, requirement AS-18 one minute
MAX_LIFETIME = 400 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Validated options."""

    url: Url
    policy: Policy
    descriptions: Mapping[str, str]
    users: tuple[str, ...]
    algorithms: tuple[str, ...]
    dialect: Dialect
    client_rules: ClientRules
    clients: Mapping[str, Client] = field(repr=False)
    auto_approve: bool
    registration: bool
    documents: bool
    insecure_documents: bool
    oidc: bool
    token_lifetime: int
    refresh_lifetime: int
    code_lifetime: int
    state: Path | None
    remote: bool
    delegation: Mapping[str, tuple[str, ...]] | None


def _check_issuer(issuer: object, problems: Problems, *, remote: bool) -> Url:
    url = parse_url(issuer) if isinstance(issuer, str) else None
    if url is None or url.scheme not in ("http", "https") or url.query is not None or url.fragment is not None:
        fix = "Pass an http or https URL without a query, such as http://127.0.0.1:9000."
        problems.add("issuer", f"{show(issuer)} is not an issuer identifier.", fix)
        return Url("http", "127.0.0.1", 9000, "", None, None)
    if not is_loopback(url.host):
        if url.scheme == "http":
            problems.add("issuer", f"{show(issuer)} is http, but not on loopback.", "Pass a loopback URL.")
        elif not remote:
            fix = (
                "Pass a loopback URL: this server signs users in without passwords. "
                "dangerously_allow_remote=True allows other hosts."
            )
            problems.add("issuer", f"{show(issuer)} is not on loopback.", fix)
    return url


def _check_resources(resources: object, problems: Problems) -> tuple[str, ...]:
    found = problems.strings(resources, "resources")
    for index, resource in enumerate(found):
        why = insecure_url(resource, allow_http=False)
        if why is not None:
            fix = "Pass the URL of the MCP endpoint, https or loopback http."
            problems.add(f"resources[{index}]", f"{show(resource)} {why}.", fix)
    return tuple(dict.fromkeys(found))


def _check_scopes(scopes: object, default: object, problems: Problems) -> tuple[tuple[str, ...], tuple[str, ...]]:
    mapping = as_mapping(scopes)
    found = list(mapping) if mapping is not None else problems.strings(scopes, "scopes")
    bad = [scope for scope in found if not is_scope(scope)]
    if bad:
        fix = 'Remove spaces, quotes and "\\" from the names (RFC 6749 section 3.3).'
        problems.add("scopes", f"{show(bad)} are not scope names.", fix)
    of_resources = [scope for scope in found if scope not in (OFFLINE, OPENID)]
    chosen = of_resources[:1] if default is None else problems.strings(default, "default_scopes")
    missing = [scope for scope in chosen if found and scope not in found]
    if missing:
        problems.add("default_scopes", f"{show(missing)} are not in scopes.", "Add them to scopes.")
    return tuple(dict.fromkeys(found)), tuple(chosen)


def _check_lifetime(value: object, where: str, most: int, problems: Problems) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        problems.add(where, f"{show(value)} is not a lifetime.", f"Pass whole seconds from 1 to {most}.")
        return 1
    return value


def _check_schemes(schemes: object, problems: Problems) -> tuple[str, ...]:
    found = problems.strings(schemes, "redirect_schemes")
    for index, scheme in enumerate(found):
        why = scheme_error(scheme)
        if why is not None:
            fix = "Pass the private-use scheme of an app without a colon, such as cursor."
            problems.add(f"redirect_schemes[{index}]", f"{show(scheme)} {why}.", fix)
    return tuple(dict.fromkeys(found))


def _check_clients(entries: object, rules: ClientRules, problems: Problems) -> dict[str, Client]:
    found: dict[str, Client] = {}
    listed = as_list(entries)
    if listed is None:
        problems.add("clients", f"{show(entries)} is not a list.", "Pass a list of client metadata (RFC 7591).")
    for index, entry in enumerate(listed or ()):
        where = f"clients[{index}]"
        members = as_mapping(entry) or {}
        client_id, secret = members.get("client_id"), members.get("client_secret")
        if not isinstance(client_id, str) or not client_id or "://" in client_id or not client_id.isprintable():
            problems.add(
                where, f"{show(client_id)} is not a client_id.", "Set client_id to a string that is not a URL."
            )
            continue
        default = "none" if secret is None else "client_secret_basic"
        try:
            client = read_client(
                members,
                client_id=client_id,
                rules=rules,
                default_auth_method=default,
                secret=secret if isinstance(secret, str) else None,
                known_grants=GRANT_TYPES,
            )
        except OAuthError as error:
            problems.add(where, error.description, "Pass metadata as for registration (RFC 7591 section 2).")
            continue
        if client.auth_method != "none" and not client.secret:
            fix = "Set client_secret, or set token_endpoint_auth_method to none."
            problems.add(where, f"{client.auth_method} needs a client_secret.", fix)
        found[client_id] = client
    return found


def _check_users(users: object, problems: Problems) -> tuple[str, ...]:
    found = problems.strings(users, "users")
    if not found or not all(user.isprintable() for user in found):
        problems.add("users", f"{show(users)} is not a list of names.", 'Pass at least one name, such as ["alice"].')
    return tuple(dict.fromkeys(found))


def _check_state(path: str | os.PathLike[str] | None, problems: Problems) -> Path | None:
    if path is None:
        return None
    try:
        found = Path(path)
    except TypeError:
        found = Path()
    if not found.name or "\0" in found.name:
        problems.add(
            "state", f"{show(path)} is not the path of a file.", "Pass the path of a file that only you can read."
        )
    return found


def _check_delegation(delegation: object, problems: Problems) -> dict[str, tuple[str, ...]] | None:
    if delegation is None:
        return None
    members = problems.mapping(delegation, "delegation")
    return {client: tuple(problems.strings(named, f"delegation[{client!r}]")) for client, named in members.items()}


def compile_options(
    *,
    issuer: object,
    resources: Sequence[str],
    scopes: Sequence[str] | Mapping[str, str],
    default_scopes: Sequence[str] | None,
    users: Sequence[str],
    algorithms: Sequence[str],
    dialect: str | None,
    clients: Sequence[Mapping[str, Any]],
    default_auth_method: str,
    private_schemes: bool,
    redirect_schemes: Sequence[str],
    strict_application_type: bool,
    token_lifetime: int,
    refresh_lifetime: int,
    code_lifetime: int,
    state: str | os.PathLike[str] | None,
    remote: bool,
    delegation: object,
    **flags: bool,
) -> Options:
    """Return the validated options. `flags` are fields of `Options` that need no validation.

    Raises:
        ConfigurationError: All problems, each with the option and the fix.
    """
    problems = Problems()
    url = _check_issuer(issuer, problems, remote=remote)
    known, default = _check_scopes(scopes, default_scopes, problems)
    token_format = DIALECTS.get(dialect) if dialect is not None else Dialect()
    if token_format is None:
        problems.add("dialect", f"{show(dialect)} is not a dialect.", f"Choose among {', '.join(DIALECTS)}.")
        token_format = Dialect()
    chosen = tuple(problems.strings(algorithms, "algorithms"))
    if not chosen or not set(chosen) <= set(ALGORITHMS):
        fix = f"List some of {', '.join(ALGORITHMS)}."
        problems.add("algorithms", f"{show(algorithms)} is not a list of signing algorithms.", fix)
    if default_auth_method not in AUTH_METHODS:
        fix = f"Choose among {', '.join(AUTH_METHODS)}."
        problems.add("default_auth_method", f"{show(default_auth_method)} is not an authentication method.", fix)
    rules = ClientRules(
        default_auth_method=default_auth_method,
        private_schemes=private_schemes,
        redirect_schemes=_check_schemes(redirect_schemes, problems),
        strict_application_type=strict_application_type,
    )
    preferred = [token_format.algorithm] if token_format.algorithm else []
    options = Options(
        url=url,
        policy=Policy(resources=_check_resources(resources, problems), scopes=known, default_scopes=default),
        descriptions=dict(scopes) if isinstance(scopes, Mapping) else {},
        users=_check_users(users, problems),
        algorithms=tuple(dict.fromkeys((*preferred, *chosen))),
        dialect=token_format,
        client_rules=rules,
        clients=_check_clients(clients, rules, problems),
        token_lifetime=_check_lifetime(token_lifetime, "token_lifetime", MAX_LIFETIME, problems),
        refresh_lifetime=_check_lifetime(refresh_lifetime, "refresh_lifetime", MAX_LIFETIME, problems),
        code_lifetime=_check_lifetime(code_lifetime, "code_lifetime", MAX_CODE_SECONDS, problems),
        state=_check_state(state, problems),
        remote=remote,
        delegation=_check_delegation(delegation, problems),
        **flags,
    )
    problems.raise_if_any()
    return options
