"""Which network addresses a caller's URL may never lead to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A fixed list: what `ipaddress` calls private or global changes with Python's patch
# level, and none of them counts a cloud's own service address (168.63.129.16).
_SPECIAL = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16
    172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24
    192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    ::/96 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/23
    2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10
    fec0::/10 ff00::/8
"""
SPECIAL_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network) for network in _SPECIAL.split()
)


def is_special(address: Address) -> bool:
    """Whether the address is in a network that is not the public internet."""
    return any(address in network for network in SPECIAL_NETWORKS)


def is_reachable(address: Address, allowed: Iterable[Network]) -> bool:
    """Whether a caller may be connected to the address."""
    return not is_special(address) or any(address in network for network in allowed)
