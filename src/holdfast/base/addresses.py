"""Which network addresses a server may call when somebody else has named them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Reach(Enum):
    """How far a call to an address goes."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Of this machine or of the network it is in: called with permission only."""
    NEVER = "never"
    """Nothing that an application could be at: metadata services, link-local, unspecified, multicast, reserved."""


_NEVER: tuple[tuple[Network, str], ...] = (
    (ip_network("169.254.0.0/16"), "link-local, where cloud providers keep credentials"),
    (ip_network("fe80::/10"), "link-local"),
    (ip_network("fd00:ec2::/32"), "a cloud provider's metadata service"),
    (ip_network("fd20:ce::254/128"), "a cloud provider's metadata service"),
    (ip_network("100.100.100.200/32"), "a cloud provider's metadata service"),
    (ip_network("168.63.129.16/32"), "a cloud provider's metadata service"),
    (ip_network("192.0.0.192/32"), "a cloud provider's metadata service"),
    (ip_network("0.0.0.0/8"), "unspecified: an address to listen on, not one to call"),
    (ip_network("::/128"), "unspecified: an address to listen on, not one to call"),
    (ip_network("224.0.0.0/4"), "multicast"),
    (ip_network("ff00::/8"), "multicast"),
    (ip_network("240.0.0.0/4"), "reserved"),
)
_PRIVATE: tuple[tuple[Network, str], ...] = (
    (ip_network("127.0.0.0/8"), "this machine"),
    (ip_network("::1/128"), "this machine"),
    (ip_network("10.0.0.0/8"), "a private network"),
    (ip_network("172.16.0.0/12"), "a private network"),
    (ip_network("192.168.0.0/16"), "a private network"),
    (ip_network("fc00::/7"), "a private network"),
    (ip_network("fec0::/10"), "a private network"),
    (ip_network("100.64.0.0/10"), "a provider's shared network"),
    (ip_network("192.0.0.0/24"), "a provider's own network"),
    (ip_network("198.18.0.0/15"), "a test network"),
)
_MAPPED = (ip_network("::ffff:0:0/96"), ip_network("::/96"), ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
"""Networks whose last 32 bits are an IPv4 address: mapped, compatible, and behind NAT64."""
_ORDER = (Reach.PUBLIC, Reach.PRIVATE, Reach.NEVER)


def reach_of(address: Address) -> tuple[Reach, str]:
    """How far an address reaches, and what it is. One that stands for another is the stricter of the two."""
    return max((_own_reach(one) for one in [address, *_embedded(address)]), key=lambda found: _ORDER.index(found[0]))


def same_addresses(address: Address) -> list[Address]:
    """The address and the IPv4 addresses in it, by which a permission may name it."""
    return [address, *_embedded(address)]


def _own_reach(address: Address) -> tuple[Reach, str]:
    for networks, reach in ((_NEVER, Reach.NEVER), (_PRIVATE, Reach.PRIVATE)):
        for network, what in networks:
            if address.version == network.version and address in network:
                return reach, what
    return Reach.PUBLIC, "a public address"


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """IPv4 addresses at which packets to an IPv6 address may come out."""
    if isinstance(address, IPv4Address) or int(address) <= 1:
        return
    number = int(address)
    if any(address in network for network in _MAPPED):
        yield IPv4Address(number & 0xFFFFFFFF)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if number >> 32 & 0xFDFFFFFF == 0x00005EFE:  # ISATAP
        yield IPv4Address(number & 0xFFFFFFFF)


def literal(host: str) -> Address | None:
    """The address that a URL's host is, or None for a name.

    Raises:
        ValueError: it is an address in a spelling that readers and programs take for different ones: decimal, octal,
            hexadecimal, or with parts left out.
    """
    text = host.strip("[]")
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        pass
    try:
        meant = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        return None
    raise ValueError(f"write the address as {meant}")
