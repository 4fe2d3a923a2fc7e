"""torch-pruning as a peer: the same network with fewer filters at the same count of parameters."""

from __future__ import annotations

import copy

import torch
from torch import nn

from benchmarks.harness import Unavailable
from benchmarks.networks import SHAPE, Subject
from cstar_core.layers import count_parameters

BISECTIONS = 8


def pruned(subject: Subject, parameters: int, *, multiple: int) -> nn.Module:
    """The network with the smallest share of filters taken away that leaves `parameters` or less.

    Groups by magnitude, as torch-pruning does by default; the classifier stays.
    """
    low, high = 0.0, 1.0
    found = _prune(subject, high, multiple=multiple)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        network = _prune(subject, middle, multiple=multiple)
        if count_parameters(network) <= parameters:
            high, found = middle, network
        else:
            low = middle
    return found


def _prune(subject: Subject, share: float, *, multiple: int) -> nn.Module:
    try:
        import torch_pruning  # noqa: PLC0415
    except ImportError as missing:
        raise Unavailable("torch-pruning is missing; run `make bench`") from missing
    network = copy.deepcopy(subject.network)
    torch_pruning.pruner.BasePruner(
        network,
        torch.zeros(1, *SHAPE),
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=share,
        ignored_layers=[module for module in network.modules() if isinstance(module, nn.Linear)],
        round_to=multiple,
    ).step()
    return network
