"""Where the factors of a network are: the one place that knows how a factorised layer looks.

`factorization` replaces a layer by an `nn.Sequential` of plain convolutions or linear layers with
nothing in between. No architecture of ours has such a chain of its own: there, a norm or an
activation stands between any two layers.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def is_factorised(module: nn.Module) -> bool:
    """Whether `module` is a factorised layer: at least two linear maps in a row, nothing else."""
    return (
        isinstance(module, nn.Sequential)
        and len(module) > 1
        and all(isinstance(child, nn.Conv2d | nn.Linear) for child in module)
    )


def factor_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of all factors in `network`, without their biases."""
    for module in network.modules():
        if is_factorised(module):
            yield from (parameter for parameter in module.parameters() if parameter.dim() > 1)
