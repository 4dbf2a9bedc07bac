"""The compiler of `TokenExchange` settings and of destinations. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from asgi_mcp_auth._oauth.client_authentication import ClientAuthentication
from asgi_mcp_auth._oauth.server_metadata import ALLOW_HTTP, insecure_url
from asgi_mcp_auth._oauth.token_exchange import Destinations, Grant
from asgi_mcp_auth._oauth.urls import Url, parse_url
from asgi_mcp_auth._policy.client_settings import ENDPOINT_RANGES, check_values, compile_credentials
from asgi_mcp_auth._policy.problems import Problems, as_list, show
from asgi_mcp_auth._policy.trusted_issuer import TrustedIssuer, check_url
from asgi_mcp_auth.config import TokenExchange

__all__ = ("CompiledExchange", "compile_destinations", "compile_exchanges")

RANGES = {"margin": (0.0, 300.0), **ENDPOINT_RANGES}
SECRETS = ("client_secret", "private_key")
GRANTS = get_args(Grant)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledExchange:
    """The exchange of the tokens of one issuer.

    Attributes:
        settings: The settings.
        trusted: The issuer.
        accepted: The values of `iss` that the issuer's tokens have.
        authentication: The credentials of this server.
    """

    settings: TokenExchange
    trusted: TrustedIssuer
    accepted: frozenset[str]
    authentication: ClientAuthentication


def compile_exchanges(
    given: object, trusted: Sequence[TrustedIssuer], problems: Problems, *, allow_http: bool
) -> tuple[CompiledExchange, ...]:
    """Return a list of settings compiled, for the `trusted` issuers. Every problem is added to `problems`."""
    listed = as_list(given)
    if listed is None:
        problems.add("token_exchange", f"{show(given)} is not a list.", "Pass [TokenExchange(...)].")
    compiled: list[CompiledExchange] = []
    seen: set[str] = set()
    for index, settings in enumerate(listed or ()):
        where = f"token_exchange[{index}]"
        if not isinstance(settings, TokenExchange):
            problems.add(where, f"{show(settings)} is not a TokenExchange.", "Pass TokenExchange(client_id=...).")
            continue
        one = _compile(settings, trusted, where, problems, allow_http=allow_http)
        if one is None:
            continue
        if seen & one.accepted:
            what = f"Tokens of {show(one.trusted.identifier)} have two settings."
            problems.add("token_exchange", what, "Keep one TokenExchange for each issuer.")
        seen |= one.accepted
        compiled.append(one)
    return tuple(compiled)


def _compile(
    settings: TokenExchange, trusted: Sequence[TrustedIssuer], where: str, problems: Problems, *, allow_http: bool
) -> CompiledExchange | None:
    check_values(settings, RANGES, (), where, problems)
    if settings.grant not in GRANTS:
        fix = f"Choose from {', '.join(GRANTS)}."
        problems.add(f"{where}.grant", f"{show(settings.grant)} is not a grant.", fix)
    check_url(settings.endpoint, f"{where}.endpoint", problems, allow_http=allow_http)
    authentication = compile_credentials(settings, SECRETS, where, problems)
    identifiers = list(dict.fromkeys(issuer.identifier for issuer in trusted))
    identifier = settings.issuer
    if identifier is None and len(identifiers) == 1:
        identifier = identifiers[0]
    found = [issuer for issuer in trusted if issuer.identifier == identifier]
    if not found and identifiers:
        what = "There are several issuers." if identifier is None else "No resource names the issuer."
        fix = f"Set issuer= to one of {', '.join(map(show, identifiers[:8]))}."
        problems.add(f"{where}.issuer", what, fix)
    if not found or authentication is None:
        return None
    accepted = frozenset(issuer.rules.issuer for issuer in found)
    return CompiledExchange(settings=settings, trusted=found[0], accepted=accepted, authentication=authentication)


def compile_destinations(allow: str | Iterable[str], *, allow_http: bool) -> Destinations:
    """Return the allow-list of destinations.

    Raises:
        ConfigurationError: With every entry that is neither an origin nor a domain suffix.
    """
    problems = Problems()
    entries = problems.strings([allow] if isinstance(allow, str) else list(allow), "allow")
    origins: set[str] = set()
    suffixes: list[str] = []
    for index, entry in enumerate(entries):
        url = parse_url(entry)
        if url is None and _is_suffix(entry):
            suffixes.append(entry.lower())
        elif url is not None and str(url) in (url.origin, f"{url.origin}/"):
            if (why := insecure_url(url.origin, allow_http=allow_http)) is not None:
                problems.add(f"allow[{index}]", f"{show(entry)} {why}.", ALLOW_HTTP)
            origins.add(url.origin)
        else:
            fix = "Write an origin such as 'https://api.example.com', or a domain suffix such as '.example.com'."
            problems.add(f"allow[{index}]", f"{show(entry)} is neither an origin nor a domain suffix.", fix)
    if not entries and not problems.found:
        problems.add("allow", "The list is empty: no request could carry the token.", "List the origins of the API.")
    problems.raise_if_any()
    return Destinations(frozenset(origins), tuple(suffixes))


def _is_suffix(entry: str) -> bool:
    """Return whether an entry is a domain suffix of two labels or more, such as `.example.com`."""
    labels, host = entry[1:].split("."), f"a{entry.lower()}"
    is_host = entry.startswith(".") and parse_url(f"https://{host}") == Url("https", host, None, "", None, None)
    return is_host and len(labels) > 1 and all(labels) and not labels[-1].isdigit()
