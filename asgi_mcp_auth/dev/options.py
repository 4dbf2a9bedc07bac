"""The options of the development authorization server, judged all at once.

Nothing but this machine is served unless it is said in so many words: the server trusts whoever sits at the keyboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asgi_mcp_auth._oauth.grammar import is_scope
from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth._oauth.server_metadata import insecure_url
from asgi_mcp_auth._oauth.urls import Url, is_loopback, parse_url
from asgi_mcp_auth._policy.problems import Problems, as_list, as_mapping, show
from asgi_mcp_auth.dev.clients import AUTH_METHODS, GRANT_TYPES, Client, ClientRules, read_client
from asgi_mcp_auth.dev.dialects import DIALECTS, Dialect
from asgi_mcp_auth.dev.errors import OAuthError
from asgi_mcp_auth.dev.policy import OFFLINE, OPENID, Policy

__all__ = ("MAX_CODE_SECONDS", "Options", "compile_options")

MAX_CODE_SECONDS: Final = 60  # OAuth 2.1 section 4.1.2 recommends ten minutes at most, requirement AS-18 one
MAX_LIFETIME = 400 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options that have been judged."""

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
    remote: bool


def _check_issuer(issuer: object, problems: Problems, *, remote: bool) -> Url:
    url = parse_url(issuer) if isinstance(issuer, str) else None
    if url is None or url.scheme not in ("http", "https") or url.query is not None or url.fragment is not None:
        fix = "Give an http or https URL without a query, such as http://127.0.0.1:9000."
        problems.add("issuer", f"{show(issuer)} is no issuer.", fix)
        return Url("http", "127.0.0.1", 9000, "", None, None)
    if not is_loopback(url.host):
        if url.scheme == "http":
            problems.add("issuer", f"{show(issuer)} is http, and not this machine.", "Use a loopback URL.")
        elif not remote:
            fix = "Use a loopback URL: this server lets everybody in. dangerously_allow_remote=True overrules this."
            problems.add("issuer", f"{show(issuer)} is not this machine.", fix)
    return url


def _check_resources(resources: object, problems: Problems) -> tuple[str, ...]:
    found = problems.strings(resources, "resources")
    for index, resource in enumerate(found):
        why = insecure_url(resource, allow_http=False)
        if why is not None:
            fix = "Give the URL of the MCP endpoint, https or http on loopback."
            problems.add(f"resources[{index}]", f"{show(resource)} {why}.", fix)
    return tuple(dict.fromkeys(found))


def _check_scopes(scopes: object, default: object, problems: Problems) -> tuple[tuple[str, ...], tuple[str, ...]]:
    mapping = as_mapping(scopes)
    found = list(mapping) if mapping is not None else problems.strings(scopes, "scopes")
    bad = [scope for scope in found if not is_scope(scope)]
    if bad:
        problems.add("scopes", f"Not scopes: {show(bad)}.", 'Leave out spaces, quotes and "\\" (RFC 6749 section 3.3).')
    of_resources = [scope for scope in found if scope not in (OFFLINE, OPENID)]
    chosen = of_resources[:1] if default is None else problems.strings(default, "default_scopes")
    lacking = [scope for scope in chosen if found and scope not in found]
    if lacking:
        problems.add("default_scopes", f"Not among the scopes: {show(lacking)}.", "List them in scopes too.")
    return tuple(dict.fromkeys(found)), tuple(chosen)


def _check_lifetime(value: object, where: str, most: int, problems: Problems) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        problems.add(where, f"{show(value)} is no lifetime.", f"Give whole seconds, from 1 to {most}.")
        return 1
    return value


def _check_clients(entries: object, rules: ClientRules, problems: Problems) -> dict[str, Client]:
    found: dict[str, Client] = {}
    listed = as_list(entries)
    if listed is None:
        problems.add("clients", f"{show(entries)} is not a list.", "Give a list of tables, as for registration.")
    for index, entry in enumerate(listed or ()):
        where = f"clients[{index}]"
        members = as_mapping(entry) or {}
        client_id, secret = members.get("client_id"), members.get("client_secret")
        if not isinstance(client_id, str) or not client_id or "://" in client_id or not client_id.isprintable():
            problems.add(where, "It has no usable client_id.", "Give a string that is no URL.")
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
            problems.add(where, error.description, "Give metadata as for registration (RFC 7591 section 2).")
            continue
        if client.auth_method != "none" and not client.secret:
            problems.add(where, f"{client.auth_method} needs a client_secret.", "Give one, or the method none.")
        found[client_id] = client
    return found


def _check_users(users: object, problems: Problems) -> tuple[str, ...]:
    found = problems.strings(users, "users")
    if not found or not all(user.isprintable() for user in found):
        problems.add("users", f"{show(users)} is not a list of names.", 'Give at least one, such as ["alice"].')
    return tuple(dict.fromkeys(found))


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
    strict_application_type: bool,
    token_lifetime: int,
    refresh_lifetime: int,
    code_lifetime: int,
    remote: bool,
    **switches: bool,
) -> Options:
    """Judge the options; `switches` are those that are true or false and mean what they say.

    Raises:
        ConfigurationError: Everything that is wrong, each with its place and the mend.
    """
    problems = Problems()
    url = _check_issuer(issuer, problems, remote=remote)
    known, default = _check_scopes(scopes, default_scopes, problems)
    spoken = DIALECTS.get(dialect) if dialect is not None else Dialect()
    if spoken is None:
        problems.add("dialect", f"{show(dialect)} is unknown.", f"Choose among {', '.join(DIALECTS)}.")
        spoken = Dialect()
    chosen = tuple(problems.strings(algorithms, "algorithms"))
    if not chosen or not set(chosen) <= set(ALGORITHMS):
        problems.add("algorithms", f"{show(algorithms)}.", f"List some of {', '.join(ALGORITHMS)}.")
    if default_auth_method not in AUTH_METHODS:
        fix = f"Choose among {', '.join(AUTH_METHODS)}."
        problems.add("default_auth_method", f"{show(default_auth_method)} is unknown.", fix)
    rules = ClientRules(
        default_auth_method=default_auth_method,
        private_schemes=private_schemes,
        strict_application_type=strict_application_type,
    )
    options = Options(
        url=url,
        policy=Policy(resources=_check_resources(resources, problems), scopes=known, default_scopes=default),
        descriptions=dict(scopes) if isinstance(scopes, Mapping) else {},
        users=_check_users(users, problems),
        algorithms=tuple(dict.fromkeys((*([spoken.algorithm] if spoken.algorithm else []), *chosen))),
        dialect=spoken,
        client_rules=rules,
        clients=_check_clients(clients, rules, problems),
        token_lifetime=_check_lifetime(token_lifetime, "token_lifetime", MAX_LIFETIME, problems),
        refresh_lifetime=_check_lifetime(refresh_lifetime, "refresh_lifetime", MAX_LIFETIME, problems),
        code_lifetime=_check_lifetime(code_lifetime, "code_lifetime", MAX_CODE_SECONDS, problems),
        remote=remote,
        **switches,
    )
    problems.raise_if_any()
    return options
