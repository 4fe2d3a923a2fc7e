"""The architectures by name, and how one is built."""

from __future__ import annotations

import torch
from torch import nn

from cstar_core.architectures import mobilenet, preactivation, resnet, small, vgg
from cstar_core.architectures.entry import Architecture, Entry, Value
from cstar_core.architectures.initialization import initialise
from cstar_core.errors import InvalidModel
from cstar_core.files.listing import listing, shown

_FAMILIES = (resnet, preactivation, vgg, mobilenet, small)

ENTRIES: dict[str, Entry] = {entry.name: entry for family in _FAMILIES for entry in family.ENTRIES}


def names() -> list[str]:
    """The names of all architectures, in the order of the registry."""
    return list(ENTRIES)


def find(name: str) -> Entry:
    """The entry of that name. Raises `InvalidModel` (`unknown_architecture`)."""
    if name not in ENTRIES:
        raise InvalidModel(
            f"There is no architecture {shown(name)}; known ones are "
            f"{listing(ENTRIES, limit=len(ENTRIES))}. Leave it as auto to have it recognised.",
            code="unknown_architecture",
        )
    return ENTRIES[name]


def build(architecture: Architecture, *, seed: int = 0) -> nn.Module:
    """A freshly initialised network on the CPU, in training mode; the global RNG is not touched.

    Raises `InvalidModel`: `unknown_architecture`, `invalid_arguments`.
    """
    network = skeleton(architecture).to_empty(device="cpu")
    initialise(network, seed=seed)
    return network


def skeleton(architecture: Architecture) -> nn.Module:
    """The network on the meta device: shapes, and no numbers."""
    entry = find(architecture.name)
    arguments = complete(entry, architecture.arguments)
    with torch.device("meta"):
        return entry.make(**arguments)


def complete(entry: Entry, arguments: dict[str, Value]) -> dict[str, Value]:
    """All arguments, defaults filled in. Raises `InvalidModel` (`invalid_arguments`)."""
    unknown = [name for name in arguments if name not in entry.arguments]
    wrong = [
        name
        for name, argument in entry.arguments.items()
        if name in arguments and not argument.accepts(arguments[name])
    ]
    if unknown or wrong:
        accepted = "; ".join(f"{name} ({entry.arguments[name]})" for name in entry.arguments)
        raise InvalidModel(
            f"{entry.name} does not take {listing([*unknown, *wrong])} as given; "
            f"it takes {accepted}.",
            code="invalid_arguments",
        )
    return {name: argument.default for name, argument in entry.arguments.items()} | arguments


def stem_name(architecture: Architecture) -> str:
    """The module name of the first convolution."""
    return find(architecture.name).stem


def classifier_name(architecture: Architecture) -> str:
    """The module name of the last linear layer."""
    return find(architecture.name).classifier
