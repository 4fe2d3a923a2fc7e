"""The names of the architectures, for those who may not import torch.

`architectures.json` is written by `python -m cstar_core.architectures.catalog`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources


@dataclass(frozen=True)
class Architecture:
    """An architecture of the registry; `arguments` has the defaults, `parameters` counts those."""

    name: str
    summary: str
    arguments: dict[str, int | bool | str]
    input_shape: list[int]
    parameters: int


@lru_cache
def architectures() -> tuple[Architecture, ...]:
    """Return every architecture of the registry, in the registry's order."""
    text = resources.files("store").joinpath("architectures.json").read_text("utf-8")
    return tuple(Architecture(**entry) for entry in json.loads(text))
