"""The inventory of layers and the counting of parameters and MACs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cstar_core.errors import InvalidModel
from cstar_core.layers import Layer, count_macs, count_parameters, describe
from cstar_core.projection import Ranks

from .networks import INPUT, conv, residual_net


def by_name(name: str) -> Layer:
    layers = describe(residual_net(), INPUT)
    return next(layer for layer in layers if layer.name == name)


def test_layers_come_in_the_order_of_the_forward_pass() -> None:
    names = [layer.name for layer in describe(residual_net(), INPUT)]
    assert names == ["stem", "down", "wide", "shortcut", "fc"]


def test_a_strided_convolution_is_described_in_full() -> None:
    assert by_name("down") == Layer(
        name="down",
        kind="conv",
        O=12,
        I=8,
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
        input_hw=(8, 8),
        output_hw=(4, 4),
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("wide", "conv"), ("shortcut", "pointwise"), ("fc", "linear")]
)
def test_kinds_follow_the_kernel(name: str, kind: str) -> None:
    assert by_name(name).kind == kind


def test_the_first_convolution_is_the_stem_unless_another_is_named() -> None:
    assert [layer.name for layer in describe(residual_net(), INPUT) if layer.is_stem] == ["stem"]
    named = describe(residual_net(), INPUT, stem="down")
    assert [layer.name for layer in named if layer.is_stem] == ["down"]


def test_a_stem_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        describe(residual_net(), INPUT, stem="nowhere")


def test_describing_leaves_the_network_as_it_was() -> None:
    network = residual_net().train()
    network.pool.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    describe(network, INPUT)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert not network.pool.training
    assert not any(module._forward_hooks for module in network.modules())


def test_a_layer_that_runs_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            once: Tensor = self.conv(x)
            twice: Tensor = self.conv(once)
            return twice

    with pytest.raises(InvalidModel, match="more than once"):
        describe(Twice(), INPUT)


def test_parameters_of_a_factorised_convolution() -> None:
    layer = conv("c", out=10, into=6, size=8)
    assert layer.dense_parameters == 10 * 6 * 9
    assert layer.factorised_parameters(Ranks(4, 3)) == 3 * 6 + 4 * 3 * 9 + 4 * 10


def test_the_first_factor_runs_at_the_input_resolution() -> None:
    layer = conv("c", out=10, into=6, size=8, stride=2)
    assert layer.dense_macs == 16 * 10 * 6 * 9
    assert layer.factorised_macs(Ranks(4, 3)) == 64 * 3 * 6 + 16 * (4 * 3 * 9 + 4 * 10)


def test_an_svd_pair_runs_at_the_output_resolution() -> None:
    layer = conv("c", out=10, into=6, size=8, k=1, stride=2)
    assert layer.factorised_parameters(Ranks(3, 3)) == 3 * 16
    assert layer.factorised_macs(Ranks(3, 3)) == 16 * 3 * 16


def test_grouped_convolutions_count_the_weights_they_have() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, bias=False))
    (layer,) = describe(network, (4, 8, 8))
    assert layer.dense_parameters == count_parameters(network)


def test_every_learnable_parameter_counts_frozen_or_not() -> None:
    network = residual_net()
    network.fc.weight.requires_grad_(False)
    convolutions = 3 * 8 * 9 + 8 * 12 * 9 + (12 * 16 * 9 + 16) + 12 * 16
    assert count_parameters(network) == convolutions + 2 * 8 + 16 * 10 + 10


def test_macs_of_a_network_are_the_sum_of_its_layers() -> None:
    layers = describe(residual_net(), INPUT)
    assert count_macs(residual_net(), INPUT) == sum(layer.dense_macs for layer in layers)


def test_max_ranks_are_not_dead() -> None:
    assert conv("c", out=64, into=3, size=8).max_ranks == Ranks(27, 3)
    assert conv("c", out=64, into=3, size=8, k=1).max_ranks == Ranks(3, 3)
