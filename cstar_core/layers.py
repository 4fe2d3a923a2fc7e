"""What a network is made of, as the planner sees it: one `Layer` for each convolution and linear.

Parameter counts here are of the weight alone: the bias of a layer is kept whatever is done to its
weight, and the planner counts it with everything else that stays. A MAC is one multiply-accumulate
for one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cstar_core.errors import InvalidModel
from cstar_core.projection import Ranks

Kind = Literal["conv", "pointwise", "linear"]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: weight (O, I / groups, kh, kw), sizes as (height, width).

    `kind` is "conv" for kernels larger than 1x1, "pointwise" for 1x1, "linear" for `nn.Linear`,
    whose spatial size is (vectors per image, 1).
    """

    name: str
    kind: Kind
    O: int  # noqa: E741 - the paper's letter
    I: int  # noqa: E741
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair | str = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    input_hw: Pair = (1, 1)
    output_hw: Pair = (1, 1)
    is_stem: bool = False

    @property
    def taps(self) -> int:
        """Positions of the kernel, kh kw."""
        return self.kernel[0] * self.kernel[1]

    @property
    def max_ranks(self) -> Ranks:
        """The largest ranks that are not dead: no mode exceeds what the other one can feed."""
        if self.kind != "conv":
            return Ranks(min(self.O, self.I), min(self.O, self.I))
        return Ranks(min(self.O, self.I * self.taps), min(self.I, self.O * self.taps))

    @property
    def dense_parameters(self) -> int:
        """O I kh kw / groups."""
        return self.O * (self.I // self.groups) * self.taps

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of the dense layer for one image."""
        return _area(self.output_hw) * self.dense_parameters

    def factorised_parameters(self, ranks: Ranks) -> int:
        """r_in I + r_out r_in kh kw + r_out O; r (O + I) for an SVD pair of r = r_out = r_in."""
        if self.kind != "conv":
            return ranks.r_out * (self.O + self.I)
        return ranks.r_in * self.I + ranks.r_out * ranks.r_in * self.taps + ranks.r_out * self.O

    def factorised_macs(self, ranks: Ranks) -> int:
        """H_i W_i r_in I + H_o W_o (r_out r_in kh kw + r_out O).

        The first 1x1 runs at the input resolution. An SVD pair carries the stride in its first
        factor and runs at the output resolution throughout.
        """
        if self.kind != "conv":
            return _area(self.output_hw) * self.factorised_parameters(ranks)
        at_output = ranks.r_out * ranks.r_in * self.taps + ranks.r_out * self.O
        return _area(self.input_hw) * ranks.r_in * self.I + _area(self.output_hw) * at_output


def describe(
    network: nn.Module, input_shape: Sequence[int], *, stem: str | None = None
) -> list[Layer]:
    """The convolutions and linear layers of `network` in the order a forward pass meets them.

    Runs one batch of zeros of shape (1, *input_shape) in eval mode; the network is left as it was.
    `stem` names the layer that counts as the stem; without it the first convolution met does.

    Raises `InvalidModel` if a layer runs more than once in a pass (its ranks would be bound
    together), ValueError if `stem` names no layer.
    """
    layers: list[Layer] = []

    def record(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        if any(layer.name == name for layer in layers):
            raise InvalidModel(
                f"layer {name!r} runs more than once in a pass; give each use a layer of its own",
                code="unsupported_layer",
            )
        layers.append(_layer(name, module, inputs, output))

    _visit(network, input_shape, record)
    stem = stem or next((layer.name for layer in layers if layer.kind != "linear"), None)
    if stem is not None and stem not in {layer.name for layer in layers}:
        raise ValueError(f"stem {stem!r} is not a convolution or linear layer of the network")
    return [replace(layer, is_stem=layer.name == stem) for layer in layers]


def count_parameters(module: nn.Module) -> int:
    """Number of learnable parameters, every one, frozen or not; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one image of `input_shape`."""
    macs = 0

    def add(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        nonlocal macs
        macs += _layer(name, module, inputs, output).dense_macs

    _visit(module, input_shape, add)
    return macs


Visitor = Callable[[str, nn.Module, Tensor, Tensor], None]


def _visit(network: nn.Module, input_shape: Sequence[int], visitor: Visitor) -> None:
    """Call `visitor(name, module, input, output)` at every convolution and linear layer."""
    example = next(network.parameters(), torch.empty(0))
    batch = torch.zeros(1, *input_shape, device=example.device, dtype=example.dtype)
    with ExitStack() as stack, torch.no_grad(), eval_mode(network):
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                handle = module.register_forward_hook(_hook(name, visitor))
                stack.callback(handle.remove)
        network(batch)


def _hook(name: str, visitor: Visitor) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        visitor(name, module, inputs[0], output)

    return hook


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode for the time being; every module gets its own flag back."""
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def _layer(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> Layer:
    if isinstance(module, nn.Linear):
        return Layer(
            name=name,
            kind="linear",
            O=module.out_features,
            I=module.in_features,
            bias=module.bias is not None,
            input_hw=(inputs.numel() // inputs.shape[-1], 1),
            output_hw=(output.numel() // output.shape[-1], 1),
        )
    if not isinstance(module, nn.Conv2d):
        raise TypeError(f"expected a convolution or linear layer, got {type(module).__name__}")
    return Layer(
        name=name,
        kind="pointwise" if _pair(module.kernel_size) == (1, 1) else "conv",
        O=module.out_channels,
        I=module.in_channels,
        kernel=_pair(module.kernel_size),
        stride=_pair(module.stride),
        padding=module.padding if isinstance(module.padding, str) else _pair(module.padding),
        dilation=_pair(module.dilation),
        groups=module.groups,
        bias=module.bias is not None,
        input_hw=_pair(inputs.shape[-2:]),
        output_hw=_pair(output.shape[-2:]),
    )


def _pair(sizes: Sequence[int]) -> Pair:
    height, width = sizes
    return int(height), int(width)


def _area(size: Pair) -> int:
    return size[0] * size[1]
