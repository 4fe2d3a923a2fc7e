from __future__ import annotations

import torch
from torch import nn

from cstar_core.training.calibration import reestimate_batch_norm

from .problems import dataset, network


def batches() -> list[torch.Tensor]:
    images = dataset()[0].float() / 255
    return [images[start : start + 16] for start in range(0, len(images), 16)]


def test_statistics_are_those_of_the_batches() -> None:
    model = network()
    assert reestimate_batch_norm(model, batches()) == 2
    inputs = model[0](torch.cat(batches()))
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, inputs.mean((0, 2, 3)), atol=1e-6)


def test_what_the_statistics_were_before_does_not_matter() -> None:
    fresh, stale = network(), network()
    for batch in batches():
        stale(batch * 3)
    for model in (fresh, stale):
        reestimate_batch_norm(model, batches())
    assert torch.equal(fresh[4].running_var, stale[4].running_var)  # type: ignore[arg-type]


def test_modes_and_momenta_are_given_back() -> None:
    model = network().train()
    model[4].eval()
    reestimate_batch_norm(model, batches())
    assert [module.training for module in (model, model[1], model[4])] == [True, True, False]
    assert isinstance(model[1], nn.BatchNorm2d)
    assert model[1].momentum == 0.1
