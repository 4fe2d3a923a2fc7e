"""Hosts of a network of their own on this machine: network namespaces, joined by virtual cables."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.support.requirements import require


@dataclass(frozen=True)
class Host:
    """A host whose cable ends here as the interface `cable`."""

    name: str
    cable: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Return what a command is run under to be run there."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Unplug the cable: what is sent is lost, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def heal(self) -> None:
        _ip("link", "set", self.cable, "up")


@dataclass(frozen=True)
class Network:
    """`address` is this machine's own, as its hosts reach it."""

    address: str
    hosts: tuple[Host, ...]


@contextmanager
def network(count: int) -> Iterator[Network]:
    """Make a network; where namespaces cannot be made the test is reported as not run."""
    require("network namespaces", _possible(), "iproute2 is not installed, or this is not root")
    subnet = f"10.77.{secrets.randbelow(254) + 1}"
    address = f"{subnet}.254"
    with ExitStack() as stack:
        _ip("address", "add", f"{address}/32", "dev", "lo")
        stack.callback(_ip, "address", "del", f"{address}/32", "dev", "lo")
        hosts = tuple(stack.enter_context(_host(subnet, number)) for number in range(count))
        yield Network(address, hosts)


@contextmanager
def _host(subnet: str, number: int) -> Iterator[Host]:
    name = f"cstar{secrets.token_hex(3)}"
    cable, plug = f"{name}a", f"{name}b"
    here, there = f"{subnet}.{4 * number + 1}", f"{subnet}.{4 * number + 2}"
    with ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", plug, "netns", name)
        stack.callback(_ip, "link", "del", cable)
        _ip("address", "add", f"{here}/30", "dev", cable)
        _ip("link", "set", cable, "up")
        _ip("-n", name, "address", "add", f"{there}/30", "dev", plug)
        for interface in ("lo", plug):
            _ip("-n", name, "link", "set", interface, "up")
        _ip("-n", name, "route", "add", "default", "via", here)
        yield Host(name, cable)


def _possible() -> bool:
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"cstar{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    _ip("netns", "del", name)
    return True


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
