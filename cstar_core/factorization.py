"""Replacing the layers of a network by their factors, as a rank plan says.

A k x k convolution becomes three plain ones, 1x1 (I -> r_in), k x k (r_in -> r_out; stride,
padding, dilation) and 1x1 (r_out -> O; bias), with nothing in between (Kim et al., ICLR 2016). A
1x1 convolution or a linear layer becomes two, of which the first carries the stride. What the
factors compute is exactly the layer with the projected weight.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cstar_core.errors import InvalidModel
from cstar_core.projection import Ranks, Tucker2, tucker2
from cstar_core.ranks.plan import LayerPlan, RankPlan

HOOI_SWEEPS = 10  # at most, once at the end; on trained networks it stops after 2 to 9


def factorise(
    network: nn.Module,
    plan: RankPlan,
    *,
    hooi_sweeps: int = HOOI_SWEEPS,
    weights: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A deep copy of `network` whose planned layers are `nn.Sequential`s of their factors.

    `weights` replaces the weights of the layers it names (Z or V of ADMM) before they are
    decomposed. The factors are scaled to equal norms; their product does not change.

    Raises `InvalidModel` if the plan does not fit the network, `Diverged` for a weight that is not
    finite.
    """
    weights = weights or {}
    copied = restructure(network, plan)
    for layer in plan.factorised:
        original = _planned_layer(network, layer)
        weight = weights.get(layer.name, original.weight).to(original.weight)
        factors = _factor_weights(weight, _ranks(layer), hooi_sweeps)
        with torch.no_grad():
            for module, factor in zip(_factors(copied, layer.name), factors, strict=True):
                module.weight.copy_(factor.reshape(module.weight.shape))
    return copied


def restructure(network: nn.Module, plan: RankPlan) -> nn.Module:
    """A deep copy of `network` in the structure of `plan`, with zero factors, to load weights into.

    Biases and every other parameter are copied. Raises `InvalidModel` if the plan does not fit.
    """
    copied = copy.deepcopy(network)
    for layer in plan.factorised:
        original = _planned_layer(copied, layer)
        parent, _, child = layer.name.rpartition(".")
        setattr(copied.get_submodule(parent), child, _empty_factors(original, _ranks(layer)))
    return copied


def _empty_factors(layer: nn.Conv2d | nn.Linear, ranks: Ranks) -> nn.Sequential:
    if isinstance(layer, nn.Linear):
        sequential = _linear_pair(layer, ranks)
    elif layer.kernel_size == (1, 1):
        sequential = _pointwise_pair(layer, ranks)
    else:
        sequential = _tucker_triple(layer, ranks)
    sequential.to_empty(device=layer.weight.device).to(layer.weight.dtype).train(layer.training)
    with torch.no_grad():
        for parameter in sequential.parameters():
            parameter.zero_()
        if layer.bias is not None:
            sequential.get_parameter(f"{len(sequential) - 1}.bias").copy_(layer.bias)
    return sequential


def _linear_pair(layer: nn.Linear, ranks: Ranks) -> nn.Sequential:
    first = _quiet_linear(layer.in_features, ranks.r_in, bias=False)
    last = _quiet_linear(ranks.r_out, layer.out_features, bias=layer.bias is not None)
    return nn.Sequential(first, last)


def _pointwise_pair(layer: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
    first = _quiet_conv(layer, layer.in_channels, ranks.r_in, spatial=True)
    return nn.Sequential(first, _last_conv(layer, ranks))


def _tucker_triple(layer: nn.Conv2d, ranks: Ranks) -> nn.Sequential:
    first = _quiet_conv(layer, layer.in_channels, ranks.r_in)
    core = _quiet_conv(layer, ranks.r_in, ranks.r_out, spatial=True)
    return nn.Sequential(first, core, _last_conv(layer, ranks))


def _last_conv(layer: nn.Conv2d, ranks: Ranks) -> nn.Conv2d:
    return _quiet_conv(layer, ranks.r_out, layer.out_channels, bias=layer.bias is not None)


def _quiet_linear(inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    # On the meta device the constructor leaves the global random state alone.
    return nn.Linear(inputs, outputs, bias=bias, device="meta")


def _quiet_conv(
    layer: nn.Conv2d, inputs: int, outputs: int, *, spatial: bool = False, bias: bool = False
) -> nn.Conv2d:
    """A 1x1 convolution, or with `spatial` one of the kernel and movement of `layer`."""
    if not spatial:
        return nn.Conv2d(inputs, outputs, 1, bias=bias, device="meta")
    return nn.Conv2d(
        inputs,
        outputs,
        _pair(layer.kernel_size),
        stride=_pair(layer.stride),
        padding=layer.padding if isinstance(layer.padding, str) else _pair(layer.padding),
        dilation=_pair(layer.dilation),
        padding_mode=layer.padding_mode,
        bias=bias,
        device="meta",
    )


def _factor_weights(weight: Tensor, ranks: Ranks, hooi_sweeps: int) -> list[Tensor]:
    """The weights of the factors, first to last, in float64."""
    parts = tucker2(weight.double(), ranks, hooi_sweeps=hooi_sweeps)
    if parts.core[0, 0].numel() == 1:
        return _balanced_pair(parts)
    return _balanced([parts.in_factor.T, parts.core, parts.out_factor])


def _balanced(factors: Sequence[Tensor]) -> list[Tensor]:
    """The factors scaled to one common Frobenius norm."""
    norms = torch.stack([factor.norm() for factor in factors])
    if not bool((norms > 0).all()):
        return list(factors)
    common = norms.log().mean().exp()
    return [factor * (common / norm) for factor, norm in zip(factors, norms, strict=True)]


def _balanced_pair(parts: Tucker2) -> list[Tensor]:
    """(r, I) and (O, r) whose matching rows and columns have equal norms, sqrt(sigma)."""
    left = parts.out_factor @ parts.core.reshape(*parts.ranks)  # (O, r)
    scale = left.norm(dim=0).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    return [scale[:, None] * parts.in_factor.T, left / scale]


def _factors(network: nn.Module, name: str) -> list[nn.Conv2d | nn.Linear]:
    children = network.get_submodule(name).children()
    return [child for child in children if isinstance(child, nn.Conv2d | nn.Linear)]


def _planned_layer(network: nn.Module, layer: LayerPlan) -> nn.Conv2d | nn.Linear:
    try:
        module = network.get_submodule(layer.name)
    except AttributeError as error:
        raise InvalidModel(f"the plan's layer {layer.name!r} is not in the network") from error
    if not isinstance(module, nn.Conv2d | nn.Linear) or _groups(module) > 1:
        raise InvalidModel(
            f"layer {layer.name!r} is a {type(module).__name__}, not a dense convolution or linear "
            "layer; make the plan for this network"
        )
    outputs, inputs = module.weight.shape[:2]
    taps = module.weight[0, 0].numel()
    ranks = _ranks(layer)
    if ranks.r_out > min(outputs, inputs * taps) or ranks.r_in > min(inputs, outputs * taps):
        raise InvalidModel(
            f"ranks {tuple(ranks)} of layer {layer.name!r} do not fit its weight "
            f"{tuple(module.weight.shape)}; make the plan for this network"
        )
    return module


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    height, width = sizes
    return height, width


def _groups(module: nn.Conv2d | nn.Linear) -> int:
    return module.groups if isinstance(module, nn.Conv2d) else 1


def _ranks(layer: LayerPlan) -> Ranks:
    if layer.ranks is None:
        raise InvalidModel(f"the plan factorises layer {layer.name!r} but names no ranks for it")
    return layer.ranks
