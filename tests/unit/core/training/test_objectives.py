"""Every objective against a plain re-computation of its formula in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.training.objectives import (
    AttackedBatch,
    CrossEntropy,
    Distillation,
    Loss,
    Mart,
    Trades,
    crafting_loss,
    make_objective,
)

from .problems import CLASSES, config, dataset, network

seeds = st.integers(0, 2**31)


def batch(seed: int = 0) -> AttackedBatch:
    images, labels = dataset(12, seed)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    clean = images.float() / 255
    return AttackedBatch(clean, (clean + noise).clamp(0, 1), labels)


def linear(seed: int) -> nn.Module:
    """A network without batch norm, so that its answer to an image depends on nothing else."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source))
    return model


def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return torch.softmax(copy.deepcopy(model).double()(images.double()), dim=1).detach()


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum(1)


def mean_log(p: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([p[i, y].log() for i, y in enumerate(labels.tolist())]).mean()


def cross_entropy(seed: int, given_batch: AttackedBatch) -> Tensor:
    p = probabilities(linear(seed), given_batch.adversarial)
    smooth = -0.1 * p.log().mean()  # 0.1 of the mass is spread over all classes
    return smooth - 0.9 * mean_log(p, given_batch.labels)


def trades(seed: int, given_batch: AttackedBatch) -> Tensor:
    p = probabilities(linear(seed), given_batch.images)
    q = probabilities(linear(seed), given_batch.adversarial)
    return -mean_log(p, given_batch.labels) + 3.0 * kl(p, q).mean()


def mart(seed: int, given_batch: AttackedBatch) -> Tensor:
    p = probabilities(linear(seed), given_batch.images)
    q = probabilities(linear(seed), given_batch.adversarial)
    terms = []
    for i, y in enumerate(given_batch.labels.tolist()):
        rival = max(float(q[i, k]) for k in range(CLASSES) if k != y)
        boosted = -q[i, y].log() - torch.log(torch.tensor(1 - rival, dtype=torch.float64))
        terms.append(boosted + 3.0 * kl(p, q)[i] * (1 - p[i, y]))
    return torch.stack(terms).mean()


def distillation(seed: int, given_batch: AttackedBatch) -> Tensor:
    target = probabilities(linear(99), given_batch.images)
    p = probabilities(linear(seed), given_batch.images)
    q = probabilities(linear(seed), given_batch.adversarial)
    return 0.25 * kl(target, p).mean() + 0.75 * kl(target, q).mean()


@pytest.mark.parametrize(
    ("objective", "formula"),
    [
        (CrossEntropy(label_smoothing=0.1), cross_entropy),
        (Trades(beta=3.0), trades),
        (Mart(beta=3.0), mart),
        (Distillation(linear(99), alpha=0.75), distillation),
    ],
    ids=lambda value: type(value).__name__,
)
@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_an_objective_is_its_formula(
    objective: Loss, formula: Callable[[int, AttackedBatch], Tensor], seed: int
) -> None:
    given_batch = batch(seed)
    loss, logits = objective(linear(seed), given_batch)
    assert torch.allclose(loss.double(), formula(seed, given_batch), rtol=1e-4, atol=1e-5)
    expected = probabilities(linear(seed), given_batch.adversarial)
    assert torch.allclose(logits.softmax(1).double(), expected, atol=1e-5)


@pytest.mark.parametrize("objective", [Trades(beta=0.0), Mart(beta=0.0)])
def test_without_its_regulariser_an_objective_sees_only_one_kind_of_image(objective: Loss) -> None:
    given_batch, model = batch(), linear(0)
    unused = "adversarial" if isinstance(objective, Trades) else "images"
    other = AttackedBatch(**{**vars(given_batch), unused: torch.zeros_like(given_batch.images)})
    assert torch.equal(objective(model, given_batch)[0], objective(model, other)[0])


@pytest.mark.parametrize("objective", [Trades(beta=6.0), Mart(beta=5.0)])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_extreme_logits_leave_loss_and_gradient_finite(objective: Loss, scale: float) -> None:
    model = linear(1)
    with torch.no_grad():
        model[1].weight.mul_(scale)  # type: ignore[index]
    loss, _ = objective(model, batch())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_the_gradient_reaches_the_network_through_clean_and_adversarial_images() -> None:
    given_batch = batch()
    silent = AttackedBatch(
        given_batch.images, torch.zeros_like(given_batch.images), given_batch.labels
    )
    gradients = []
    for images in (given_batch, silent):
        model = linear(0)
        Trades(beta=1.0)(model, images)[0].backward()  # type: ignore[no-untyped-call]
        gradients.append(model[1].weight.grad)  # type: ignore[index]
    assert not torch.equal(*gradients)


@pytest.mark.parametrize(
    ("changes", "kind", "crafted_on"),
    [
        ({"objective": "ce"}, CrossEntropy, "ce"),
        ({"objective": "trades"}, Trades, "kl"),
        ({"objective": "mart"}, Mart, "ce"),
    ],
)
def test_the_config_names_the_objective_and_what_the_attack_raises(
    changes: dict[str, str], kind: type, crafted_on: str
) -> None:
    settings_ = config(beta=2.5, **changes)
    objective = make_objective(settings_)
    assert isinstance(objective, kind)
    assert getattr(objective, "beta", 2.5) == 2.5
    assert crafting_loss(settings_) == crafted_on


def test_distillation_takes_its_alpha_from_the_config_and_is_crafted_on_cross_entropy() -> None:
    settings_ = config(distillation=0.7)
    objective = make_objective(settings_, network())
    assert isinstance(objective, Distillation)
    assert objective.alpha == 0.7
    assert crafting_loss(settings_) == "ce"
