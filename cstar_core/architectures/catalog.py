"""`python -m cstar_core.architectures.catalog` prints the architectures as JSON.

A process that must not import torch reads that list from a file.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cstar_core.architectures.entry import Architecture, Entry
from cstar_core.architectures.registry import ENTRIES, skeleton


def catalog() -> list[dict[str, Any]]:
    """Name, summary, arguments with their defaults, usual input and parameters of every entry."""
    return [_described(entry) for entry in ENTRIES.values()]


def _described(entry: Entry) -> dict[str, Any]:
    parameters = skeleton(Architecture(entry.name)).parameters()
    return {
        "name": entry.name,
        "summary": entry.summary,
        "arguments": {name: argument.default for name, argument in entry.arguments.items()},
        "input_shape": list(entry.input_shape),
        "parameters": sum(parameter.numel() for parameter in parameters),
    }


if __name__ == "__main__":
    json.dump(catalog(), sys.stdout, indent=2)
    sys.stdout.write("\n")
