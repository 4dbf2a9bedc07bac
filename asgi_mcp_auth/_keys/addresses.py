"""Which IP addresses belong to the public Internet (SSRF guard; RFC 9728 section 7.7).

The special-purpose blocks are data here. `ipaddress.is_global` differs between Python versions and looks into few of
the IPv6 formats that embed an IPv4 address.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

__all__ = ("is_public",)

# The IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its successors), including the blocks that are
# globally reachable: no authorization server has an address in them.
SPECIAL = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # "this network", RFC 791
            "10.0.0.0/8",  # private use, RFC 1918
            "100.64.0.0/10",  # shared address space, RFC 6598
            "127.0.0.0/8",  # loopback, RFC 1122
            "168.63.129.16/32",  # Azure: the virtual address of the host; in no registry
            "169.254.0.0/16",  # link-local, RFC 3927
            "172.16.0.0/12",  # private use, RFC 1918
            "192.0.0.0/24",  # IETF protocol assignments, RFC 6890
            "192.0.2.0/24",  # documentation, RFC 5737
            "192.31.196.0/24",  # AS112, RFC 7535
            "192.52.193.0/24",  # AMT, RFC 7450
            "192.88.99.0/24",  # 6to4 relay anycast, RFC 7526
            "192.168.0.0/16",  # private use, RFC 1918
            "192.175.48.0/24",  # AS112, RFC 7534
            "198.18.0.0/15",  # benchmarking, RFC 2544
            "198.51.100.0/24",  # documentation, RFC 5737
            "203.0.113.0/24",  # documentation, RFC 5737
            "224.0.0.0/4",  # multicast, RFC 5771
            "240.0.0.0/4",  # reserved, and limited broadcast, RFC 1112
            # Outside 2000::/3 nothing is global unicast (RFC 4291 section 2.4), so those blocks are not listed.
            "2001::/23",  # IETF protocol assignments, among them Teredo, ORCHID, AMT and benchmarking, RFC 2928
            "2001:db8::/32",  # documentation, RFC 3849
            "2620:4f:8000::/48",  # AS112, RFC 7534
            "3fff::/20",  # documentation, RFC 9637
        ),
    )
)
GLOBAL_UNICAST = ip_network("2000::/3")
MAPPED = 0xFFFF  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
NAT64 = 0x64_FF9B << 64  # 64:ff9b::/96, RFC 6052 section 2.1
SIX_TO_FOUR = 0x2002  # 2002::/16, RFC 3056
ISATAP, ISATAP_MASK = 0x5EFE, 0xFCFF_FFFF  # RFC 5214 section 6.1, whatever the u and g bits


def _is_special(address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in SPECIAL if network.version == address.version)


def is_public(text: str) -> bool:
    """Return whether an address is a unicast address of the public Internet without a special purpose.

    An IPv6 address that embeds an IPv4 address is public only if the IPv4 address is public too. An IPv4 address is not
    recognised behind a prefix that a network chooses itself (RFC 6052 section 2.2, RFC 5969). Text that is not an
    address, and an address with a zone, is not public.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return not _is_special(address)
    number = int(address)
    upper, low = number >> 32, IPv4Address(number & 0xFFFF_FFFF)
    if address.scope_id is not None:
        return False
    if upper in (MAPPED, NAT64):
        return not _is_special(low)
    if number >> 112 == SIX_TO_FOUR and _is_special(IPv4Address(number >> 80 & 0xFFFF_FFFF)):
        return False
    if upper & ISATAP_MASK == ISATAP and _is_special(low):
        return False
    return address in GLOBAL_UNICAST and not _is_special(address)
