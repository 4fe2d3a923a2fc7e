"""Where the service is and with which key: flag, environment, file, local stack, in this order."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cstar_client.errors import ConfigurationError

URL, API_KEY = "CSTAR_URL", "CSTAR_API_KEY"
THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})
NEXT_STEP = (
    f"set {URL} and {API_KEY}, write both into {{file}} (url = ..., api_key = ...), "
    "or start a stack here with `cstar up`"
)


@dataclass(frozen=True)
class Access:
    """An address and a key; `source` says for people where they were found."""

    url: str
    api_key: str
    source: str

    def __repr__(self) -> str:
        return f"Access(url={self.url!r}, source={self.source!r})"  # never the key


def resolve(url: str | None = None, api_key: str | None = None) -> Access:
    """Return where to go and how to get in; raises ConfigurationError with the next step.

    A key from a file is sent to the address in the same file only, never to another one.
    """
    wanted = url or os.environ.get(URL, "").strip()
    key = api_key or os.environ.get(API_KEY, "").strip()  # a secret's file often ends a line
    if wanted and key:
        return Access(wanted, key, "flags" if url or api_key else "environment")
    for known in _files():
        same = not wanted or known.url.rstrip("/") == wanted.rstrip("/")
        if same and (key or known.api_key):
            return Access(known.url, key or known.api_key, known.source)
    missing = f"no key for {wanted}" if wanted else "it is not known where the service is"
    raise ConfigurationError(f"{missing}: {NEXT_STEP.format(file=config_file())}")


def config_file() -> Path:
    """Return where the user's file is (XDG base directories)."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "cstar" / "config.toml"


def stack_file() -> Path:
    """Return where a stack that runs in this folder says how to reach it."""
    return Path(os.environ.get("CSTAR_DATA_DIR") or ".cstar") / "stack.json"


def _files() -> Iterator[Access]:
    """Yield what the files say that have an address; the key may be in the environment."""
    yield from _said(config_file(), tomllib.loads)
    for stack in _said(stack_file(), json.loads):
        if _host(stack.url) not in THIS_MACHINE:  # a folder may be anybody's, a checkout too
            raise ConfigurationError(
                f"{stack.source} names {stack.url}, and a stack runs on this machine; "
                f"if it is right, set {URL} and {API_KEY}"
            )
        yield stack


def _said(path: Path, parse: Callable[[str], Any]) -> Iterator[Access]:
    if path.exists():
        values = _parsed(path, parse)
        if "url" in values:
            yield Access(str(values["url"]), str(values.get("api_key", "")), str(path))


def _host(url: str) -> str | None:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return None


def _parsed(path: Path, parse: Callable[[str], Any]) -> Mapping[str, Any]:
    try:
        found = parse(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
