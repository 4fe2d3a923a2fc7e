from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.training.admm import Admm, AdmmConfig
from cstar_core.training.config import AwpConfig
from cstar_core.training.perturbation import WeightPerturbation

from .problems import config, dataset, differences, finish, network, trainer


def loss_of(model: nn.Module) -> Tensor:
    images, labels = dataset()
    return nn.functional.cross_entropy(model(images.float() / 255), labels)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), gamma=st.floats(1e-4, 1e-2))
def test_the_loss_at_the_perturbed_weights_is_not_lower(seed: int, gamma: float) -> None:
    model = network(seed).train()
    before = loss_of(model).item()
    with WeightPerturbation(model, gamma=gamma).applied(lambda: loss_of(model)):
        assert loss_of(model).item() >= before - 1e-6


def test_weights_move_by_gamma_times_their_norm_and_vectors_stay() -> None:
    model = network().train()
    before = copy.deepcopy(model)
    with WeightPerturbation(model, gamma=0.1).applied(lambda: loss_of(model)):
        for moved, weight in zip(model.parameters(), before.parameters(), strict=True):
            expected = 0.1 * weight.norm() if weight.dim() > 1 else torch.zeros(())
            assert torch.isclose((moved - weight).norm(), expected, rtol=1e-4)


def test_weights_move_along_the_gradient() -> None:
    model, reference = network().train(), network().train()
    loss_of(reference).backward()  # type: ignore[no-untyped-call]
    with WeightPerturbation(model, gamma=0.1).applied(lambda: loss_of(model)):
        moved = model[3].weight - reference[3].weight
        cosine = nn.functional.cosine_similarity(
            moved.flatten(),
            reference[3].weight.grad.flatten(),
            dim=0,  # type: ignore[union-attr]
        )
    assert float(cosine.detach()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("fails", [False, True])
def test_weights_and_statistics_come_back_exactly(fails: bool) -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        with WeightPerturbation(model, gamma=0.3).applied(lambda: loss_of(model)):
            assert all(p.grad is None for p in model.parameters())
            if fails:
                raise RuntimeError("planted")
    except RuntimeError:
        assert fails
    assert differences(model.state_dict(), before) == []


def test_a_weight_without_a_gradient_stays() -> None:
    model = network().train()
    model[3].weight.requires_grad_(False)
    with torch.no_grad():
        model[7].weight.zero_()  # a norm of zero: nothing to move by, and no gradient below it
    with WeightPerturbation(model, gamma=0.1).applied(lambda: loss_of(model)):
        assert torch.equal(model[3].weight, network()[3].weight)
        assert torch.equal(model[0].weight, network()[0].weight)


def test_a_gamma_of_zero_is_training_without_perturbation_bit_for_bit() -> None:
    with_zero = trainer(config(awp=AwpConfig(gamma=0.0, warmup_share=0.0), ema=0.9))
    without = trainer(config(ema=0.9))
    finish(with_zero)
    finish(without)
    assert differences(with_zero.state_dict(), without.state_dict()) == []


def test_perturbation_begins_after_its_share_of_the_epochs() -> None:
    late = trainer(config(epochs=4, awp=AwpConfig(gamma=0.05, warmup_share=0.5)))
    without = trainer(config(epochs=4))
    for runs in zip(late.run(), without.run(), strict=True):
        same = differences(late.state_dict()["model"], without.state_dict()["model"]) == []
        assert same == (runs[0].epoch < 2), runs[0]


def test_the_penalty_is_taken_at_the_unperturbed_weights() -> None:
    """With a loss that no weight of layer 3 reaches, its gradient is the penalty's alone."""
    model = network()
    weight = model[3].weight
    with torch.no_grad():
        model[7].weight.zero_()
    constraint = Admm({"3": weight}, {"3": torch.zeros_like}, rho=0.5, config=AdmmConfig(epochs=3))
    plain = config(weight_decay=0.0, momentum=0.0, learning_rate=0.1)
    settings_ = config(**vars(plain) | {"awp": AwpConfig(gamma=0.5, warmup_share=0.0)})
    before = weight.detach().clone()
    next(trainer(settings_, model=model, constraint=constraint).run())
    assert torch.allclose(weight, before - 0.1 * 0.5 * before)


def test_a_perturbed_run_still_learns() -> None:
    run = trainer(config(epochs=8, awp=AwpConfig(gamma=0.01)))
    last = finish(run)[-2]
    assert last.accuracy > 0.95  # type: ignore[union-attr]
