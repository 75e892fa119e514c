"""Addresses: where a tenant may make us send something, and how its URL is read.

Beyond the operator's own networks only global unicast addresses are open, by the IANA special-purpose registries
(https://www.iana.org/assignments/iana-ipv4-special-registry, …/iana-ipv6-special-registry); the lists stand here since
the standard library's `is_global` differs between Python's patch releases and takes multicast for global.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from penstock.domain.api_errors import OutboundRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_URL_CHARACTERS: Final = 2_048

_CLOSED: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent: a public number that is answered inside only
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments; Teredo, which carries IPv4 addresses
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries IPv4 addresses
        "3fff::/20",  # documentation
    )
)
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out; loopback, mapped, link-local, unique-local and multicast addresses are outside."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x0000_5EFE, 0x0200_5EFE)

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<rest>[/?][!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER: Final = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL aims at; `address` if its host is written as one."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    address: Address | None


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a tenant's URL may reach: https to the ports, and anything within the operator's own networks."""

    allow: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({443, 80})
    plain_http: bool = False

    def admit(self, target: Target, addresses: Iterable[Address]) -> None:
        """Raise OutboundRefused unless every single address may be sent to: one bad one spoils the answer."""
        inside = True
        for address in addresses:
            if self._allows(address):
                continue
            if not is_global(address):
                raise OutboundRefused(f"{target.host} is not a public address, or has one that is not.")
            inside = False
        if not inside:
            self._outside(target)

    def check(self, target: Target) -> None:
        """Say early what can be said without a name server; raises OutboundRefused."""
        if target.address is not None:
            self.admit(target, [target.address])
        elif not self.allow:
            self._outside(target)

    def _outside(self, target: Target) -> None:
        if target.scheme == "http" and not self.plain_http:
            raise OutboundRefused("The URL must begin with https://.")
        if target.port not in self.ports:
            ports = ", ".join(map(str, sorted(self.ports)))
            raise OutboundRefused(f"Port {target.port} is not allowed; these are: {ports}.")

    def _allows(self, address: Address) -> bool:
        forms = {address, plain(address)}
        return any(form in network for network in self.allow for form in forms if form.version == network.version)


def read(url: str) -> Target:
    """Read a URL, so strictly that no other reader can understand it differently; raises OutboundRefused."""
    if len(url) > MOST_URL_CHARACTERS:
        raise _unread(f"The URL is longer than {MOST_URL_CHARACTERS} characters.")
    found = _URL.fullmatch(url)
    if not found or "\\" in url or "#" in url:
        raise _unread(
            "The URL must be http(s)://host[:port][/path] in printable ASCII, without user, password and fragment; "
            "write other letters as xn--… in the host and as %XX in the path."
        )
    scheme: Literal["http", "https"] = "https" if found["scheme"].lower() == "https" else "http"
    port = int(found["port"]) if found["port"] else _PORTS[scheme]
    if not 0 < port < 65_536:
        raise _unread("The URL's port must be 1 to 65535.")
    host = found["host"].lower()
    return Target(scheme, host.strip("[]"), port, _literal(host))


def _unread(words: str) -> OutboundRefused:
    """What the URL's own text says is no secret."""
    return OutboundRefused(words, told=words)


def _literal(host: str) -> Address | None:
    """The address that a host is written as; None if it is a name."""
    try:
        if host.startswith("["):
            return ipaddress.IPv6Address(host[1:-1])
        # To many readers a last label that is a number makes an address of it: 127.1, 0x7f000001, 0177.0.0.1
        if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            return ipaddress.IPv4Address(host)
    except ValueError:
        raise _unread("The URL's address must be written in full: 192.0.2.1 or [2001:db8::1].") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise _unread("The URL's host is not a name, or ends with a dot.")
    return None


def plain(address: Address) -> Address:
    """The IPv4 address that a mapped (::ffff:0:0/96) or NAT64 (64:ff9b::/96) one reaches; else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_global(address: Address) -> bool:
    """Whether it is a public unicast address, that carries no other one in it which is not."""
    reached = plain(address)
    if isinstance(reached, ipaddress.IPv6Address):
        if reached.scope_id is not None or reached not in _UNICAST:
            return False
        if (int(reached) >> 32) & 0xFFFF_FFFF in _ISATAP:
            return False
    return not any(reached in network for network in _CLOSED if network.version == reached.version)


def networks(text: str) -> tuple[Network, ...]:
    """Read comma-separated CIDRs; raises ValueError."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def ports(text: str) -> frozenset[int]:
    """Read comma-separated ports; raises ValueError."""
    found = frozenset(int(part) for part in text.split(",") if part.strip())
    if not all(0 < port < 65_536 for port in found):
        raise ValueError("a port is a number from 1 to 65535")
    return found
