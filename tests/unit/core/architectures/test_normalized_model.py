"""Normalisation inside the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cstar_core.errors import InvalidModel
from cstar_core.normalization import NormalizedModel


def test_network_sees_normalised_images() -> None:
    model = NormalizedModel(nn.Identity(), mean=(0.5, 0.25), std=(0.5, 0.25))
    images = torch.ones(1, 2, 3, 3)
    assert torch.equal(model(images)[0, :, 0, 0], torch.tensor([1.0, 3.0]))


def test_statistics_stay_out_of_the_state_dictionary() -> None:
    model = NormalizedModel(nn.Linear(2, 2), mean=(0.5,), std=(0.5,))
    assert set(model.state_dict()) == {"network.weight", "network.bias"}
    assert model.mean.shape == model.std.shape == (1, 1, 1, 1)


def test_gradient_is_with_respect_to_pixels() -> None:
    images = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
    NormalizedModel(nn.Identity(), mean=(0.0,), std=(0.25,))(images).sum().backward()
    assert images.grad is not None
    assert images.grad.item() == 4.0


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5,), (0.0,)),
        ((0.5,), (-1.0,)),
        ((0.5, 0.5), (1.0,)),
        ((float("nan"),), (1.0,)),
        ((), ()),
    ],
    ids=["zero", "negative", "lengths", "nan", "empty"],
)
def test_unusable_statistics_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(InvalidModel) as refusal:
        NormalizedModel(nn.Identity(), mean=mean, std=std)
    assert refusal.value.code == "invalid_normalization"
