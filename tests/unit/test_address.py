"""A URL is read in one way only, and an address is judged by what it reaches."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from penstock.domain import address
from penstock.domain.address import Reach
from penstock.domain.api_errors import OutboundRefused


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
        "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1",
        "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
        "255.255.255.255", "::", "::1", "::10.0.0.1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "100::1", "2001::1",
        "2001:0:53aa:64c:0:0:f5ff:fffe", "2001:db8::1", "2002:a00:1::1", "2002:808:808::1", "3fff::1", "5f00::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "fe80::1%eth0", "2606:4700::1%1",
        "2606:4700::5efe:a00:1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_closed(text: str) -> None:
    assert not address.is_global(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.254", "2606:4700::1111",
     "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
)  # fmt: skip
def test_what_is_public_is_open(text: str) -> None:
    assert address.is_global(ip_address(text))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/",
        "http://127.0.0.1./", "http://127.0.0.0x1/", "http://1.1.1.1.1/", "http://[::1/", "http://[fe80::1%25eth0]/",
        "http://[::ffff:127.0.0.1.]/", "https://example.com./", "https://a..b/", "https://.a/", "https://-a/", "https:///x",
        "https://user@example.com/", "https://user:pw@example.com/", "https://example.com:80@evil.com/",
        "https://example.com#@evil.com/", "https://example.com\\@evil.com/", "https://example.com/\\evil",
        "https://example.com/#a", "https://exämple.com/", "https://１２７.0.0.1/", "https://ⓛocalhost/",
        "https://example。com/", "https://example.com/ä", "https://example.com/a b", "https://example.com/\n",
        "https://example.com\t/", " https://example.com/", "https://example.com/\r\nx: y", "https://%31%32%37.0.0.1/",
        "https://example.com:0/", "https://example.com:65536/", "https://example.com:+1/", "https://example.com:/",
        "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/", "example.com", "",
        "https:/example.com", "https:example.com", "https://" + "a" * 64 + ".com/", "https://a/" + "b" * 2_048,
    ],
)  # fmt: skip
def test_a_url_that_two_readers_may_understand_differently_is_refused(url: str) -> None:
    with pytest.raises(OutboundRefused):
        address.read(url)


def test_a_plain_url_is_read() -> None:
    found = address.read("HTTPS://Hooks.Example.com/a%20b?c=d")
    assert (found.scheme, found.host, found.port, found.address) == ("https", "hooks.example.com", 443, None)
    assert address.read("http://[2606:4700::1]:8080").address == ip_address("2606:4700::1")
    assert address.read("https://xn--exmple-cua.com").host == "xn--exmple-cua.com"
    assert address.read("https://a.b1?x=1").port == 443


def test_elsewhere_is_https_on_its_ports_and_an_allowed_network_is_open_in_every_form() -> None:
    elsewhere = Reach()
    elsewhere.check(address.read("https://example.com/"))
    elsewhere.check(address.read("https://8.8.8.8:80/"))
    for url in ("http://example.com/", "https://example.com:22/", "https://10.0.0.1/", "https://[::ffff:10.0.0.1]/"):
        with pytest.raises(OutboundRefused):
            elsewhere.check(address.read(url))
    Reach(plain_http=True).check(address.read("http://example.com/"))
    inside = Reach(address.networks("10.0.0.0/8, fd00::/8"))
    for url in ("http://10.0.0.1:9/", "http://[::ffff:10.0.0.1]:9/", "http://[fd00::1]/", "http://in.example.com:9/"):
        inside.check(address.read(url))
    for url in ("http://192.168.0.1/", "http://8.8.8.8/", "https://8.8.8.8:9/"):
        with pytest.raises(OutboundRefused):
            inside.check(address.read(url))
    named = address.read("http://in.example.com:9/")
    inside.admit(named, [ip_address("10.0.0.1")])
    with pytest.raises(OutboundRefused):
        inside.admit(named, [ip_address("10.0.0.1"), ip_address("8.8.8.8")])
