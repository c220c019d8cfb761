"""Addresses by how far they reach, in every spelling."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.addresses import Reach, literal, reach_of

NEVER = [
    "169.254.169.254", "169.254.0.1", "169.254.170.2", "fe80::1", "fe80::a9fe:a9fe", "fd00:ec2::254", "100.100.100.200",
    "168.63.129.16", "192.0.0.192", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1",
    "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "2001:0:102:304:0:0:5601:5601", "2001:db8::5efe:169.254.169.254",
]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "::1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
    "fd12:3456::1", "fc00::1", "fec0::1", "198.18.0.1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::10.0.0.1",
    "2002:0a00:0001::1", "::127.0.0.1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "172.15.255.255", "172.32.0.1", "11.0.0.1", "100.63.255.255", "100.128.0.1", "169.253.255.255",
    "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:0808:0808::1", "1.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reach"),
    [(one, reach) for reach, all_of in ((Reach.NEVER, NEVER), (Reach.PRIVATE, PRIVATE), (Reach.PUBLIC, PUBLIC)) for one in all_of],
)
def test_how_far_an_address_reaches(text, reach):
    assert reach_of(ip_address(text))[0] is reach


@given(st.integers(0, 2**32 - 1))
def test_an_address_that_stands_for_another_is_no_way_round(number):
    inner = IPv4Address(number)
    order = list(Reach)
    for spelt in (f"::ffff:{inner}", f"64:ff9b::{inner}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"):
        assert order.index(reach_of(ip_address(spelt))[0]) >= order.index(reach_of(inner)[0])


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "010.0.0.1", "0xa9fea9fe"])
def test_spellings_that_hide_an_address_are_told_apart_from_names(host):
    with pytest.raises(ValueError, match=r"write the address as \d+\.\d+\.\d+\.\d+"):
        literal(host)


def test_addresses_and_names():
    assert literal("127.0.0.1") == literal("[127.0.0.1]") == ip_address("127.0.0.1")
    assert literal("[fe80::1%25eth0]") == ip_address("fe80::1")
    for name in ("localhost", "app", "1password.example", "metadata.google.internal", "0x7f.example"):
        assert literal(name) is None
