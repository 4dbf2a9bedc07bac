"""Header fields that only the proxies of an option may set: tokens and client certificates arrive in them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from asgi_mcp_auth._oauth.json_types import unchecked
from asgi_mcp_auth._oauth.origin import is_free_field
from asgi_mcp_auth._policy.problems import Problems, show
from asgi_mcp_auth._request import Scope, spellings

__all__ = ("Peers", "TrustedField", "compile_field", "compile_peers")

UNIX_SOCKET = "unix"


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


@dataclass(frozen=True, slots=True)
class TrustedField:
    """A header field.

    Attributes:
        names: The spellings of its name, in lower case.
        peers: The proxies that may set the field.
    """

    names: frozenset[bytes]
    peers: Peers

    def values(self, scope: Scope) -> list[bytes]:
        """Return the values of the field lines, also of those that an untrusted peer sent."""
        return [value for name, value in scope["headers"] if name in self.names]

    def remove(self, scope: Scope) -> Scope:
        """Return the scope without the field."""
        return {**scope, "headers": [field for field in scope["headers"] if field[0] not in self.names]}


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


def compile_field(
    name: object, proxies: object, where: str, problems: Problems, *, member: str, example: str
) -> TrustedField | None:
    """Return the field compiled; None if its name cannot be used. Every problem is added to `problems`.

    The option `where` has the name in `member`, and the addresses and networks in `proxies`.
    """
    name, names = unchecked(name), frozenset[bytes]()
    if not isinstance(name, str) or not is_free_field(name):
        fix = f"Write the name of a field that nothing else reads, for example {example!r}."
        problems.add(f"{where}.{member}", f"{show(name)} cannot carry credentials.", fix)
    else:
        names = frozenset(spellings(name.lower().encode("ascii")))
    peers = compile_peers(proxies, f"{where}.proxies", problems)
    if not peers.networks and not peers.unix:
        fix = "List the addresses of the proxies that set the field."
        problems.add(f"{where}.proxies", "No proxy may set the field.", fix)
    return TrustedField(names, peers) if names else None
