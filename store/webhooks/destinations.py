"""Where a webhook may go: the one reading of its URL, and the addresses it may lead to.

A URL comes from a client, so it could be made to point into the operator's own network (SSRF).
It is refused unless it is written in the one plain way in which no two readers can differ. What a
name resolves to is known at delivery alone, where the address that was checked is the one that is
connected to (`worker.webhooks.sending`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

MAX_URL_LENGTH = 2048
_DEFAULT_PORTS = {"https": 443, "http": 80}
_LOWEST_OTHER_PORT = 1024  # below are the services of other protocols
_HIGHEST_PORT = 65_535
_AUTHORITY = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)  # a last label that reads as IPv4

# IANA's special-purpose registries (RFC 6890 and its updates), all that is not global unicast.
_PRIVATE = [
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
]
_NEVER = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata services of most clouds
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved and broadcast
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # Azure's host
        "fd00:ec2::/32",  # metadata of AWS
    )
]
_IPV6_GLOBAL = ip_network("2000::/3")
_IPV6_SPECIAL = [
    ip_network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID, benchmarking
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
]
_NAT64 = ip_network("64:ff9b::/96")


class ForbiddenDestination(ValueError):
    """The URL or address may not be told anything; the message says why."""


@dataclass(frozen=True)
class Destination:
    """A URL, read once: nobody reads the text again."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def read_url(url: str, *, allow_private: bool) -> Destination:
    """Read a URL; raises ForbiddenDestination. `allow_private` also allows http."""
    if len(url) > MAX_URL_LENGTH:
        raise ForbiddenDestination(f"A URL has at most {MAX_URL_LENGTH} characters.")
    if not all("!" <= character <= "~" for character in url) or "\\" in url:
        raise ForbiddenDestination(
            "A URL has printable ASCII characters alone; write an international name as xn--..."
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ForbiddenDestination("The URL cannot be read.") from None
    _check_scheme(parts.scheme, allow_private=allow_private)
    if "@" in parts.netloc:
        raise ForbiddenDestination("A URL carries no user or password: the signature is the proof.")
    if "#" in url:
        raise ForbiddenDestination("A fragment (#...) is never sent; leave it out.")
    found = _AUTHORITY.fullmatch(parts.netloc)
    if found is None:
        raise ForbiddenDestination("The host and port cannot be read.")
    host = _read_host(found["host"].lower(), allow_private=allow_private)
    port = _checked_port(parts.scheme, found["port"], allow_private=allow_private)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.scheme, host, port, target)


def check_address(address: Address, *, allow_private: bool) -> None:
    """Raise ForbiddenDestination unless an address may be connected to.

    `allow_private` allows loopback and private networks, never link-local or metadata services.
    """
    seen = _embedded(address)
    if any(seen in network for network in _NEVER):
        raise ForbiddenDestination(f"{address} is not a public address.")
    if any(seen in network for network in _PRIVATE):
        if not allow_private:
            raise ForbiddenDestination(f"{address} is not a public address.")
        return
    if isinstance(seen, IPv6Address) and not _is_global(seen):
        raise ForbiddenDestination(f"{address} is not a public address.")


def _is_global(address: IPv6Address) -> bool:
    """Say whether an IPv6 address is global unicast and no tunnel to somewhere else.

    What is outside of 2000::/3 are IPv4-mapped and -compatible, link-local, multicast and so on.
    """
    special = any(address in network for network in _IPV6_SPECIAL)
    return address in _IPV6_GLOBAL and not special


def _embedded(address: Address) -> Address:
    """Return the IPv4 address behind NAT64 (RFC 6052), which is how IPv6-only hosts reach it."""
    if isinstance(address, IPv6Address) and address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _check_scheme(scheme: str, *, allow_private: bool) -> None:
    if scheme != "https" and not (scheme == "http" and allow_private):
        raise ForbiddenDestination("A URL begins with https://.")


def _checked_port(scheme: str, text: str | None, *, allow_private: bool) -> int:
    default = _DEFAULT_PORTS[scheme]
    chosen = default if text is None else int(text)
    lowest = 1 if allow_private else _LOWEST_OTHER_PORT
    if chosen != default and not lowest <= chosen <= _HIGHEST_PORT:
        raise ForbiddenDestination(f"A port is {default}, or {lowest} to {_HIGHEST_PORT}.")
    return chosen


def _read_host(host: str, *, allow_private: bool) -> str:
    """Return a host in its plain form: a name in lower case or an address."""
    if host.startswith("["):
        return _checked_literal(host[1:-1], allow_private=allow_private)
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # WHATWG's URL standard: such a host is an IPv4 address
        return _checked_literal(host, allow_private=allow_private)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ForbiddenDestination(
            "The host is not a name: labels of letters, digits and hyphens, no dot at the end."
        )
    local = len(labels) == 1 or labels[-1] == "localhost"
    if local and not allow_private:
        raise ForbiddenDestination(f"{host} is a name of a local network.")
    return host


def _checked_literal(text: str, *, allow_private: bool) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        raise ForbiddenDestination(
            "An address is written as four decimal numbers, or as IPv6 in brackets."
        ) from None
    check_address(address, allow_private=allow_private)
    return str(address)
