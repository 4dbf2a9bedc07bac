"""Access tokens outside of `Authorization`: a field of a trusted proxy, a websocket subprotocol. Off by default. Pure.

A token of these transports is moved to `Authorization`, where all tokens are read. So one algorithm decides, and a
token in addition to another one is refused as ambiguous there.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._oauth.origin import is_free_field
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._request import Scope, spellings
from asgi_mcp_auth.config import TrustedTokenHeader

__all__ = ("Peers", "TokenTransports", "compile_peers", "compile_transports")

SUBPROTOCOLS = frozenset(spellings(b"sec-websocket-protocol"))
SUBPROTOCOL_PREFIX = "bearer."
UNIX_SOCKET = "unix"

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Peers:
    """The networks of trusted proxies.

    Attributes:
        networks: The networks.
        unix: Whether connections through a Unix socket are trusted.
    """

    networks: tuple[IPv4Network | IPv6Network, ...]
    unix: bool

    def include(self, scope: Scope) -> bool:
        """Return whether the connection comes from one of them, by the address that the server reports."""
        client = scope.get("client")
        if client is None:
            # uvicorn reports no client of a TCP connection either once it is reset. A Unix socket has no port.
            server = scope.get("server")
            return self.unix and (server is None or server[1] is None)
        try:
            address = ip_address(client[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # what a socket of both families reports for IPv4
        return any((mapped or address) in network for network in self.networks)


def compile_peers(given: object, where: str, problems: Problems) -> Peers:
    """Return the peers compiled from addresses, networks and `"unix"`. Every problem is added to `problems`."""
    networks: list[IPv4Network | IPv6Network] = []
    listed = problems.strings(given, where)
    for text in listed:
        if text == UNIX_SOCKET:
            continue
        try:
            networks.append(ip_network(text))
        except ValueError:
            fix = 'Write an address, a network such as "10.0.0.0/8" without host bits, or "unix".'
            problems.add(where, f"{show(text)} is not an address or a network.", fix)
    if any(network.prefixlen == 0 for network in networks):
        fix = "List the addresses of your proxies."
        problems.add(where, "A network of all addresses trusts every client.", fix)
    return Peers(tuple(networks), UNIX_SOCKET in listed)


@dataclass(frozen=True, slots=True)
class TokenTransports:
    """The accepted transports of tokens.

    Attributes:
        fields: The spellings of the field that a trusted proxy sets; empty if there is none.
        peers: The proxies that may set the field.
        subprotocol: Whether a websocket may offer a token as a subprotocol.
    """

    fields: frozenset[bytes]
    peers: Peers
    subprotocol: bool

    def move_tokens(self, scope: Scope) -> tuple[Scope, bool]:
        """Return the scope with its tokens in `Authorization`, and whether a field of another peer was dropped."""
        is_dropped = False
        if any(name in self.fields for name, _ in scope["headers"]):
            is_trusted = self.peers.include(scope)
            is_dropped = not is_trusted
            headers: Headers = []
            for name, value in scope["headers"]:
                if name not in self.fields:
                    headers.append((name, value))
                elif is_trusted:
                    headers.append(_authorization(value))
            scope = {**scope, "headers": headers}
        if self.subprotocol and scope["type"] == "websocket":
            scope = _move_subprotocols(scope)
        return scope, is_dropped


def _authorization(token: bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + token


def _move_subprotocols(scope: Scope) -> Scope:
    """Move the subprotocols `bearer.<token>`, in any case; the app sees the others, and selects one of them."""
    prefix = SUBPROTOCOL_PREFIX.encode("ascii")
    headers: Headers = []
    for name, value in scope["headers"]:
        offered = [part.strip(b" \t") for part in value.split(b",")] if name in SUBPROTOCOLS else []
        tokens = [part[len(prefix) :] for part in offered if part.lower().startswith(prefix)]
        if not tokens:
            headers.append((name, value))
            continue
        headers += map(_authorization, tokens)
        others = [part for part in offered if not part.lower().startswith(prefix)]
        if others:
            headers.append((name, b", ".join(others)))
    others = [offer for offer in scope.get("subprotocols") or () if not offer.lower().startswith(SUBPROTOCOL_PREFIX)]
    return {**scope, "headers": headers, "subprotocols": others}


def compile_transports(header: object, subprotocol: object, problems: Problems) -> TokenTransports | None:
    """Return the transports compiled; None if there are none. Every problem is added to `problems`."""
    fields, peers = frozenset[bytes](), Peers((), unix=False)
    if isinstance(header, TrustedTokenHeader):
        where = "trusted_token_header"
        name = unchecked(header.name)
        if not isinstance(name, str) or not is_free_field(name):
            fix = "Write the name of a field that nothing else reads, for example 'Cf-Access-Jwt-Assertion'."
            problems.add(f"{where}.name", f"{show(name)} cannot carry tokens.", fix)
        else:
            fields = frozenset(spellings(name.lower().encode("ascii")))
        peers = compile_peers(header.proxies, f"{where}.proxies", problems)
        if not peers.networks and not peers.unix:
            fix = "List the addresses of the proxies that set the field."
            problems.add(f"{where}.proxies", "No proxy may set the field.", fix)
    elif header is not None:
        fix = 'Pass TrustedTokenHeader(name="Cf-Access-Jwt-Assertion", proxies=[...]).'
        problems.add("trusted_token_header", f"{show(header)} is not a TrustedTokenHeader.", fix)
    return TokenTransports(fields, peers, subprotocol is True) if fields or subprotocol is True else None
