"""Which architecture weights belong to, key by key and shape by shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cstar_core.architectures import registry
from cstar_core.architectures.entry import Architecture, Entry, Shapes, Value
from cstar_core.errors import InvalidModel
from cstar_core.files.listing import listing

# Batch norm counts its batches since torch 0.4.1; older files lack the count, and eval needs none.
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Mismatch:
    """How the weights found differ from the weights an architecture has."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def count(self) -> int:
        """Keys that do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def describe(self, *, limit: int = 8) -> str:
        """The first `limit` keys of each kind, with counts."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of another shape": self.misshapen,
        }
        return "; ".join(
            f"{len(keys)} {kind}: {listing(keys, limit=limit)}"
            for kind, keys in kinds.items()
            if keys
        )


def recognise(shapes: Shapes) -> Architecture:
    """The one architecture whose every key and shape these are, all arguments inferred.

    Raises `InvalidModel`: `architecture_not_recognised` naming the closest candidate, or
    `architecture_ambiguous` when several fit.
    """
    compared = [
        (architecture, _compare(architecture, shapes)) for architecture in _candidates(shapes)
    ]
    fitting = [architecture for architecture, mismatch in compared if mismatch.count == 0]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InvalidModel(
            f"The weights fit {listing(found.name for found in fitting)} alike; "
            "name the architecture.",
            code="architecture_ambiguous",
        )
    closest, mismatch = min(compared, key=lambda pair: pair[1].count)
    raise InvalidModel(
        f"The weights belong to none of {listing(registry.names(), limit=100)}. "
        f"The closest is {closest.name} with {mismatch.describe(limit=3)}. "
        "Rename the keys to fit, or upload a network of a known architecture.",
        code="architecture_not_recognised",
    )


def fit(name: str, arguments: Mapping[str, Value], shapes: Shapes) -> Architecture:
    """The named architecture, its missing arguments inferred, once every key and shape agrees.

    Raises `InvalidModel`: `unknown_architecture`, `invalid_arguments`, `weights_do_not_fit`.
    """
    entry = registry.find(name)
    registry.complete(entry, dict(arguments))
    architecture = _inferred(entry, shapes, arguments)
    mismatch = _compare(architecture, shapes)
    if mismatch.count:
        raise InvalidModel(
            f"The weights do not fit {name} with {_text(architecture.arguments)}: "
            f"{mismatch.describe()}. Choose the architecture they were trained with, or auto.",
            code="weights_do_not_fit",
        )
    return architecture


def load(architecture: Architecture, state: Mapping[str, Tensor]) -> nn.Module:
    """The network with copies of these weights, in eval mode, on their device.

    Strict: raises `InvalidModel` (`weights_do_not_fit`) unless every key and shape agrees; only
    `num_batches_tracked` may be missing.
    """
    fit(architecture.name, architecture.arguments, shapes_of(state))
    device = next(iter(state.values())).device
    network = registry.skeleton(architecture).to_empty(device=device)
    counters = {
        key: torch.zeros_like(value)
        for key, value in network.state_dict().items()
        if key.endswith(_COUNTER)
    }
    network.load_state_dict(counters | dict(state), strict=True)
    return network.eval()


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a state dictionary."""
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _candidates(shapes: Shapes) -> list[Architecture]:
    return [_inferred(entry, shapes, {}) for entry in registry.ENTRIES.values()]


def _inferred(entry: Entry, shapes: Shapes, given: Mapping[str, Value]) -> Architecture:
    """The architecture with `given`, and defaults for what the weights do not tell sensibly."""
    arguments: dict[str, Value] = {}
    for name, argument in entry.arguments.items():
        try:
            value = argument.infer(shapes)
        except LookupError:
            value = argument.default
        arguments[name] = value if argument.accepts(value) else argument.default
    return Architecture(entry.name, arguments | dict(given))


def _compare(architecture: Architecture, shapes: Shapes) -> Mismatch:
    expected = shapes_of(registry.skeleton(architecture).state_dict())
    missing = (key for key in expected if key not in shapes and not key.endswith(_COUNTER))
    misshapen = (
        f"{key} {tuple(shapes[key])} instead of {shape}"
        for key, shape in expected.items()
        if key in shapes and tuple(shapes[key]) != shape
    )
    unexpected = (key for key in shapes if key not in expected)
    return Mismatch(tuple(missing), tuple(unexpected), tuple(misshapen))


def _text(arguments: Mapping[str, Value]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())
