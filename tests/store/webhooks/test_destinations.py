"""A webhook's URL is read in one way, and leads to no address but a public one."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from store.webhooks.destinations import (
    Destination,
    ForbiddenDestination,
    check_address,
    read_url,
)
from tests.support.hostile_urls import (
    ALLOWED_ADDRESSES,
    FORBIDDEN,
    FORBIDDEN_ADDRESSES,
    INSIDE,
    NEVER,
    SPELLINGS,
)


@pytest.mark.parametrize("url", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(ForbiddenDestination):
        read_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://hooks.example.com", Destination("https", "hooks.example.com", 443, "/")),
        (
            "https://Hooks.Example.COM/a?b=c",
            Destination("https", "hooks.example.com", 443, "/a?b=c"),
        ),
        ("https://hooks.example.com:8443/", Destination("https", "hooks.example.com", 8443, "/")),
        ("https://xn--bcher-kva.example/", Destination("https", "xn--bcher-kva.example", 443, "/")),
        ("https://8.8.8.8/", Destination("https", "8.8.8.8", 443, "/")),
        (
            "https://[2606:4700:4700:0::1111]/",
            Destination("https", "2606:4700:4700::1111", 443, "/"),
        ),
        ("https://3com.example/", Destination("https", "3com.example", 443, "/")),
        ("https://a.b/x@y:z", Destination("https", "a.b", 443, "/x@y:z")),
    ],
)
def test_a_plain_url_is_read(url: str, expected: Destination) -> None:
    assert read_url(url, allow_private=False) == expected


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://hooks.example.com:443/", "hooks.example.com"),
        ("https://hooks.example.com:8443/", "hooks.example.com:8443"),
        ("https://[2606:4700::1]:8443/", "[2606:4700::1]:8443"),
    ],
)
def test_the_host_header_names_the_port_that_is_not_the_default(url: str, authority: str) -> None:
    assert read_url(url, allow_private=False).authority == authority


@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenDestination):
        check_address(ip_address(address), allow_private=False)


@pytest.mark.parametrize("address", ALLOWED_ADDRESSES)
def test_a_public_address_is_allowed(address: str) -> None:
    check_address(ip_address(address), allow_private=False)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9000/", "http://localhost/", "http://redis:80/", *list(INSIDE.values())[:5]],
)
def test_an_operator_may_allow_private_networks_and_http(url: str) -> None:
    read_url(url, allow_private=True)


ANY_PORT = {"port of SSH", "port of SMTP"}  # in a private network every one may be meant
ALWAYS_REFUSED = {name: url for name, url in (NEVER | SPELLINGS).items() if name not in ANY_PORT}


@pytest.mark.parametrize("url", ALWAYS_REFUSED.values(), ids=ALWAYS_REFUSED)
def test_metadata_services_and_odd_spellings_stay_refused_even_then(url: str) -> None:
    with pytest.raises(ForbiddenDestination):
        read_url(url, allow_private=True)
