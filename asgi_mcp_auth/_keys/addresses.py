"""Which IP addresses may be asked when somebody else named the host (RFC 9728 section 7.7, RFC 6890)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

__all__ = ("is_public",)

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a translator or a tunnel would take out of an IPv6 address."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in NAT64 else None


def is_public(text: str) -> bool:
    """Whether an address is of the public Internet: not private, loopback, link-local, shared, reserved, multicast.

    An address that cannot be read, or that has a zone, is not.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        embedded = _embedded(address)
        if embedded is not None:
            address = embedded
        elif address.teredo is not None or address.is_site_local or address.is_reserved:
            return False  # reserved: beyond what is given out, IPv4-compatible addresses among it
    return address.is_global and not address.is_multicast
