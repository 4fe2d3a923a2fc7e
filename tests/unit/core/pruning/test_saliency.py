"""The norm of everything that goes with a channel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cstar_core.pruning import coupling, saliency
from tests.unit.core.pruning.networks import KINDS, network


def test_it_sums_what_makes_a_channel_and_what_reads_it() -> None:
    chain = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 3, 1, bias=False),
        nn.Conv2d(3, 1, 1),
    )
    with torch.no_grad():
        chain[0].weight.copy_(torch.tensor([1.0, -2.0])[:, None, None, None])
        chain[1].weight.copy_(torch.tensor([0.5, 3.0]))
        chain[2].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.5, 0.0]])[..., None, None])
    values = saliency(chain, coupling(chain))["0"]

    assert torch.allclose(values, torch.tensor([4.0, 6.0], dtype=torch.float64) / 5)


def test_a_flattened_channel_has_the_weights_of_all_its_pixels() -> None:
    made = network("depthwise")
    with torch.no_grad():
        made.get_parameter("hidden.weight").zero_()
        made.get_parameter("hidden.weight")[0, 16:32] = 1000.0  # the pixels of channel 1
    values = saliency(made, coupling(made))["stem"]

    assert values.argmax() == 1
    assert values[1] > 7


@pytest.mark.parametrize("kind", KINDS)
def test_groups_compare_since_each_has_mean_one(kind: str) -> None:
    made = network(kind)

    for values in saliency(made, coupling(made)).values():
        assert values.mean().item() == pytest.approx(1.0)
